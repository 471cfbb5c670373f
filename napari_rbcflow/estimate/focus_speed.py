"""The speed of the cells in focus, learnt within a run: a second check of whether a track is reliable.

In a channel the speed tells the height, v = shear rate x z (1 - z / H), so the cells in focus share one speed
and the others do not. The surest cells of a run are modelled as a mixture: a narrow peak in log speed (cells
in focus) and the speeds of all tracks that stage 1 discarded (all other heights). If they clearly share one
speed, a track that stage 1 passed counts only between the two speeds at which it is as likely to be in the
peak as among the others; the share of all passed tracks that is in the peak is learnt, too, and decides how
far apart these speeds are. The check only sets tracks aside, it adds none. It knows neither a cell's kind nor
how sure stage 1 is of it, which differs between the kinds: so it cannot prefer one.

It sets nothing aside if there are too few sure cells, if they move as all others do, if their peak is too
wide for one height, or if they share more than one speed. What was found with it, and what else was tried, is
in ``docs/decisions/estimate.md``.
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

from napari_rbcflow.sentences import say

LEAST_SURE = 40  # sure cells that a speed is learnt from, and tracks that stage 1 must have discarded
SURE_SHARE = 1 / 3  # share of the tracks that stage 1 passed that are the sure ones; at least `LEAST_SURE`
WIDEST = 0.14
"""Greatest standard deviation of the logarithm of a shared speed: heights within some 12 um of 80 um. The
published cells in focus have about 0.11."""
_STEP = 0.02
_LOWEST, _HIGHEST = math.log(1.0), math.log(100_000.0)
_BINS = math.ceil((_HIGHEST - _LOWEST) / _STEP)
_WIDTHS = (0.05, 0.06, 0.07, 0.085, 0.1, 0.12, 0.14, 0.17, 0.2, 0.25, 0.3, 0.4)
"""Standard deviations tried. None narrower: no pump is that steady, and one height has no normal shape."""
_SHARES = np.linspace(0.05, 1.0, 20)
_STILL_FITS = 2.0
"""Log likelihood by which a peak may fall short of the best: of such peaks the widest is taken."""
_LEAST_GAIN = 8.0  # log likelihood that a peak must gain over sure cells that move as all others do
_LEAST_SHARE = 0.5  # share of the sure cells that must be in the peak
_SECOND_GAIN, _SECOND_SHARE, _APART = 2.5, 0.2, 2.0
"""A second peak that gains so much, holds so large a part of the first's share, and is so many of the first's
widths away from it, is a second speed. A nearer one only shows that the first is not normal in shape."""
_MOST_SHARE = 0.98
"""Greatest share in the peak of the tracks that stage 1 passed: it always lets some others pass."""
_BLUR = 0.15
"""Standard deviation by which the others' log speeds are smoothed; `_ANYWHERE` of them have any speed."""
_ANYWHERE = 0.1
_ANYWHERE_FROM, _ANYWHERE_TO = math.log(50.0), math.log(5000.0)


