"""What measuring must not disturb: a model and what it reaches, random numbers, settings of PyTorch, memory."""
