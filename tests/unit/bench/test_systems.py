"""Programs that cannot be measured here."""

import sys

from whisperd.bench.comparison import Comparison
from whisperd.bench.machine import is_here
from whisperd.bench.systems import missing
from whisperd.settings import config


def test_what_is_not_here_says_why(tmp_path, monkeypatch):
    """A program, or weights for it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pywhispercpp", None)  # as if it were not installed
    settings = config.load(root=tmp_path, model="medium", models_directory=str(tmp_path))

    assert missing("whisper.cpp", settings) == "not installed: pip install pywhispercpp, or put whisper-cli on PATH"
    assert "medium" in missing("openai-whisper", settings)
    assert not is_here("medium", settings)
    assert Comparison().broken == {}
