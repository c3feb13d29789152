"""How names, sizes and times are shown to people: in logs, status files, pages and on the terminal."""

from __future__ import annotations

import unicodedata

SHORT_SECONDS = 90  # up to here a duration is given in seconds


def printable(name: str) -> str:
    """A file name as it may be shown: bytes that are not UTF-8, control characters and bidi marks become escapes.

    A backslash is doubled, so that no two names are shown alike.
    """
    return "".join(char if _is_harmless(char) else _escaped(char) for char in name)


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
