"""``run.log``: what the package says while a session is written."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path

LOGGER = "napari_rbcflow"
IN_A_ROW, EVERY_S = 20, 60.0
"""So often one place in the program is taken down within this time: what repeats with every frame, for hours,
must not fill the disk or hide the rest."""


class SessionLog(logging.FileHandler):
    """Takes down what the package logs from INFO on, until `close`; of what repeats, how often it came."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
        self._told: Counter[tuple[str, int]] = Counter()
        self._left_out: dict[tuple[str, int], tuple[int, logging.LogRecord]] = {}
        self._since_s = time.monotonic()
        self._counting = threading.RLock()
        logger = logging.getLogger(LOGGER)
        self._level_before = logger.level
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take down a record, unless its place in the program has had its share of this minute."""
        place = record.pathname, record.lineno
        with self._counting:
            if time.monotonic() - self._since_s >= EVERY_S:
                self._tell_left_out()
            self._told[place] += 1
            if self._told[place] > IN_A_ROW:
                newest = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
                self._left_out[place] = self._left_out.get(place, (0, newest))[0] + 1, newest
                return
        super().emit(record)

    def _tell_left_out(self) -> None:
        """Say how often what was left out came, and begin to count anew."""
        for n, record in self._left_out.values():
            record.msg = f"{record.msg} (and {n - 1} times more like it)" if n > 1 else record.msg
            super().emit(record)
        self._left_out.clear()
        self._told.clear()
        self._since_s = time.monotonic()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: a full disk must not fill the terminal, and what broke is said elsewhere."""

    def close(self) -> None:
        """Stop listening."""
        logger = logging.getLogger(LOGGER)
        if self in logger.handlers:
            logger.removeHandler(self)
            with self._counting:
                self._tell_left_out()
            if not any(isinstance(handler, SessionLog) for handler in logger.handlers):
                logger.setLevel(self._level_before)
        super().close()
