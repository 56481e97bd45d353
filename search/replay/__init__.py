"""Replaying a table of recorded trainings as a study: nothing is decoded, measured or trained."""
