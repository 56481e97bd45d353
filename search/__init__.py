"""Who decides what to try, and remembers it: study, sampler, gate, controller, store, pick."""
