"""Recordings with reference texts are found by their names."""

import pytest

from whisperd.bench.recordings import find_conversations, find_recordings
from whisperd.core.errors import WhisperdError


def test_recordings_are_files_with_their_words_beside_them(tmp_path):
    """At any depth; a folder named by a language code says what is spoken; other files do not count."""
    for name in ("b.ogg", "b.txt", "b.json", "b.docx", "fr/a.mp3", "fr/a.txt", "alone.wav", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(" some words\n")

    found = find_recordings(tmp_path)

    assert [(str(one.path.relative_to(tmp_path)), one.language) for one in found] == [
        ("b.ogg", None),
        ("fr/a.mp3", "fr"),
    ]
    assert found[0].reference == "some words"


def test_a_folder_without_recordings_is_an_error(tmp_path):
    """Whose hint says what belongs there."""
    with pytest.raises(WhisperdError, match="no recordings") as caught:
        find_recordings(tmp_path)

    assert "x.txt" in caught.value.hint


def test_conversations_are_files_with_their_turns_beside_them(tmp_path):
    """At any depth, with their words or without."""
    for name in ("b.ogg", "b.txt", "b.rttm", "x/a.mp3", "x/a.rttm", "alone.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert find_conversations(tmp_path) == [tmp_path / "b.ogg", tmp_path / "x/a.mp3"]
