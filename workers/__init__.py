"""Who does the work: train, export, measure. Stateless: everything learned goes back through a reporter.

Modules are imported by name (`from workers import training`), because most of them need torch.
"""
