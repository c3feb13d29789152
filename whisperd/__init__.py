"""whisperd: a watched folder that turns recordings into text."""

import os

__version__ = "0.1.0"

# onnxruntime, which faster-whisper may load, sends events to its maker unless this is set before. No data leaves the machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
