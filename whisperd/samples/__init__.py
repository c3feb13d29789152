"""A recording for `whisperd demo`: John F. Kennedy, inaugural address, 20 January 1961; public domain."""
