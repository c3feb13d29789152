"""Recordings with reference texts are found by their names."""

import pytest

from whisperd.bench.recordings import find_recordings
from whisperd.core.errors import WhisperdError


def test_recordings_are_files_with_their_words_beside_them(tmp_path):
    """At any depth; a folder named by a language code says what is spoken; other files do not count."""
    for name in ("b.ogg", "b.txt", "b.json", "fr/a.mp3", "fr/a.txt", "alone.wav", "notes.txt"):
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
