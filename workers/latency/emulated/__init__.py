"""The ARM device in software: made from packages, run by an emulator, and asked for counts of instructions."""
