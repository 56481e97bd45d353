"""Who runs trials: `LocalEngine` in processes of this machine, `FakeEngine` in none (for tests and benchmarks)."""
