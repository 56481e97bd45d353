"""Making CondenseBench: a table of CondenseNets that were really trained, with what each costs."""
