"""Training: one network from its first step to its deployed form, with checkpoints on the way."""
