"""Names that are never uploads."""

import pytest

from whisperd.intake.ignore import Ignore


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "._a.wav",
        ".a.wav.Xy12Zq",
        "a.wav.part",
        "A.WAV.PART",
        "a.wav.!qB",
        "a.wav.!ut",
        "a.wav.upload",
        "a.wav.aria2__temp",
        "a.wav.lftp-pget-status",
        "a.wav.bc!",
        "a.tmp",
        "a.wav~",
        "~$a.docx",
        "#a#",
        "Thumbs.db",
        "@eaDir",
        "Icon\r",
        "~syncthing~a.wav.tmp",
        "$RECYCLE.BIN",
    ],
)
def test_side_files_are_ignored(name):
    """Of every program that people upload with, in any case."""
    assert Ignore()(name)


@pytest.mark.parametrize(
    "name", ["a.wav", "part", "a.part.wav", "tmp", "a~b.wav", "a#b", "partial recording.mp3", "wav"]
)
def test_recordings_are_not(name):
    """Only the pattern as a whole counts."""
    assert not Ignore()(name)


@pytest.mark.parametrize(
    ("pattern", "name", "ignored"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "a.txt.wav", False),
        ("draft*", "Draft 1.wav", True),
        ("[0-9].wav", "7.wav", True),
        ("*.*.done", "a.wav.done", True),
        ("*.tar.gz", "a.tar.gz", True),
        ("skip me", "SKIP ME", True),
        ("skip me", "skip me.wav", False),
    ],
)
def test_patterns_of_ones_own(pattern, name, ignored):
    """Globs, as in a shell."""
    assert Ignore([pattern])(name) is ignored
