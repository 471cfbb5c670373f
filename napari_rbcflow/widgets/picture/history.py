"""Where the cells stood in the frames tracked lately, and what was said of them since."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.pipeline.status import JudgedCell, Snapshot
from napari_rbcflow.widgets.theme import NOT_YET

MOMENTS = 256
"""Remembered: 12 s at 20 a second, longer than the ring."""
LATELY = 200
"""Labels whose lateness is remembered: a second's worth, or two."""
LABELS = 8192
"""Remembered: 40 s at 200 tracks a second. A cell is asked for while its frames are shown, some 5 s."""


@dataclass(frozen=True, eq=False)
class Moment:
    """Where the open tracks stood in one frame.

    Attributes
    ----------
    frame : int
    cell : ndarray of int64, shape (m,)
    y_px, x_px : ndarray of float32, shape (m,)
    """

    frame: int
    cell: NDArray[np.int64]
    y_px: NDArray[np.float32]
    x_px: NDArray[np.float32]


class History:
    """The last `MOMENTS` moments and the last `LABELS` labels of one run.

    A cell's label exists only once its track has ended, so that the frame tracked last has none. Some
    way behind it, cells carry the label with which they were counted from the middle of the field on.

    Parameters
    ----------
    delay_frames : float
        How far behind the frame tracked last a picture is taken. Where labels come later than in a
        third of that, on a slow computer, the picture falls back with them.
    """

    def __init__(self, delay_frames: float) -> None:
        self.delay_frames = delay_frames
        self._moments: deque[Moment] = deque(maxlen=MOMENTS)
        self._labels: dict[int, str] = {}
        self._by_hand: dict[int, str] = {}
        self._first: int | None = None
        # When a label came, and how long after its cell's last frame, both in frames tracked.
        self._late: deque[tuple[int, int]] = deque(maxlen=LATELY)

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, snapshot: Snapshot) -> None:
        """Remember where the cells stood, if the snapshot tells of a frame later than the last."""
        frame = snapshot.frame
        if frame is None or (self._moments and frame <= self._moments[-1].frame):
            return
        if self._first is None:
            self._first = frame
        self._moments.append(Moment(frame, snapshot.cell, snapshot.y_px, snapshot.x_px))

    def learn(self, judged: Iterable[JudgedCell]) -> None:
        """Remember what was said of cells."""
        for cell in judged:
            self._labels[cell.cell] = str(cell.label)
            if self._moments:
                now = self._moments[-1].frame
                self._late.append((now, now - cell.last_frame))
        while len(self._labels) > LABELS:
            del self._labels[next(iter(self._labels))]

    def learn_by_hand(self, cell: int, label: str) -> None:
        """Remember what a person says of a cell; the machine's own label takes it back."""
        self._by_hand[cell] = str(label)
        while len(self._by_hand) > LABELS:
            del self._by_hand[next(iter(self._by_hand))]

    def label(self, cell: int) -> str:
        """Return the label with which a cell is counted, a person's before the machine's, or `NOT_YET`."""
        return self._by_hand.get(cell) or self._labels.get(cell, NOT_YET)

    def labels(self, moment: Moment) -> list[str]:
        """Return what is known by now of the cells of a moment."""
        known, by_hand = self._labels, self._by_hand
        return [by_hand.get(cell) or known.get(cell, NOT_YET) for cell in moment.cell.tolist()]

    def at(self, frame: int) -> Moment | None:
        """Return the moment of a frame, if it is remembered."""
        return next((m for m in reversed(self._moments) if m.frame == frame), None)

    def candidates(self, held: NDArray[np.int64], not_before: int = -1) -> Iterator[Moment]:
        """Yield moments whose frame can be shown, the best first.

        Parameters
        ----------
        held : ndarray of int64, shape (n,)
            The frames that can be had, ascending.
        not_before : int
            The frame that is shown: a picture does not run backwards.
        """
        if not self._moments or not len(held):
            return
        frames = np.array([m.frame for m in self._moments])
        place = np.minimum(np.searchsorted(held, frames), len(held) - 1)
        good = np.flatnonzero((held[place] == frames) & (frames >= not_before))
        last, first = self._moments[-1].frame, self._first or 0
        lately = [late for when, late in self._late if when > last - 2 * self.delay_frames]
        late = float(np.median(lately)) if lately else 0.0
        delay = self.delay_frames + max(0.0, late - self.delay_frames / 3)
        # The delay grows from nothing, at half speed, for a picture that stood still would look broken.
        due = max(last - delay, first + (last - first) / 2)
        split = int(np.searchsorted(frames[good], due, side="right"))
        for place_of in (*good[:split][::-1], *good[split:]):
            yield self._moments[int(place_of)]
