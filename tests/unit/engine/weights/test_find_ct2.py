"""Where weights for CTranslate2 are looked for."""

import hashlib

import pytest

from whisperd.core.errors import BootError
from whisperd.engine.weights import find
from whisperd.engine.weights.catalogue import PACKAGES, Package
from whisperd.engine.weights.find import NEEDED, Ct2Weights, find_ct2, read_package


def directory(path, names=NEEDED):
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"x")
    return path


def test_a_path_is_a_directory(tmp_path):
    """Its name is the model's."""
    path = directory(tmp_path / "german-small")

    found = find_ct2(str(path), tmp_path)

    assert (found.model, found.directory) == ("german-small", path)


def test_a_name_is_a_directory_among_the_models(tmp_path):
    """Under the canonical name, and before any package."""
    path = directory(tmp_path / "large-v3")

    assert find_ct2("large", tmp_path).directory == path


@pytest.mark.parametrize("missing", NEEDED)
def test_a_directory_that_is_not_whole_is_refused(tmp_path, missing):
    """Without a tokenizer faster-whisper would ask the network for one."""
    path = directory(tmp_path / "model", [name for name in NEEDED if name != missing])

    with pytest.raises(BootError, match=f"{missing} missing") as caught:
        find_ct2(str(path), tmp_path)

    assert "--copy_files tokenizer.json" in caught.value.hint


def test_what_is_nowhere_is_refused_with_the_command_that_makes_it(tmp_path):
    """Nothing is fetched."""
    with pytest.raises(BootError, match="'medium'") as caught:
        find_ct2("medium", tmp_path)

    assert "ct2-transformers-converter --model openai/whisper-medium" in caught.value.hint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Weights in two parts, with a file beside them."""
    for name, content in {"one": b"ab", "two": b"cd", "config.json": b"{}"}.items():
        (tmp_path / name).write_bytes(content)
    known = Package("model-toy", (), hashlib.sha256(b"abcd").hexdigest())
    monkeypatch.setitem(PACKAGES, "toy", known)
    monkeypatch.setitem(find.BESIDES, "toy", {"config.json": hashlib.sha256(b"{}").hexdigest()})
    return Ct2Weights("toy", None, (tmp_path / "one", tmp_path / "two"), "a package")


def test_a_package_is_joined_in_memory(package):
    """CTranslate2 wants one `model.bin`, and a worker writes nowhere but in its job's directory."""
    assert read_package(package) == {"model.bin": b"abcd", "config.json": b"{}"}


@pytest.mark.parametrize("file", ["two", "config.json"])
def test_a_damaged_package_is_refused(package, file):
    """Every file of it has its SHA-256."""
    (package.parts[0].parent / file).write_bytes(b"?")

    with pytest.raises(BootError, match="is damaged"):
        read_package(package)


def test_every_package_says_what_lies_beside_it():
    """What cannot be verified is not used."""
    assert find.BESIDES.keys() == PACKAGES.keys()
