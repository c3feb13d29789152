"""What all unit tests share."""

from types import SimpleNamespace

import pytest

from whisperd.core import slices


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch):
    """For slices the time stands still: a busy machine cuts no turn short, unless a test scripts the clock."""
    monkeypatch.setattr(slices, "time", SimpleNamespace(monotonic=lambda: 0.0))
