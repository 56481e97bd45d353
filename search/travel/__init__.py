"""Studies that leave a database and come into another one: archives, and what other tools write and read."""
