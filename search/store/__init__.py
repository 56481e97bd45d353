"""The study database: connection, tables and migrations, and the two ways in: `StudyStore` writes, `reader` reads."""
