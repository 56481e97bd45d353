"""The report: one study as one HTML file."""
