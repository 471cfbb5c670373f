"""A trend as a picture, to be printed on one page."""

from __future__ import annotations

from dataclasses import dataclass

from napari_rbcflow.quality.rules import percent
from napari_rbcflow.session.drawings import FLIPPING_COLOUR, TANK_TREADING_COLOUR
from napari_rbcflow.trend.canvas import Canvas
from napari_rbcflow.trend.judging import Below
from napari_rbcflow.trend.scale import Scale, at_day
from napari_rbcflow.trend.trend import Trend, TrendRun, Use
from napari_rbcflow.trend.words import day_words, summary

WIDTH, HEIGHT, DPI = 2400, 1500, 210
"""A4 across, with margins."""
GREY = "#8a8a8a"
BAND, CRISIS = TANK_TREADING_COLOUR + "26", FLIPPING_COLOUR + "24"
_LEFT, _RIGHT, _BOTTOM = 150, 60, 330
_SMALL, _MEDIUM, _LARGE = 27, 34, 52
_MOST_LABELLED = 40
"""With more runs than this, numbers beside the marks would hide each other."""


@dataclass(frozen=True)
class _Plot:
    """Where the axes lie on the page."""

    scale: Scale
    top: float
    bottom: float = HEIGHT - _BOTTOM
    left: float = _LEFT
    right: float = WIDTH - _RIGHT

    def x(self, day: float) -> float:
        span = self.scale.last_day - self.scale.first_day
        share = (day - self.scale.first_day) / span
        return self.left + (self.right - self.left) * share

    def y(self, fraction: float) -> float:
        share = (fraction - self.scale.low) / (self.scale.high - self.scale.low)
        return self.bottom - (self.bottom - self.top) * share


def as_png(trend: Trend) -> bytes:
    """Draw a trend.

    Returns
    -------
    bytes
        A PNG of `WIDTH` x `HEIGHT` pixels.
    """
    canvas = Canvas(WIDTH, HEIGHT)
    plot = _Plot(Scale.of(trend), top=_heading(canvas, trend) + 40)
    _crises(canvas, plot, trend)
    _baseline(canvas, plot, trend)
    _axes(canvas, plot)
    for run in sorted(trend.runs, key=lambda run: run.use is not Use.DOUBT):
        _run(canvas, plot, run, labelled=len(trend.runs) <= _MOST_LABELLED)
    _legend(canvas, trend)
    return canvas.png(DPI)


def _heading(canvas: Canvas, trend: Trend) -> float:
    """Write who, what and how it stands; return where that ends."""
    canvas.text(_LEFT, 40, f"{trend.patient}: tank-treading fraction", _LARGE, bold=True)
    first, last = trend.runs[0].day, trend.runs[-1].day
    when = " to ".join(dict.fromkeys((day_words(first), day_words(last))))
    runs = "one run" if len(trend.runs) == 1 else f"{len(trend.runs)} runs"
    canvas.text(WIDTH - _RIGHT, 52, f"{runs}, {when}", _MEDIUM, GREY, anchor="ra")
    y, room = 125.0, WIDTH - _LEFT - _RIGHT - 40
    verdict, *more = summary(trend)
    alarm = trend.last is not None and trend.last.below in (Below.YES, Below.PERHAPS)
    said = canvas.wrapped(verdict, _MEDIUM + 4, room, bold=True)
    canvas.text(_LEFT, y, said, _MEDIUM + 4, FLIPPING_COLOUR if alarm else "#1a1a1a", bold=True)
    y += 1.25 * (_MEDIUM + 4) * (said.count("\n") + 1) + 6
    said = canvas.wrapped(" ".join(more), _SMALL + 2, room)
    canvas.text(_LEFT, y, said, _SMALL + 2, "#333333")
    return y + 1.25 * (_SMALL + 2) * (said.count("\n") + 1)


def _crises(canvas: Canvas, plot: _Plot, trend: Trend) -> None:
    for span in trend.choices.crises:
        begin, end = (plot.x(day) for day in plot.scale.ends_of(span))
        if end > begin:
            canvas.box(begin, plot.top, end, plot.bottom, CRISIS)
            canvas.text((begin + end) / 2, plot.top + 10, "crisis", _SMALL, FLIPPING_COLOUR, anchor="ma")


def _baseline(canvas: Canvas, plot: _Plot, trend: Trend) -> None:
    base = trend.baseline
    if base is None:
        return
    canvas.box(plot.left, plot.y(base.high), plot.right, plot.y(base.low), BAND)
    canvas.line([(plot.left, plot.y(base.mean)), (plot.right, plot.y(base.mean))], TANK_TREADING_COLOUR, 2)
    canvas.line([(plot.left, plot.y(base.low)), (plot.right, plot.y(base.low))], TANK_TREADING_COLOUR, 3)
    if base.sure_low > plot.scale.low:
        canvas.dashes(plot.left, plot.right, plot.y(base.sure_low), TANK_TREADING_COLOUR, 2)


