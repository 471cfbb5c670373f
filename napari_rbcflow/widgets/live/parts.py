"""What a live widget must give back, whoever takes it away: the process that runs, and the picture."""

from __future__ import annotations

import logging
from typing import Any

from napari_rbcflow.pipeline.client import Worker
from napari_rbcflow.widgets.live import old_objects
from napari_rbcflow.widgets.picture.live_picture import LivePicture

log = logging.getLogger(__name__)


class LiveParts:
    """Worker and picture; none of Qt's own objects, so that it outlives the widget's end.

    Lifecycle: construct -> `open` -> `close`, from the interface's thread, as often as wished.

    Parameters
    ----------
    viewer : napari.Viewer
    delay_s : float
        Of the picture.

    Attributes
    ----------
    is_open : bool
    """

    def __init__(self, viewer: Any, *, delay_s: float) -> None:
        self._viewer = viewer
        self._delay_s = delay_s
        self._worker: Worker | None = None
        self._picture: LivePicture | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to give back."""
        return self._worker is not None

    @property
    def worker(self) -> Worker:
        """The process that runs."""
        assert self._worker is not None
        return self._worker

    @property
    def picture(self) -> LivePicture:
        """The picture; its layers are made once."""
        assert self._picture is not None
        return self._picture

    def open(self) -> None:
        """Launch the process and make the layers, where that was not done yet."""
        if self._picture is None:
            self._picture = LivePicture(self._viewer, delay_s=self._delay_s)
        if self._worker is None:
            self._worker = Worker()

    def close(self) -> None:
        """Stop a run in progress, wait for its session, end the process and let go of the picture."""
        old_objects.let_go(self)
        picture, self._picture = self._picture, None
        worker, self._worker = self._worker, None
        # First what must not fail, then the picture, whose viewer may be half gone.
        if worker is not None:
            worker.close()
        if picture is not None:
            try:
                picture.close()
            except Exception:
                log.exception("the live picture")
