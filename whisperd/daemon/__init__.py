"""PROCESSES, the parent's side: one loop on one thread that never imports torch or numpy."""
