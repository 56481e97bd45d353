"""The speed and the memory of a training beside the plainest correct one."""
