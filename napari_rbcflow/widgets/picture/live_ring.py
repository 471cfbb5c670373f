"""The ring of a run that is just beginning, going on, or over."""

from __future__ import annotations

import time
from pathlib import Path

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import RingReader, open_ring
from napari_rbcflow.types import SourceInfo

PATIENCE_S = 3.0
"""For a ring that is not there yet: a run says where it will be before it is made."""


class LiveRing:
    """Opens a session's ring as soon as it is there.

    Parameters
    ----------
    folder : Path
        Of the session.
    info : SourceInfo
        Of the frames that are expected.
    """

    def __init__(self, folder: Path, info: SourceInfo) -> None:
        self._path = Path(folder) / "frames.zarr"
        self._info = info
        self._asked_s = time.monotonic()
        self._reader: RingReader | None = None

    def fresh(self) -> RingReader | None:
        """Return the ring as it is now; None where it is not there yet.

        Raises
        ------
        BadInput
            If it is still not there after `PATIENCE_S`, or is no ring.
        RunFailed
            If it is damaged, gone, or of other frames.
        OSError
            If it cannot be read.
        """
        if self._reader is not None:
            self._reader.refresh()
            return self._reader
        try:
            reader = open_ring(self._path)
        except BadInput:
            if time.monotonic() - self._asked_s > PATIENCE_S:
                raise
            return None
        if (reader.height, reader.width) != (self._info.height, self._info.width):
            raise RunFailed(f"{self._path} holds frames of another size: no picture can be shown.")
        self._reader = reader
        return reader
