"""What fits a budget: the table that answers every budget at once, and the networks that it offers."""
