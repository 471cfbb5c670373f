"""A bounded queue between two threads that can be ended from either side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Hands items from producers to one consumer, in order, with at most `capacity` waiting.

    Lifecycle: `put` or `offer` -> `close` (no more will come; the consumer still gets what waits) or `abort`
    (nobody will take any more; all who wait are released). `queue.Queue` has no such ends before Python 3.13.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = max(1, capacity)
        self._changed = threading.Condition()
        self._closed = False
        self._aborted = False

    @property
    def _ended(self) -> bool:
        return self._closed or self._aborted

    def __len__(self) -> int:
        return len(self._items)

    def first(self) -> T | None:
        """Return the item that has waited longest, without taking it; None if none waits."""
        with self._changed:
            return self._items[0] if self._items else None

    def offer(self, item: T) -> bool:
        """Put the item if there is room now; return whether there was."""
        with self._changed:
            if self._ended or len(self._items) >= self._capacity:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def put(self, item: T) -> bool:
        """Put the item, waiting for room; return False if the channel ended meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < self._capacity)
            if self._ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, most: int = 1, linger_s: float = 0.0) -> list[T]:
        """Wait for at least one item and return up to `most`; an empty list once the channel has ended.

        After the first item, wait `linger_s` at most for the others: a batch costs the same however full.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            if linger_s:
                self._changed.wait_for(lambda: len(self._items) >= most or self._ended, linger_s)
            if self._aborted:
                return []
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
            return taken

    def __iter__(self) -> Iterator[T]:
        while batch := self.take():
            yield batch[0]

    def wait_for_fewer(self, most: int, timeout_s: float) -> bool:
        """Wait until fewer than `most` items wait or no more will come; return whether they do in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or len(self._items) < most, timeout_s)

    def close(self) -> None:
        """Say that no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Release everybody who waits; what was not taken stays for `leftover`."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def leftover(self) -> list[T]:
        """Take what nobody took."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            return items
