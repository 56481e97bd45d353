"""The search loop: ask, price, gate, dispatch and record, until the study has as many trainings as it wants."""
