"""TEXT: writes a transcript in each format. Pure functions, without files or torch; `formats.render` is the entry."""
