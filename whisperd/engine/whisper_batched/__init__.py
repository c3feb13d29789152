"""The engine `openai-whisper` with `decoding: batched`: decodes windows of several recordings at once."""
