"""The networks are loaded for the first recording that needs them."""

from __future__ import annotations

import pytest

from whisperd.core.errors import InputError
from whisperd.diarization.on_demand import DiarizerOnDemand


def test_a_recording_fails_where_the_weights_are_missing(tmp_path, monkeypatch):
    """With what brings them; a worker that lacks them still serves all other recordings."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])

    with pytest.raises(InputError, match="no weights for diarization") as caught:
        DiarizerOnDemand(tmp_path, threads=1).get()

    assert caught.value.job_code == "unsupported"
    assert not caught.value.retryable
    assert "whisperd models fetch speakers" in caught.value.hint
