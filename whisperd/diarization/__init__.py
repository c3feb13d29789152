"""Diarization: who speaks when, found without knowing the voices before."""
