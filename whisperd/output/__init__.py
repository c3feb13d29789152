"""TEXT: what a transcript looks like in a file. Pure functions, no files, no torch; `formats` is the way in."""
