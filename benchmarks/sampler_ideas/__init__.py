"""Ideas for the price-aware sampler, one at a time; see `benchmarks.sampler_ideas.__main__`."""
