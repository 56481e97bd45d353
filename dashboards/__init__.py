"""Who shows it: the terminal's live view, tables and JSON for the read commands, figures and the HTML report.

Reads the study database and writes nothing to it. Figures and the report load plotly on first use only.
"""
