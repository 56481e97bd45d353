"""The study database: tables, migrations, and the two ways in: `StudyStore` writes, `reader` reads."""