def _axes(canvas: Canvas, plot: _Plot) -> None:
    for share in plot.scale.shares():
        y = plot.y(share)
        canvas.line([(plot.left, y), (plot.right, y)], "#00000018", 1.5)
        canvas.text(plot.left - 16, y, f"{100 * share:.0f} %", _SMALL, anchor="rm")
    for day, words in plot.scale.dates():
        x = plot.x(day)
        canvas.line([(x, plot.bottom), (x, plot.bottom + 12)], GREY, 2)
        canvas.text(x, plot.bottom + 20, words, _SMALL, anchor="ma")
    canvas.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], GREY, 2)


def _run(canvas: Canvas, plot: _Plot, run: TrendRun, *, labelled: bool) -> None:
    figure, by_hand = run.record.figure, run.record.by_hand
    x, colour = plot.x(at_day(run.record.started)), _colour(run)
    if figure.estimate is None or figure.low is None or figure.high is None:
        _cross(canvas, x, plot.bottom - 16, GREY)
        return
    y = plot.y(figure.estimate)
    for share in (figure.low, figure.high):
        canvas.line([(x - 9, plot.y(share)), (x + 9, plot.y(share))], colour, 3)
    canvas.line([(x, plot.y(figure.low)), (x, plot.y(figure.high))], colour, 3)
    if by_hand is not None and by_hand.estimate is not None:
        _diamond(canvas, x + 24, plot.y(by_hand.estimate))
    _mark(canvas, x, y, run)
    if labelled and run.below in (Below.YES, Below.PERHAPS):
        side, anchor = (20, "la") if x < plot.right - 120 else (-20, "ra")
        words, bold = percent(figure.estimate), run.below is Below.YES
        canvas.text(x + side, y + 10, words, _SMALL, colour, anchor=anchor, bold=bold)


def _mark(canvas: Canvas, x: float, y: float, run: TrendRun) -> None:
    colour = _colour(run)
    if run.use is Use.DOUBT:
        _cross(canvas, x, y, colour)
    elif run.below is Below.YES:
        canvas.shape([(x - 17, y - 12), (x + 17, y - 12), (x, y + 18)], colour)
    else:
        canvas.disc(x, y, 12, colour, filled=run.below is Below.NO)


def _colour(run: TrendRun) -> str:
    if run.use is Use.DOUBT:
        return GREY
    return FLIPPING_COLOUR if run.below in (Below.YES, Below.PERHAPS) else TANK_TREADING_COLOUR


def _cross(canvas: Canvas, x: float, y: float, colour: str) -> None:
    canvas.line([(x - 11, y - 11), (x + 11, y + 11)], colour, 5)
    canvas.line([(x - 11, y + 11), (x + 11, y - 11)], colour, 5)


def _diamond(canvas: Canvas, x: float, y: float) -> None:
    canvas.shape([(x - 10, y), (x, y - 10), (x + 10, y), (x, y + 10)], "#1a1a1a", filled=False)


def _legend(canvas: Canvas, trend: Trend) -> None:
    """Explain the marks that are on the page, and say what must be known of the runs."""
    x, y = float(_LEFT), HEIGHT - _BOTTOM + 118.0
    seen: dict[tuple[bool, Below], TrendRun] = {}
    for run in trend.runs:
        seen.setdefault((run.use is Use.DOUBT, run.below), run)
    entries = [(run, _LEGEND[key]) for key, run in sorted(seen.items(), key=lambda item: item[0])]
    for run, words in entries:
        _mark(canvas, x + 12, y + 15, run)
        canvas.text(x + 36, y, words, _SMALL)
        x += canvas.width_of(words, _SMALL) + 90
    if any(run.record.by_hand for run in trend.runs):
        _diamond(canvas, x + 12, y + 15)
        canvas.text(x + 36, y, "with changes by hand", _SMALL)
    y += 48
    said = "Bars: the run's own interval. "
    if trend.baseline is not None:
        said += "Band: the baseline. Dashed line: the lower limit that allows for its few days. "
    doubts = [run for run in trend.runs if run.use is Use.DOUBT]
    if doubts:
        days = ", ".join(dict.fromkeys(day_words(run.day) for run in doubts))
        said += f"Not used, see the reports: {days}. "
    said += " ".join(trend.notes)
    size, room = _SMALL - 4, WIDTH - _LEFT - _RIGHT
    rows = canvas.wrapped(said, size, room).split("\n")
    canvas.text(_LEFT, y, "\n".join(rows[:3]) + (" ..." if len(rows) > 3 else ""), size, "#444444")
    canvas.text(_LEFT, HEIGHT - 44, _FOOT, size - 3, GREY)


_FOOT = (
    "For research; not a medical device. Mean and two standard deviations as in Darrin et al., Scientific"
    " Reports 13 (2023) 745."
)
_LEGEND = {
    (False, Below.NO): "not below",
    (False, Below.PERHAPS): "perhaps below",
    (False, Below.YES): "below the baseline",
    (False, Below.UNKNOWN): "not compared yet",
    (True, Below.UNKNOWN): "not used (unfinished, failed or doubtful)",
}
