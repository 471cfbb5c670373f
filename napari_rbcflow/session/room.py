"""How long the disk will hold at the rate at which it is being filled."""

from __future__ import annotations

import shutil
import time
from collections import deque
from pathlib import Path

OPEN_END_S = 1800.0
"""A run with no end of its own is told when the disk will hold no longer."""
_SPAN_S = 120.0
"""Over which the rate is taken."""
_LEAST_S = 15.0
"""Before that nothing is said: the first seconds have no tracks."""
_LOOKS = 64
_STEPS_MIN = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720)
_SPARED_BYTES = 64 << 20
"""For the report, the log, and what else is written on such a disk."""


class DiskRoom:
    """Watches the room on the disk that holds a folder. Look once a second or so.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: deque[tuple[float, float]] = deque(maxlen=_LOOKS)
        self._left_s: float | None = None

    def look(self, to_be_copied: int = 0, *, now_s: float | None = None, free: int | None = None) -> None:
        """Take in how much room there is.

        Parameters
        ----------
        to_be_copied : int
            Bytes that the close will need once more.
        now_s : float, optional
            Default: the clock.
        free : int, optional
            Bytes; default: what the disk says.
        """
        now_s = time.monotonic() if now_s is None else now_s
        # Two minutes in as many looks as are remembered.
        if self._looks and now_s - self._looks[-1][0] < _SPAN_S / _LOOKS:
            return
        if free is None:
            try:
                free = shutil.disk_usage(self._folder).free
            except OSError:  # a disk that does not tell
                return
        room = float(free - to_be_copied - _SPARED_BYTES)
        self._looks.append((now_s, room))
        began_s, before = self._looks[0]
        if now_s - began_s < _LEAST_S:
            return
        filled = before - room
        self._left_s = max(0.0, room) * (now_s - began_s) / filled if filled > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the disk is full, at the last two minutes' rate; None where it does not fill."""
        return self._left_s


def room_words(left_s: float | None, needed_s: float | None) -> str:
    """Say how long the disk will hold where a person must know, else nothing.

    Parameters
    ----------
    left_s : float or None
        From `DiskRoom.left_s`.
    needed_s : float or None
        That the run will still go on, if that is known; None for an open end: said under `OPEN_END_S` then.
    """
    if left_s is None or left_s >= (OPEN_END_S if needed_s is None else needed_s):
        return ""
    # In steps: a sentence that changes each second is not read.
    minutes = max((step for step in _STEPS_MIN if 60 * step <= left_s), default=0)
    said = f"some {minutes} minutes" if minutes > 1 else "a minute" if minutes else "less than a minute"
    wanted = "" if needed_s is None else ", less than the run needs"
    return f"At this rate the disk has room for {said} more{wanted}: free some, or stop by then."
