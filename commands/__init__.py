"""The command line's verbs, a module for each kind; `condensery.py` puts them together. Nothing heavy at import."""
