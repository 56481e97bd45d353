"""Ray Tune as an engine: the controller's side, the driver in a process of its own, and its supervisor."""
