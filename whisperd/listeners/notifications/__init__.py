"""Telling others that a job has ended: hooks, webhooks and mail, each a child process with a deadline."""
