"""Notifications of the end of a job: commands, webhooks and mail, each delivered by a child process with a deadline."""
