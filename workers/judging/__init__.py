"""What a network's files say of images, and a network in 8 bits that says nearly what it said before."""
