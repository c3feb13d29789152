"""How fast, how right and how large: whisperd, through its daemon, beside other programs on the same recordings."""
