"""One forward pass on the probe set: the values in it, and what made them."""
