"""Renders a transcript into the formats that are asked for.

Each format of `whisperd.core.options.FORMATS` is a module of this package, named like the format, with a function `write`, which
returns text, or bytes if the format is not a text.
All are imported together, before the worker is ready, so that an upgrade on disk cannot mix two versions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from typing import TYPE_CHECKING

from whisperd.core.options import FORMATS
from whisperd.core.replacements import correct
from whisperd.core.transcript import NOT_KNOWN
from whisperd.output.text import encodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript

RECORDED = "json"  # the format that is the recorded transcript; others may name its digest
_WRITERS: dict[str, Callable[[Transcript, OutputOptions, About], str | bytes]] = {
    name: importlib.import_module(f"whisperd.output.{name}").write for name in FORMATS
}


def render(transcript: Transcript, options: OutputOptions, about: About = NOT_KNOWN) -> dict[str, bytes]:
    """Return the content of one file per format of `options.formats`, with the replacements made; text is in UTF-8.

    A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

    Raises:
        KeyError: a format that does not exist; the configuration refuses it.
    """
    transcript = correct(transcript, options.replacements)
    rendered: dict[str, bytes] = {}
    for name in sorted(options.formats, key=lambda name: name != RECORDED):
        content = _WRITERS[name](transcript, options, about)
        rendered[name] = encodable(content).encode() if isinstance(content, str) else content
        if name == RECORDED and not about.recorded_sha256:
            about = dataclasses.replace(about, recorded_sha256=hashlib.sha256(rendered[name]).hexdigest())
    return {name: rendered[name] for name in options.formats}
