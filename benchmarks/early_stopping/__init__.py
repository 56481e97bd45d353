"""How many epochs early stopping saves on recorded learning curves, and which members of the front it costs."""
