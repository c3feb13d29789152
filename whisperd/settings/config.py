"""Reads whisperd.yaml and checks it against the schema in `sections`.

Unknown keys, wrong types and bad ranges are all reported at once, each with its dotted key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from whisperd.core.errors import ConfigError
from whisperd.settings import profiles
from whisperd.settings.sections import Config

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
    if path is None and root is None and SYSTEM_CONFIG.exists():
        path = SYSTEM_CONFIG
    values: Any = {} if path is None else _read(path)
    source = str(path) if path else "built-in defaults"
    if not isinstance(values, dict):
        raise ConfigError(source, ["the file must consist of `key: value` lines"])
    if root is not None:
        values |= {"root": str(root.absolute())}
    values |= changes
    return validate(values, source=source)


def validate(values: dict[str, Any], *, source: str) -> Config:
    """Make a configuration from plain values.

    Raises:
        ConfigError: every problem at once, under the name `source`.
    """
    values, problems = _tuples(values), []
    try:
        config = usable = Config.model_validate(values)
    except ValidationError as error:
        problems = [f"{key or '(file)'}: {reason}" for key, reason in map(profiles.describe, error.errors())]
        usable = _without(values, {found["loc"][0] for found in error.errors() if found["loc"]})
    problems += profiles.problems(usable, usable.profiles)
    if problems:
        raise ConfigError(source, problems)
    return config


def _without(values: dict[str, Any], bad: set[int | str]) -> Config:
    """The configuration without the sections that are wrong, so that problems of the profiles are reported too."""
    try:
        return Config.model_validate({key: value for key, value in values.items() if key not in bad})
    except ValidationError:
        return Config()


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text("utf-8"), Loader=_UniqueKeys) or {}  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [" ".join(str(error).split())]) from error


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that refuses a repeated key, where the default would silently drop the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _tuples(value: Any) -> Any:
    """Turn the lists of YAML into tuples, which the immutable schema has."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value
