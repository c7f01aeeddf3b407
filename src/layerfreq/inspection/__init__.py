"""Before, after and around a training: which layers can be measured, checkpoints, and what measuring costs."""
