"""``run.log``: what the package says while a session is written."""

from __future__ import annotations

import logging
from pathlib import Path

LOGGER = "napari_rbcflow"


class SessionLog(logging.FileHandler):
    """Takes down everything from INFO on that the package logs, until `close`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
        logger = logging.getLogger(LOGGER)
        self._level_before = logger.level
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: a full disk must not fill the terminal, and what broke is said elsewhere."""

    def close(self) -> None:
        """Stop listening."""
        logger = logging.getLogger(LOGGER)
        if self in logger.handlers:
            logger.removeHandler(self)
            if not any(isinstance(handler, SessionLog) for handler in logger.handlers):
                logger.setLevel(self._level_before)
        super().close()
