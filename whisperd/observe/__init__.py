"""What people see of a running daemon: log lines and reports."""
