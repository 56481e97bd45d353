"""Images: read from where a user keeps them, decoded once, mapped into memory, and cut into batches."""
