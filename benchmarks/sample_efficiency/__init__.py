"""How many trainings each sampler needs, replayed from a table of trainings that are known already."""
