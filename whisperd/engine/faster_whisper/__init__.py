"""The engine `faster-whisper`, which runs models with CTranslate2."""
