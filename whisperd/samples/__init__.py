"""SAMPLES: the recording for `whisperd demo`, from John F. Kennedy's inaugural address of 20 January 1961; public domain."""
