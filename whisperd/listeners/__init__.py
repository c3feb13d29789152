"""Whoever is told what happens: log lines, the overview, metrics, notifications. The core knows none of them."""
