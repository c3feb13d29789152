"""PROCESSES, the child's side: one loaded model, one job at a time, one pipe to the supervisor."""
