"""Export: one deployed network written in each runtime's own file format and checked against torch."""
