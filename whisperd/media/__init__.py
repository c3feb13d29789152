"""AUDIO: from an upload to samples. `media` is the way in."""
