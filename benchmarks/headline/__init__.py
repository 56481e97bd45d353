"""The whole claim on real trainings: processor seconds until a search has its front, beside what one would write."""
