"""The connection to the study database: it is opened, its tables are checked, and work waits while it is away."""
