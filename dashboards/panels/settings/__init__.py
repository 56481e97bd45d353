"""What the settings of a network and its training do: all at once, two together, each by itself."""
