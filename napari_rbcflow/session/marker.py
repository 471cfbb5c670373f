"""The file ``.writing``: who writes this session, and room for its last words."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from napari_rbcflow.ring.disk import preallocate, rename_over, sync_folder, write_all

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".writing"
RESERVE_BYTES = 8 * 2**20
"""Held back until the close, so that a full disk still takes run.json, report.html and a sorted cells.csv."""

LAST_BYTES = 256 * 2**10
"""Of these, kept even then: another program may take what was given back before the close can use it."""


class WritingMarker:
    """Locked for as long as the session's process lives; the system lets go of it when that dies.

    Its presence without a lock says that the session crashed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: IO[bytes] = self._path.open("xb+", buffering=0)
        preallocate(self._file, RESERVE_BYTES)
        _lock(self._file)

    def release_reserve(self) -> None:
        """Give the bytes held back to whoever closes the session."""
        with contextlib.suppress(OSError):
            self._file.truncate(LAST_BYTES)

    def become(self, path: Path, data: bytes) -> None:
        """Put `data` in the place of `path` with the bytes that this file has; it is then no marker any more.

        Raises
        ------
        OSError
        """
        self._file.seek(0)
        write_all(self._file, data)
        self._file.truncate(len(data))
        os.fsync(self._file.fileno())
        self._file.close()
        rename_over(self._path, path)
        sync_folder(path.parent)

    def remove(self) -> None:
        """Unlock and delete."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def is_being_written(folder: Path) -> bool:
    """Say whether a living process writes the session in `folder`.

    A shared lock needs no right to write. Where not even reading is allowed it cannot be known; then
    yes, as a living run must never be taken for a crashed one.
    """
    try:
        file = (folder / NAME).open("rb", buffering=0)
    except PermissionError:
        return True
    except OSError:
        return False
    with file:
        try:
            _lock(file, shared=True)
        except OSError:
            return True
    return False


def _lock(file: IO[bytes], *, shared: bool = False) -> None:
    """Lock at once or raise `OSError`."""
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
