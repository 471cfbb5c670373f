"""A source whose picture is turned, for a camera that is mounted so that cells do not flow along x."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.sources.base import check_rotation
from napari_rbcflow.types import Frame, FrameSource, RecordedSource, SourceInfo

_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def turn(image: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Return a frame turned clockwise by 0, 90, 180 or 270 degrees."""
    return image if not degrees else cv2.rotate(image, _CODES[degrees]).astype(np.uint8, copy=False)


def turned(source: FrameSource, degrees: int) -> FrameSource:
    """Return a source, not yet open, with every frame turned clockwise.

    Parameters
    ----------
    source : FrameSource
        Opened, stopped and closed through the one that is returned.
    degrees : int
        0, 90, 180 or 270.

    Raises
    ------
    BadInput
        For any other angle.
    """
    check_rotation(degrees)
    if not degrees:
        return source
    return TurnedRecording(source, degrees) if isinstance(source, RecordedSource) else Turned(source, degrees)


class Turned(FrameSource):
    """What comes from another source, turned."""

    def __init__(self, source: FrameSource, degrees: int) -> None:
        self._source, self._degrees = source, degrees

    def open(self) -> SourceInfo:
        info = self._source.open()
        height, width = (info.height, info.width) if self._degrees == 180 else (info.width, info.height)
        details = {**info.details, "rotated_degrees": str(self._degrees)}
        return replace(info, height=height, width=width, details=details)

    def frames(self) -> Iterator[Frame]:
        for frame in self._source.frames():
            yield replace(frame, image=turn(frame.image, self._degrees))

    def stop(self) -> None:
        self._source.stop()

    def close(self) -> None:
        self._source.close()

    @property
    def missed(self) -> Mapping[str, int]:
        return self._source.missed

    @property
    def silence_s(self) -> float | None:
        return self._source.silence_s

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._source.remarks


class TurnedRecording(Turned, RecordedSource):
    """The same of a recording."""

    _source: RecordedSource

    def sample(self, n: int) -> NDArray[np.uint8]:
        return np.stack([turn(image, self._degrees) for image in self._source.sample(n)])
