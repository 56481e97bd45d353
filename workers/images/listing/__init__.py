"""What a user's images are, however laid out: files, labels, splits, groups and weights; nothing is decoded."""
