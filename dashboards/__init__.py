"""What people see: the live view and tables of the terminal, JSON for scripts, figures, the live page, the HTML report.

Reads the study database, and writes nothing to it but what a user asks for on the live page. Figures and
the report load plotly on first use only.
"""
