"""Kill every process of real searches at every phase; see `__main__` for how it is run."""
