"""Figures and tables of the experiments, and the published ones next to them."""
