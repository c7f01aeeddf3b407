"""Features, targets and inputs: checked here once, and used everywhere else as they come out."""
