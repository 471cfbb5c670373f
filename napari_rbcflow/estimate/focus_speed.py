"""The speed of the cells in focus, learnt within a run: a second witness of whether a track is reliable.

In a channel the speed tells the height, v = shear rate x z (1 - z / H), so the cells in focus share one speed
and the others do not. The surest cells of a run are taken for a mixture: a narrow peak in log speed (cells in
focus) and the speeds of all tracks that stage 1 discarded (all other heights). Where they clearly share one
speed, a track that stage 1 passed counts only between the two speeds at which it is as likely in the peak as
among the others; how many of all passed tracks lie in the peak is learnt, too, and decides how far apart
these are. The witness only sets tracks aside, it adds none. It knows neither a cell's kind nor how sure
stage 1 is of it, which differs between the kinds: so it cannot prefer one.

It says nothing where there are too few sure cells, where they move as all others do, where their peak is too
wide for one height, or where they share more than one speed. What was found so, and what else was tried,
is in ``docs/decisions/focus-speed.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

LEAST_SURE = 40
"""Sure cells that a speed is learnt from, and tracks that stage 1 must have discarded."""
SURE_SHARE = 1 / 3
"""Of the tracks that stage 1 passed, the surest; at least `LEAST_SURE`."""
WIDEST = 0.14
"""Of a speed that cells share, standard deviation of its logarithm: heights within some 12 um of 80 um. The
published cells in focus have about 0.11."""
_STEP = 0.02
_LOWEST, _HIGHEST = math.log(1.0), math.log(100_000.0)
_BINS = math.ceil((_HIGHEST - _LOWEST) / _STEP)
_WIDTHS = (0.05, 0.06, 0.07, 0.085, 0.1, 0.12, 0.14, 0.17, 0.2, 0.25, 0.3, 0.4)
"""No narrower: a pump is not that steady, and what one height leaves has no bell's shape."""
_SHARES = np.linspace(0.05, 1.0, 20)
_STILL_FITS = 2.0
"""Log likelihood that a peak may fall short of the best and still be true: the widest of these is taken."""
_LEAST_GAIN = 8.0
"""Log likelihood that a peak must gain over sure cells which move as all others do."""
_LEAST_SHARE = 0.5
"""Of the sure cells, in the peak."""
_SECOND_GAIN, _SECOND_SHARE, _APART = 2.5, 0.2, 2.0
"""A second peak that gains so much, holds so large a part of the first's share, and lies so many of the
first's widths from it, is a second speed. A nearer one only tells that the first is no bell."""
_MOST_SHARE = 0.98
"""Of the tracks that stage 1 passed, in the peak: it always lets some others pass."""
_BLUR = 0.15
"""Of the others' log speeds, standard deviation; `_ANYWHERE` of them are taken to move at any speed."""
_ANYWHERE = 0.1
_ANYWHERE_FROM, _ANYWHERE_TO = math.log(50.0), math.log(5000.0)


