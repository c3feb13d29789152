"""PROCESSES: the supervisor, whose loop runs the parts of the daemon on one thread, without torch or numpy."""
