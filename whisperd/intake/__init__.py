"""ARRIVALS: finds uploads by events and scans, waits until they are complete, and reads tickets and requests to cancel."""