@dataclass(frozen=True, eq=False)
class FocusSpeed:
    """What a run's sure cells say of speed.

    Attributes
    ----------
    reason : str
        A sentence where nothing is said; else empty.
    learnt_from : int
        Sure cells.
    speed_um_per_s, width, share : float or None
        Of the peak: where it lies, the standard deviation of the log speeds, the share of the sure cells.
    bins : (int, int) or None
        First and last bin of speed in which a track counts.
    unreliable_there : int
        Tracks that stage 1 discarded at such a speed: of these alone it may have let some pass that count.
    """

    reason: str
    learnt_from: int = 0
    speed_um_per_s: float | None = None
    width: float | None = None
    share: float | None = None
    bins: tuple[int, int] | None = None
    unreliable_there: int = 0

    @property
    def speaks(self) -> bool:
        """Whether it sets any track aside."""
        return self.bins is not None

    def sets_aside(self, speed_um_per_s: float) -> bool:
        """Whether a track at this speed does not count."""
        return self.bins is not None and not self.bins[0] <= _bin(speed_um_per_s) <= self.bins[1]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` tells of it."""
        if self.bins is None or self.speed_um_per_s is None:
            return {"said": False, "reason": self.reason, "learnt_from": self.learnt_from}
        low, high = (math.exp(_LOWEST + _STEP * at) for at in (self.bins[0], self.bins[1] + 1))
        return {
            "said": True,
            "learnt_from": self.learnt_from,
            "speed_um_per_s": round(self.speed_um_per_s, 1),
            "low_um_per_s": round(low, 1),
            "high_um_per_s": round(high, 1),
            "width": self.width,
            "share": self.share,
            "unreliable_there": self.unreliable_there,
        }


NOT_ASKED = FocusSpeed("Speeds were not looked at.")
TOO_FEW = FocusSpeed(
    f"Fewer than {LEAST_SURE} cells passed stage 1, or fewer were discarded: too few to learn from."
)


T = TypeVar("T")


class Appended(Generic[T]):
    """A list that its copies share, so that a copy takes no time however long it is.

    Each copy knows how many items are its own. Only the newest may be added to; what a copy that was dropped
    has added goes with the next item.
    """

    def __init__(self) -> None:
        self._items: list[T] = []
        self._n = 0

    def copy(self) -> Appended[T]:
        """Return another one of the same items, to which more can be added."""
        other: Appended[T] = Appended()
        other._items, other._n = self._items, self._n
        return other

    def append(self, item: T) -> None:
        """Add an item."""
        del self._items[self._n :]
        self._items.append(item)
        self._n += 1

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[T]:
        return islice(self._items, self._n)

    @property
    def last(self) -> T | None:
        """The item added last."""
        return self._items[self._n - 1] if self._n else None


class SpeedsSeen:
    """The speeds of a run's judged tracks, as far as a speed is learnt from them.

    What is learnt depends on which tracks were added, and not on anything between.

    Attributes
    ----------
    passed : Appended of (float, int)
        `p_reliable`, and the speed's bin, of each track that stage 1 passed.
    """

    def __init__(self) -> None:
        self.passed: Appended[tuple[float, int]] = Appended()
        self._others = np.zeros(_BINS, np.int64)

    def copy(self) -> SpeedsSeen:
        """Return another one of the same tracks, to which more can be added."""
        other = SpeedsSeen()
        other.passed, other._others = self.passed.copy(), self._others.copy()
        return other

    def add(self, speed_um_per_s: float, p_reliable: float, passed: bool) -> None:
        """Add a track that stage 1 judged."""
        if passed:
            self.passed.append((p_reliable, _bin(speed_um_per_s)))
        else:
            self._others[_bin(speed_um_per_s)] += 1

    def learn(self) -> FocusSpeed:
        """Learn the speed that the surest cells share, if they do."""
        if len(self.passed) < LEAST_SURE or self._others.sum() < LEAST_SURE:
            return TOO_FEW
        n = max(LEAST_SURE, round(SURE_SHARE * len(self.passed)))
        # Of cells as sure, the earlier ones.
        surest = sorted(self.passed, key=lambda cell: -cell[0])[:n]
        sure = np.bincount([at for _, at in surest], minlength=_BINS)
        others = _spread(self._others)
        fits = _fits(sure, others)
        best = max(fits, key=lambda fit: fit.gain)
        peak = max((f for f in fits if f.gain >= best.gain - _STILL_FITS), key=lambda fit: fit.width)
        second = max(_fits(sure, best.density(others)), key=lambda fit: fit.gain)
        if best.gain < _LEAST_GAIN:
            return FocusSpeed("The surest cells move like all others.", n)
        if peak.width > WIDEST:
            return FocusSpeed("The surest cells move at too different speeds for one height.", n)
        apart = abs(second.at - best.at) * _STEP > _APART * best.width or second.width > WIDEST
        of_second = second.share / best.share if apart and second.gain > _SECOND_GAIN else 0.0
        if peak.share < _LEAST_SHARE or of_second >= _SECOND_SHARE:
            return FocusSpeed("The surest cells share more than one speed.", n)
        bins = self._likelier_in(_peak(peak.at, peak.width) / others, peak.at)
        speed_um_per_s, share = math.exp(_middle(peak.at)), round(float(peak.share), 2)
        there = int(self._others[bins[0] : bins[1] + 1].sum())
        return FocusSpeed("", n, speed_um_per_s, peak.width, share, bins, there)

    def _likelier_in(self, ratio: NDArray[np.float64], at: int) -> tuple[int, int]:
        """Return the bins about `at` in which a passed track is likelier of the peak than of the others."""
        passed = np.bincount([at for _, at in self.passed], minlength=_BINS)
        share = 0.5
        for _ in range(100):
            share = float((share * ratio / (share * ratio + 1 - share)) @ passed / passed.sum())
            share = min(max(share, 1 - _MOST_SHARE), _MOST_SHARE)
        out = np.flatnonzero(share * ratio < 1 - share)
        right = int(np.searchsorted(out, at))
        return int(out[right - 1]) + 1, int(out[right]) - 1


class _Fit(NamedTuple):
    """A peak among other speeds: its log likelihood over these alone, bin, width and share."""

    gain: float
    at: int
    width: float
    share: float

    def density(self, others: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of all cells in each bin."""
        return self.share * _peak(self.at, self.width) + (1 - self.share) * others


def _fits(sure: NDArray[np.int64], others: NDArray[np.float64]) -> Sequence[_Fit]:
    """Return the likeliest peak of each width: looked for everywhere, so that no start decides."""
    at = np.flatnonzero(sure)
    n, there = sure[at].astype(np.float64), others[at]
    places = np.arange(at[0], at[-1] + 1)
    alone = float(n @ np.log(there))
    fits = []
    for width in _WIDTHS:
        peak = _bell(width)[np.abs(at[:, None] - places[None, :])]
        gains = [
            n @ np.log(share * peak + ((1 - share) * there)[:, None] + 1e-300) - alone for share in _SHARES
        ]
        best, place = np.unravel_index(int(np.argmax(gains)), (len(_SHARES), len(places)))
        fits.append(_Fit(float(gains[best][place]), int(places[place]), width, float(_SHARES[best])))
    return fits


def _spread(others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of other tracks in each bin, never 0."""
    bell = _bell(_BLUR)[: math.ceil(4 * _BLUR / _STEP)]
    smooth: NDArray[np.float64] = np.convolve(others, np.concatenate([bell[:0:-1], bell]), mode="same")
    logs = _middle(np.arange(_BINS))
    anywhere = ((logs > _ANYWHERE_FROM) & (logs < _ANYWHERE_TO)).astype(np.float64)
    spread = (1 - _ANYWHERE) * smooth / smooth.sum() + _ANYWHERE * anywhere / anywhere.sum() + 1e-12
    return np.asarray(spread, np.float64)


@cache
def _bell(width: float) -> NDArray[np.float64]:
    """Return the share of a peak's cells in a bin, by its distance in bins."""
    away = np.exp(-0.5 * (_STEP * np.arange(_BINS) / width) ** 2)
    return np.asarray(away / (2 * away.sum() - 1), np.float64)


def _peak(at: int, width: float) -> NDArray[np.float64]:
    return np.asarray(_bell(width)[np.abs(np.arange(_BINS) - at)])


def _middle(at: Any) -> Any:
    return _LOWEST + _STEP * (at + 0.5)


def _bin(speed_um_per_s: float) -> int:
    # Cells may flow to either side.
    log = math.log(max(abs(speed_um_per_s), 1.0))
    return min(int((log - _LOWEST) / _STEP), _BINS - 1)
