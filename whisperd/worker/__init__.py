"""WORKER: a process with a loaded model, and the pipeline from a recording to its transcripts."""
