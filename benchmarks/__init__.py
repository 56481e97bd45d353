"""Each claim of the README as a command that prints it, its peer in the same run. Run from the project's folder."""
