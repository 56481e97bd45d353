"""A sampler that models only what a training tells: the other objectives are known for every candidate in advance."""
