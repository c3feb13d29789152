"""A queue that is fair between groups and first come first served within one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


def top_folder(name: str) -> str:
    """The group of a name: its folder right below the inbox, or none."""
    folder, slash, _ = name.partition("/")
    return folder if slash else ""


class FairQueue(Generic[T]):
    """Groups take turns: somebody who drops a thousand files delays the others' by one file each."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, OrderedDict[str, T]] = OrderedDict()
        self._group_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, key: str) -> bool:
        return key in self._group_of

    def __iter__(self) -> Iterator[T]:
        """The items in the order in which `pop` would give them."""
        rows = [iter(tuple(group.values())) for group in self._groups.values()]
        while rows:
            for row in tuple(rows):
                try:
                    yield next(row)
                except StopIteration:
                    rows.remove(row)

    def push(self, key: str, group: str, item: T) -> None:
        """Add at the end of its group; a key that is there already keeps its turn."""
        self._groups.setdefault(group, OrderedDict())[key] = item
        self._group_of[key] = group

    def push_front(self, key: str, group: str, item: T) -> None:
        """Give back what `pop` gave: it is next again."""
        self.push(key, group, item)
        self._groups[group].move_to_end(key, last=False)
        self._groups.move_to_end(group, last=False)

    def pop(self) -> T | None:
        """The next item, whose group goes to the end of the line; None if there is none."""
        if not self._groups:
            return None
        group, items = self._groups.popitem(last=False)
        key, item = items.popitem(last=False)
        del self._group_of[key]
        if items:
            self._groups[group] = items
        return item

    def take(self, key: str) -> None:
        """Take one out, wherever it stands, and let its group go to the end of the line, as `pop` does."""
        group = self._group_of[key]
        self.remove(key)
        if group in self._groups:
            self._groups.move_to_end(group)

    def peek(self) -> T | None:
        """What `pop` would give."""
        for items in self._groups.values():
            return next(iter(items.values()))
        return None

    def remove(self, key: str) -> None:
        """Take one out, wherever it stands; one that is not there is fine."""
        group = self._group_of.pop(key, None)
        if group is not None:
            del self._groups[group][key]
            if not self._groups[group]:
                del self._groups[group]