@dataclass(frozen=True, eq=False)
class FocusSpeed:
    """The speed that a run's sure cells share, or why none was found."""

    reason: str  # a sentence; empty if a speed was found
    learnt_from: int = 0  # sure cells
    speed_um_per_s: float | None = None
    width: float | None = None  # standard deviation of the log speeds in the peak
    share: float | None = None  # of the sure cells, in the peak
    bins: tuple[int, int] | None = None  # first and last bin of speed in which a track counts
    unreliable_there: int = (
        0  # tracks that stage 1 discarded at such a speed; only these can leak into the count
    )

    @property
    def found(self) -> bool:
        """Whether the sure cells share a speed, so that tracks at other speeds are set aside."""
        return self.bins is not None

    def sets_aside(self, speed_um_per_s: float) -> bool:
        """Whether a track at this speed does not count."""
        return self.bins is not None and not self.bins[0] <= _bin(speed_um_per_s) <= self.bins[1]

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``run.json`` holds it."""
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


NOT_ASKED = FocusSpeed(say("estimate.speed-not-asked"))
TOO_FEW = FocusSpeed(say("estimate.speed-too-few", cells=LEAST_SURE))


T = TypeVar("T")


class Appended(Generic[T]):
    """A list that its copies share, so that a copy takes no time however long it is.

    Each copy knows how many items are its own. Only the newest may be added to; items of a dropped copy are
    removed with the next append.
    """

    def __init__(self) -> None:
        self._items: list[T] = []
        self._n = 0

    def copy(self) -> Appended[T]:
        other: Appended[T] = Appended()
        other._items, other._n = self._items, self._n
        return other

    def append(self, item: T) -> None:
        del self._items[self._n :]
        self._items.append(item)
        self._n += 1

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[T]:
        return islice(self._items, self._n)

    @property
    def last(self) -> T | None:
        return self._items[self._n - 1] if self._n else None


class SpeedsSeen:
    """The speeds of a run's judged tracks. What is learnt depends only on which tracks were added."""

    def __init__(self) -> None:
        # Of each track that stage 1 passed: `p_reliable`, and the bin of its speed.
        self.passed: Appended[tuple[float, int]] = Appended()
        self._others = np.zeros(_BINS, np.int64)

    def copy(self) -> SpeedsSeen:
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
        # Of equally sure cells, the earlier ones.
        surest = sorted(self.passed, key=lambda cell: -cell[0])[:n]
        sure = np.bincount([at for _, at in surest], minlength=_BINS)
        others = _spread(self._others)
        fits = _fits(sure, others)
        best = max(fits, key=lambda fit: fit.gain)
        peak = max((f for f in fits if f.gain >= best.gain - _STILL_FITS), key=lambda fit: fit.width)
        second = max(_fits(sure, best.density(others)), key=lambda fit: fit.gain)
        if best.gain < _LEAST_GAIN:
            return FocusSpeed(say("estimate.speed-like-others"), n)
        if peak.width > WIDEST:
            return FocusSpeed(say("estimate.speed-too-different"), n)
        apart = abs(second.at - best.at) * _STEP > _APART * best.width or second.width > WIDEST
        of_second = second.share / best.share if apart and second.gain > _SECOND_GAIN else 0.0
        if peak.share < _LEAST_SHARE or of_second >= _SECOND_SHARE:
            return FocusSpeed(say("estimate.speed-more-than-one"), n)
        bins = self._likelier_in(_peak(peak.at, peak.width) / others, peak.at)
        speed_um_per_s, share = math.exp(_bin_centre(peak.at)), round(float(peak.share), 2)
        there = int(self._others[bins[0] : bins[1] + 1].sum())
        return FocusSpeed("", n, speed_um_per_s, peak.width, share, bins, there)

    def _likelier_in(self, ratio: NDArray[np.float64], at: int) -> tuple[int, int]:
        """Return the first and last bin about `at` in which a passed track is likelier in the peak."""
        passed = np.bincount([at for _, at in self.passed], minlength=_BINS)
        share = 0.5
        for _ in range(100):
            share = float((share * ratio / (share * ratio + 1 - share)) @ passed / passed.sum())
            share = min(max(share, 1 - _MOST_SHARE), _MOST_SHARE)
        out = np.flatnonzero(share * ratio < 1 - share)
        right = int(np.searchsorted(out, at))
        return int(out[right - 1]) + 1, int(out[right]) - 1


class _Fit(NamedTuple):
    """A peak among other speeds."""

    gain: float  # log likelihood over the other speeds alone
    at: int  # bin
    width: float
    share: float

    def density(self, others: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.share * _peak(self.at, self.width) + (1 - self.share) * others


def _fits(sure: NDArray[np.int64], others: NDArray[np.float64]) -> Sequence[_Fit]:
    """Return the likeliest peak of each width, searched everywhere so that no starting point matters."""
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
    logs = _bin_centre(np.arange(_BINS))
    anywhere = ((logs > _ANYWHERE_FROM) & (logs < _ANYWHERE_TO)).astype(np.float64)
    spread = (1 - _ANYWHERE) * smooth / smooth.sum() + _ANYWHERE * anywhere / anywhere.sum() + 1e-12
    return np.asarray(spread, np.float64)


@cache
def _bell(width: float) -> NDArray[np.float64]:
    """Return the share of a peak's cells in a bin, by the distance from the peak in bins."""
    away = np.exp(-0.5 * (_STEP * np.arange(_BINS) / width) ** 2)
    return np.asarray(away / (2 * away.sum() - 1), np.float64)


def _peak(at: int, width: float) -> NDArray[np.float64]:
    return np.asarray(_bell(width)[np.abs(np.arange(_BINS) - at)])


def _bin_centre(at: Any) -> Any:
    return _LOWEST + _STEP * (at + 0.5)


def _bin(speed_um_per_s: float) -> int:
    log = math.log(max(abs(speed_um_per_s), 1.0))  # cells may flow either way
    return min(int((log - _LOWEST) / _STEP), _BINS - 1)
