"""Results: the Pareto front of a study, the network to pick from it, and the bundle to deploy."""
