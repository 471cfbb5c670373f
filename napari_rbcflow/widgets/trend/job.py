"""Session folders read in a thread of their own; none of Qt's objects."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from napari_rbcflow.trend import Gathered, gather


class _Given(Exception):
    """Nobody waits for it any more."""


class ReadingJob:
    """Reads the sessions of some folders, one call at a time; a folder on a slow network stops nobody.

    Attributes
    ----------
    read : (int, int)
        Sessions read so far, and in all.
    """

    def __init__(self) -> None:
        self.read = (0, 0)
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Gathered] | None = None
        self._given_up = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether something is being read, or waits to be taken."""
        return self._future is not None

    def start(self, paths: Sequence[Path]) -> None:
        """Begin; what was being read is given up."""
        self._given_up.set()
        self._given_up = threading.Event()
        self.read = (0, 0)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-trend")
        self._future = self._pool.submit(self._gather, tuple(paths), self._given_up)

    def take(self) -> Gathered | None:
        """Return what was read, once; None as long as it is being read.

        Raises
        ------
        RbcflowError
            As `gather`.
        """
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def close(self) -> None:
        """Give up, and leave no thread behind; a later `start` is fine."""
        self._given_up.set()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._future = None

    def _gather(self, paths: Sequence[Path], given_up: threading.Event) -> Gathered:
        def progress(done: int, of: int) -> None:
            if given_up.is_set():
                raise _Given
            self.read = (done, of)

        return gather(paths, progress)
