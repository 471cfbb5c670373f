"""How far the picture is behind the camera, in words that stand still."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import SourceInfo

STEADY_S = 0.25
WAITING = "waiting for the first picture"


class Behind:
    """Says it, and says another figure only where it is really another.

    A figure that flickers cannot be read, and every repaint of a label costs a whole window's.
    """

    def __init__(self) -> None:
        self._told_s = 0.0

    def words(
        self,
        info: SourceInfo,
        shown: int | None,
        newest: int | None,
        kept: NDArray[np.int64],
        *,
        lost: bool,
        left_out: int,
    ) -> str:
        """Return the sentence.

        Parameters
        ----------
        info : SourceInfo
        shown, newest : int or None
            The frame in the picture, and the newest that was received.
        kept : ndarray of int64
            The frames that the ring holds.
        lost : bool
            None of the frames that have marks is among them.
        left_out : int
            Cells without a mark for want of room.
        """
        if shown is None:
            if len(kept) or info.live:
                return WAITING
            return "no picture yet: of a recorded movie only the last seconds are kept"
        if newest is None:
            newest = int(kept[-1]) if len(kept) else 0
        behind_s = max(0.0, (newest - shown) / info.fps)
        if abs(behind_s - self._told_s) > STEADY_S:
            self._told_s = behind_s
        said = f"picture {self._told_s:.1f} s behind the camera"
        if lost:
            said += "; it stands still: the frames tracked now are no longer kept"
        if left_out:
            said += f"; {left_out} cells are not marked: there are too many"
        return said
