"""Networks that are no CondenseNets, to compare with: built for any images, counted, exported and trained."""
