"""How names, sizes, times and places in a file are shown to people: in logs, status files, pages and on the terminal."""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "***"  # stands for a token or password
SHORT_SECONDS = 90  # up to here a duration is given in seconds


class Position(NamedTuple):
    """A place in a text file, counted from 1, as editors do."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is not known: ` (did you mean beam_size?)`; empty if none is similar."""
    similar = nearest(word, known)
    return f" (did you mean {similar}?)" if similar else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The most similar of the known words; empty if none is similar."""
    return next(iter(difflib.get_close_matches(word.lower()[:100], known, n=1, cutoff=0.7)), "")


def printable(name: str) -> str:
    """A file name as it may be shown: bytes that are not UTF-8, control characters and bidi marks become escapes.

    A backslash is doubled, so that no two names are shown alike.
    """
    return "".join(char if _is_harmless(char) else _escaped(char) for char in name)


def without_secrets(text: str) -> str:
    """A text, or only scheme and host if it has an address in it: tokens and passwords are everywhere else in addresses.

    Only web addresses keep their host, since the addresses of chats have their token in its place.
    """
    before, sign, after = text.partition("://")
    if not sign:
        return text
    scheme = re.search("[A-Za-z][A-Za-z0-9+.-]*$", before)
    if scheme is None:
        return HIDDEN
    host = re.match(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(?=[/?#]|$)", after)
    is_web = scheme[0].lower() in {"http", "https"} and "@" not in after
    return f"{scheme[0]}://{host[0]}/{HIDDEN}" if is_web and host else f"{scheme[0]}://{HIDDEN}"


def one_line(text: str) -> str:
    """Text in which a space replaces every character that is not printable, line breaks included."""
    return "".join(char if char.isprintable() else " " for char in text)


def is_plain(text: str) -> bool:
    """Whether a text holds nothing that `printable` would escape, except backslashes."""
    return text.isprintable() or all(char == "\\" or _is_harmless(char) for char in text)


def readable_size(count: float) -> str:
    """A number of bytes: `81 MB`, in powers of 1000 as disks are sold."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.1f} {unit}" if count < 10 and unit != "bytes" else f"{count:.0f} {unit}"  # noqa: PLR2004
        count /= 1000
    return f"{count:.1f} GB" if count < 1000 else f"{count / 1000:.1f} TB"  # noqa: PLR2004


def mebibytes(count: int) -> str:
    """A number of bytes beside a limit from whisperd.yaml, where `500M` is 500 * 2**20 bytes: `500 MB`."""
    return f"{count >> 20} MB"


def readable_duration(seconds: float) -> str:
    """A length of time in words: `45 s`, `12 min`, `1 h 20 min`."""
    if seconds < SHORT_SECONDS:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def clock(seconds: float) -> str:
    """A position in a recording, or time left, in whole seconds: `1:02:03`, or `2:03` below an hour."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _is_harmless(char: str) -> bool:
    return char != "\\" and (char.isprintable() or unicodedata.category(char) == "Zs")


def _escaped(char: str) -> str:
    if unicodedata.category(char) == "Cs":  # a byte that is not UTF-8, as PEP 383 keeps it in a str
        return f"\\x{ord(char) & 0xFF:02x}"
    if "\x80" <= char <= "\xff":  # `\xNN` is for bytes
        return f"\\u{ord(char):04x}"
    return char.encode("unicode_escape").decode("ascii")
