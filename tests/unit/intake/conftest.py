"""In these tests a turn of the loop has as much time as it needs, or their outcome would depend on the machine's load."""

import types

import pytest


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """No slice is ever used up."""
    monkeypatch.setattr("whisperd.core.slices.time", types.SimpleNamespace(monotonic=lambda: 0.0))
