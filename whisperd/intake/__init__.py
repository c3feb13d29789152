"""ARRIVALS: events are hints, the scan is the truth, and settling is a state machine of its own."""
