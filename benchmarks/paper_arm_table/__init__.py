"""The ARM table of the CondenseNet paper again, with the networks of today; see `__main__` for how it is run."""
