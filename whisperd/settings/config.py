"""Reads whisperd.yaml and checks it against the schema in `sections`.

Unknown keys, wrong types and bad ranges are all reported at once, each with its dotted key, line and column.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from whisperd.core.display import Position, nearest, without_secrets
from whisperd.core.errors import ConfigError
from whisperd.settings import document, profiles
from whisperd.settings.document import Document
from whisperd.settings.sections import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SYSTEM_CONFIG", "Config", "load", "validate"]

SYSTEM_CONFIG = Path("/etc/whisperd/whisperd.yaml")


def load(path: Path | None = None, *, root: Path | None = None, **changes: Any) -> Config:
    """Load the configuration from `path`, otherwise from /etc/whisperd/whisperd.yaml, otherwise use the defaults.

    Args:
        path: a file that must exist.
        root: the spool, instead of what the file says; with it and no `path`, no file is read.
        changes: top-level keys that replace those of the file.

    Raises:
        ConfigError: every problem at once.
    """
    path = file_of(path, root=root)
    found = read(path) if path else Document()
    values = dict(found.values)
    if root is not None:
        values |= {"root": str(root.absolute())}
    values |= changes
    return validate(values, source=str(path) if path else "built-in defaults", found=found)


def file_of(path: Path | None, *, root: Path | None) -> Path | None:
    """The file that `load` reads; None if there is none."""
    return SYSTEM_CONFIG if path is None and root is None and SYSTEM_CONFIG.exists() else path


def read(path: Path) -> Document:
    """Read a configuration file without checking what it says.

    Raises:
        ConfigError: it cannot be read, or is not one YAML mapping.
    """
    try:
        found = document.parse(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is not UTF-8 (byte {error.start})"]) from error
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        position = Position(mark.line + 1, mark.column + 1) if mark else None
        raise ConfigError(str(path), [f"not valid YAML: {' '.join(str(said).split())}"], [position]) from error
    if not isinstance(found.values or {}, dict):
        raise ConfigError(str(path), ["the file must consist of `key: value` lines"])
    return found if found.values else Document()


def validate(values: dict[str, Any], *, source: str, found: Document | None = None) -> Config:
    """Make a configuration from plain values.

    Args:
        values: by section and key.
        source: what the errors are headed with.
        found: where the values are written, so that the errors can say so.

    Raises:
        ConfigError: every problem at once, under the name `source`.
    """
    found = found or Document()
    values, problems = _tuples(values), []
    try:
        config = usable = Config.model_validate(values)
    except ValidationError as error:
        for each in error.errors():
            if (way := each["loc"]) in found.repeated:
                continue  # it would be about one of its two values
            key, reason = profiles.describe(each)
            is_unknown = each["type"] == "extra_forbidden"
            if is_unknown:
                reason += _nearest(key)
            problems.append((f"{key or '(file)'}: {reason}", found.position(way, of_key=is_unknown)))
        usable = _without(values, {each["loc"][0] for each in error.errors() if each["loc"]})
    for (glob, key), reason in profiles.problems(usable, usable.profiles):
        way = (
            ("profiles", glob, key) if ("profiles", glob, key) in found.keys else ("profiles", glob, key.split(".")[0])
        )
        position = found.position(way, of_key=reason.startswith("unknown key"))
        problems.append((".".join(filter(None, ("profiles", glob, key))) + f": {reason}", position))
    for way, position in found.repeated.items():
        key = ".".join(without_secrets(str(part)) for part in way)
        problems.append((f"{key}: is there twice", position))
    if problems:
        raise ConfigError(source, [text for text, _ in problems], [position for _, position in problems])
    return config


def dotted_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of the schema."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from dotted_keys(type(default), f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest(key: str) -> str:
    """Name the key that was meant: the same one of another section, or a similar one, best of the same section."""
    prefix, _, name = key.rpartition(".")
    known, by_name = list(dotted_keys()), dict[str, list[str]]()
    for each in known:
        by_name.setdefault(each.rpartition(".")[2], []).append(each)
    level = len(prefix.split(".")) if prefix else 0
    siblings = {".".join(each.split(".")[: level + 1]) for each in known if each.startswith(prefix and f"{prefix}.")}
    unique = {name: found[0] for name, found in by_name.items() if len(found) == 1}
    meant = unique.get(name) or nearest(key, siblings) or unique.get(nearest(name, unique))
    return f" (did you mean {meant}?)" if meant else ""


def _without(values: dict[str, Any], bad: set[int | str]) -> Config:
    """The configuration without the sections that are wrong, so that problems of the profiles are reported too."""
    try:
        return Config.model_validate({key: value for key, value in values.items() if key not in bad})
    except ValidationError:
        return Config()


def _tuples(value: Any) -> Any:
    """Turn the lists of YAML into tuples, which the immutable schema has."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value
