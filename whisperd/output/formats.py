"""Renders a transcript into the formats that are asked for.

Each format of `whisperd.core.options.FORMATS` is a module of this package, named like the format, with a function `write`.
All are imported together, before the worker is ready, so that an upgrade on disk cannot mix two versions.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from whisperd.core.options import FORMATS
from whisperd.core.transcript import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript

_WRITERS: dict[str, Callable[[Transcript, OutputOptions, About], str]] = {
    name: importlib.import_module(f"whisperd.output.{name}").write for name in FORMATS
}
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def render(transcript: Transcript, options: OutputOptions, about: About = NOT_KNOWN) -> dict[str, bytes]:
    """Return the content of one file per format of `options.formats`, in UTF-8.

    A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

    Raises:
        KeyError: a format that does not exist; the configuration refuses it.
    """
    return {
        name: _SURROGATE.sub("\ufffd", _WRITERS[name](transcript, options, about)).encode() for name in options.formats
    }
