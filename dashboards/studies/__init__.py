"""Several studies: the list of a database's studies, and up to four of them beside each other, as plain data."""
