"""Telling listeners what happened."""

from whisperd.core import events


def test_a_listener_that_raises_harms_nobody(caplog):
    """The others hear of it, the emitter goes on, and the log names the listener once, with its traceback."""
    heard = []

    def broken(event):
        raise KeyError(event)

    emitter = events.Emitter()
    emitter.subscribe(broken)
    emitter.subscribe(heard.append)
    for _ in range(3):
        emitter.emit(events.ClaimsResumed())

    assert len(heard) == 3
    (record,) = caplog.records
    assert "broken failed on ClaimsResumed: KeyError" in record.message
    assert record.exc_info is not None
