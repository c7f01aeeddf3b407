"""What measuring must not disturb: a model and what it refers to, random state, PyTorch settings, memory."""
