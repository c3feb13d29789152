"""The arguments of `whisperd bench`."""

import pytest

from whisperd import cli


def test_unknown_programs_are_refused(capsys):
    """With those that are known."""
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args(["bench", "--against", "openai-whisper,siri"])

    assert caught.value.code == 2
    assert "unknown: siri" in capsys.readouterr().err
