"""A sampler that models only what a training tells: the other objectives are known for every candidate in advance."""

WHOLE = 4_000  # a space of no more candidates is always looked at as a whole
