"""What users ask of a search: configs of their own to try next, completed; trials to give up; its end."""
