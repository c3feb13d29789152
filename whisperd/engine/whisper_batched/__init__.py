"""Batched decoding with openai-whisper's weights: windows in, text out."""
