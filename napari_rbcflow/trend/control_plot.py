"""Levey-Jennings charts on a page that is printed: each run of a control against its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_rbcflow.sentences import say
from napari_rbcflow.session import FLIPPING_COLOUR, TANK_TREADING_COLOUR
from napari_rbcflow.trend.control import ControlChart, ControlRun, State
from napari_rbcflow.trend.plot import (
    BLACK,
    GREY,
    HEIGHT,
    Page,
    Scale,
    at_day,
    points,
    printed,
)

MOST_CHARTS = 3  # on a page, the ones with the last runs
_LIMITS = {1: "#00795a", 2: "#d9a400", 3: "#b3261e"}
"""Colour of the lines at so many standard deviations."""
_TOP, _FOOT, _RIGHT = 40, 110, 130


def control_png(charts: Sequence[ControlChart]) -> bytes:
    """Draw control charts, one below the other, as a PNG of one page.

    Parameters
    ----------
    charts : sequence of ControlChart
        Of more than `MOST_CHARTS`, the first.
    """
    return printed(lambda: _ControlPage(charts))


def control_scale(chart: ControlChart) -> Scale:
    """Return the axes of a chart: all runs, and three and a half standard deviations around the target."""
    days = [at_day(run.record.started) for run in chart.runs]
    shown = [run.record.figure.estimate for run in chart.runs if run.record.figure.estimate is not None]
    if chart.target is not None:
        shown += [chart.target.mean + side * 3.5 * chart.target.sd for side in (-1, 1)]
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    room = max(0.05 * (high - low), 0.005)
    half = max(0.53 * (days[-1] - days[0]), 3.0)
    middle = (days[0] + days[-1]) / 2
    return Scale(middle - half, middle + half, low - room, high + room)


class _ControlPage(Page):
    def __init__(self, charts: Sequence[ControlChart]) -> None:
        super().__init__()
        shown = charts[:MOST_CHARTS]
        height = (HEIGHT - _TOP - _FOOT) / len(shown)
        for place, chart in enumerate(shown):
            self._chart(chart, _TOP + place * height, _TOP + (place + 1) * height, alone=len(shown) == 1)
        left = len(charts) - len(shown)
        foot = [say("trend.control-picture-left-out", charts=left)] if left else []
        self._wrapped(HEIGHT - 60, " ".join([*foot, say("trend.control-picture-foot")]), 20, GREY)

    def _chart(self, chart: ControlChart, top: float, bottom: float, *, alone: bool) -> None:
        first, *more = chart.summary()
        large, medium, small = (46, 36, 26) if alone else (34, 28, 21)
        title = say("trend.control-picture-title", chart=chart.title)
        below = self._wrapped(top, title, large, BLACK, weight="bold")
        bad = chart.runs[-1].state in (State.REJECTED, State.NO_NUMBER)
        below = self._wrapped(below + 8, first, medium, FLIPPING_COLOUR if bad else BLACK, weight="bold")
        below = self._wrapped(below + 8, " ".join(more), small, "#333333")
        axes, scale = self._add_axes(below + 24, bottom - 90, _RIGHT), control_scale(chart)
        axes.set(xlim=(scale.first_day, scale.last_day), ylim=(100 * scale.low, 100 * scale.high))
        dates = scale.dates()
        axes.set_xticks([day for day, _ in dates], [words for _, words in dates])
        axes.yaxis.set_major_formatter("{x:g} %")
        if (target := chart.target) is not None:
            for k in range(-3, 4):
                y_at = 100 * (target.mean + k * target.sd)
                colour = _LIMITS.get(abs(k), GREY)
                axes.axhline(y_at, color=colour, linewidth=0.9, dashes=(1, 0) if k in (-3, 0, 3) else (6, 4))
                axes.annotate(
                    f"{k:+d} s" if k else "0",
                    (1, y_at),
                    (6, 0),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    va="center",
                    color=colour,
                    size=points(small),
                )
        numbered = [run for run in chart.runs if run.record.figure.estimate is not None]
        judged = [run for run in numbered if run.state is not State.NO_NUMBER]
        axes.plot(*_places(judged), color=GREY, linewidth=0.7, zorder=1)
        for run in chart.runs:
            x, y = _places([run])
            if not y:  # at the bottom of the plot, as there is no number
                axes.plot(x, [0.03], transform=axes.get_xaxis_transform(), **_mark(run))
                continue
            axes.plot(x, y, zorder=3, clip_on=False, **_mark(run))
            if run.z is not None and run.rules:
                axes.annotate(
                    "\n".join(run.telling),
                    (x[0], y[0]),
                    (0, 7 if run.z > 0 else -7),
                    va="bottom" if run.z > 0 else "top",
                    textcoords="offset points",
                    ha="center",
                    size=points(small - 3),
                    color=FLIPPING_COLOUR if run.state is State.REJECTED else BLACK,
                )


def _places(runs: Sequence[ControlRun]) -> tuple[list[float], list[float]]:
    figures = [(at_day(run.record.started), run.record.figure.estimate) for run in runs]
    return [x for x, _ in figures], [100 * y for _, y in figures if y is not None]


def _mark(run: ControlRun) -> dict[str, Any]:
    style: dict[str, Any] = {
        "color": TANK_TREADING_COLOUR,
        "marker": "o",
        "markersize": 7,
        "linestyle": "none",
    }
    if run.state is State.NO_NUMBER:
        return style | {"color": GREY, "marker": "x", "markeredgewidth": 1.8}
    if run.state is State.REJECTED:
        return style | {"color": FLIPPING_COLOUR, "marker": "v", "markersize": 10}
    if run.state is State.WARNING:
        return style | {"markerfacecolor": "white", "markeredgewidth": 1.8}
    return style | ({"markerfacecolor": GREY, "color": GREY} if run.state is State.NO_TARGET else {})
