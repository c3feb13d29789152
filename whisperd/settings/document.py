"""Reads a YAML file and keeps the line and column of each key and value, so that an error can name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from whisperd.core.display import Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Way = tuple[int | str, ...]  # from the top to a value: keys of mappings, indices of lists


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML file says, and where.

    Attributes:
        values: plain Python values; of a repeated key the last value.
        keys: the position of each key, by the way to it.
        places: the position of each value.
        repeated: the position of each key that is there once more.
    """

    values: Any = field(default_factory=dict)
    keys: Mapping[Way, Position] = field(default_factory=dict)
    places: Mapping[Way, Position] = field(default_factory=dict)
    repeated: Mapping[Way, Position] = field(default_factory=dict)

    def position(self, way: Way, *, of_key: bool = False) -> Position | None:
        """The position of a value, or of its key; if it is not in the file, that of the nearest thing around it."""
        if of_key and way in self.keys:
            return self.keys[way]
        while way and way not in self.places:
            way = way[:-1]
        return self.places[way] if way else None


def parse(text: str) -> Document:
    """Parse YAML without tags that create objects.

    Raises:
        yaml.YAMLError: it is not valid; `problem_mark` says where.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document()
        keys, places, repeated = dict[Way, Position](), dict[Way, Position](), dict[Way, Position]()
        for way, key, value in _entries(loader, root, (), frozenset()):
            if way in keys:
                repeated.setdefault(way, _position(key))
            keys[way], places[way] = _position(key), _position(value)
        return Document(loader.construct_document(root), keys, places, repeated)
    finally:
        loader.dispose()


def _entries(
    loader: yaml.SafeLoader, node: yaml.Node, above: Way, around: frozenset[int]
) -> Iterator[tuple[Way, yaml.Node, yaml.Node]]:
    """Yield the way, the key and the value of everything in a node; an element of a list is its own key."""
    if id(node) in around:
        raise yaml.MarkedYAMLError(problem="this contains itself", problem_mark=node.start_mark)
    found: list[tuple[int | str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        scalars = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        found = [(loader.construct_object(key), key, value) for key, value in scalars]
    elif isinstance(node, yaml.SequenceNode):
        found = [(number, each, each) for number, each in enumerate(node.value)]
    for name, key, value in found:
        yield (*above, name), key, value
        yield from _entries(loader, value, (*above, name), around | {id(node)})


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)
