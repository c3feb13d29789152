"""A long run of the real daemon under load and faults; `tests/bench/soak.py` is its command."""
