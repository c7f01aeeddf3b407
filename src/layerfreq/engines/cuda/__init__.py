"""The engine of GPUs: one Triton kernel that serves all cutoffs."""
