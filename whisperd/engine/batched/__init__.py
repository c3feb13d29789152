"""Batched decoding over openai-whisper's weights: windows in, decoded windows out."""

from whisperd.engine.batched.decoder import BatchedDecoder
from whisperd.engine.batched.windows import Decoded, Window

__all__ = ["BatchedDecoder", "Decoded", "Window"]
