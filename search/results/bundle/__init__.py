"""Bundle: the folder that is deployed, what stands in it, its preview, and a network's file alone."""
