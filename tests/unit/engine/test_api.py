from pathlib import Path

import pytest

from whisperd.core.errors import BootError
from whisperd.core.options import ENGINES, EngineOptions
from whisperd.engine.api import create
from whisperd.engine.scripted import Scripted
from whisperd.settings.sections import Config


def options(engine, model="base"):
    return EngineOptions(engine, model, Path("no-models-here"), device="cpu", threads=1)


def test_the_engine_asked_for_is_made():
    """That it imports no other is shown in test_engine_scripted.py, in a process of its own."""
    engine = create(options("scripted"))

    assert isinstance(engine, Scripted)
    assert engine.info.model == "base"


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_of_the_configuration_is_in_the_table(name):
    """None is accepted at the start of the daemon and unknown to its workers."""
    reason = ""
    try:
        create(options(name, "no-such-model"))
    except BootError as error:
        reason = error.message

    assert "there is no engine" not in reason
    assert Config(engine=name).jobs_per_worker() >= 1


def test_an_unknown_engine_stops_the_start():
    """With the name that was asked for, and one that would do."""
    with pytest.raises(BootError, match="there is no engine 'wisper'") as caught:
        create(options("wisper"))

    assert "openai-whisper" in caught.value.hint


def test_missing_weights_stop_the_start():
    """The boot error of the weights passes through, hint and all."""
    with pytest.raises(BootError, match="no-such-model") as caught:
        create(options("openai-whisper", "no-such-model"))

    assert caught.value.hint
