"""The terminal: the live view of a launch, the tables of the commands, and what --json prints."""
