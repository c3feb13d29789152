"""A queue that takes from groups in turn, and first come, first served within a group."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


def top_folder(name: str) -> str:
    """The group that an upload belongs to: its top-level folder in the inbox, or an empty string."""
    folder, slash, _ = name.partition("/")
    return folder if slash else ""


class FairQueue(Generic[T]):
    """A queue whose groups take turns, so that a user with a thousand files delays each other user by one file."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, OrderedDict[str, T]] = OrderedDict()
        self._group_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, key: str) -> bool:
        return key in self._group_of

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items in the order in which `pop` would return them."""
        rows = [iter(tuple(group.values())) for group in self._groups.values()]
        while rows:
            for row in tuple(rows):
                try:
                    yield next(row)
                except StopIteration:
                    rows.remove(row)

    def push(self, key: str, group: str, item: T) -> None:
        """Add an item at the end of its group; a key that is already queued keeps its position."""
        self._groups.setdefault(group, OrderedDict())[key] = item
        self._group_of[key] = group

    def push_front(self, key: str, group: str, item: T) -> None:
        """Put back an item that `pop` returned, so that it is the next one again."""
        self.push(key, group, item)
        self._groups[group].move_to_end(key, last=False)
        self._groups.move_to_end(group, last=False)

    def pop(self) -> T | None:
        """Remove and return the next item, and move its group to the end; None if the queue is empty."""
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
