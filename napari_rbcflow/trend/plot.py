"""A trend as a picture, to be printed on one page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from napari_rbcflow.quality import percent
from napari_rbcflow.session import FLIPPING_COLOUR, TANK_TREADING_COLOUR
from napari_rbcflow.trend.baseline import Below
from napari_rbcflow.trend.judge import MONTHS, Trend, TrendRun, Use, day_words, summary
from napari_rbcflow.trend.records import Span

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_REGULAR = (
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSans-Regular.ttf",
    "segoeui.ttf",
    "Arial.ttf",
)
_BOLD = (
    "DejaVuSans-Bold.ttf",
    "LiberationSans-Bold.ttf",
    "NotoSans-Bold.ttf",
    "segoeuib.ttf",
    "Arial Bold.ttf",
)
_WIDE = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "meiryo.ttc", "PingFang.ttc", "Arial Unicode.ttf")
"""For names in scripts that the others lack."""


@cache
def font_for(text: str, size: int, *, bold: bool = False) -> Font:
    """Return a font that has every letter of `text`; else one that has most of the Latin ones."""
    first: Font | None = None
    for font in _fonts(size, bold):
        first = first or font
        if _has(font, text):
            return font
    assert first is not None
    return first


def _fonts(size: int, bold: bool) -> Iterator[Font]:
    for name in (*(_BOLD if bold else ()), *_REGULAR, *_WIDE):
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue
    yield ImageFont.load_default(size)  # Pillow carries it: plain English letters


def _has(font: Font, text: str) -> bool:
    if not isinstance(font, ImageFont.FreeTypeFont):
        return text.isascii()
    nothing = bytes(font.getmask("\uffff"))
    return all(c.isspace() or bytes(font.getmask(c)) != nothing for c in set(text))


_FINE = 2
"""Drawn so many times larger and then reduced, which smooths lines: Pillow itself does not."""


class Canvas:
    """A white picture.

    Parameters
    ----------
    width, height : int
        In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), "white")
        self._draw = ImageDraw.Draw(self._picture, "RGBA")

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 2.0) -> None:
        """Draw through all points."""
        self._draw.line(_fine(points), fill=colour, width=max(1, round(width * _FINE)), joint="curve")

    def dashes(self, x0: float, x1: float, y: float, colour: str, width: float = 2.0) -> None:
        """Draw a level line of dashes."""
        x = x0
        while x < x1:
            self.line([(x, y), (min(x + 14, x1), y)], colour, width)
            x += 24

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """Fill a rectangle."""
        self._draw.rectangle([v * _FINE for v in (x0, y0, x1, y1)], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: str, *, filled: bool = True) -> None:
        """Draw a disc, or a ring that is white inside."""
        at = [v * _FINE for v in (x - radius, y - radius, x + radius, y + radius)]
        width = round(radius * 0.4 * _FINE)
        self._draw.ellipse(at, fill=colour if filled else "white", outline=colour, width=width)

    def shape(self, points: Sequence[tuple[float, float]], colour: str, *, filled: bool = True) -> None:
        """Draw a closed outline, filled or white inside."""
        self._draw.polygon(_fine(points), fill=colour if filled else "white")
        self.line([*points, points[0]], colour, 3)

    def text(
        self, x: float, y: float, text: str, size: int, colour: str = "#1a1a1a", *, anchor: str = "la",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """Write one line or several; `anchor` as Pillow's, ``ma``: centred, from the top."""
        for k, row in enumerate(text.split("\n")):
            font = font_for(row, size * _FINE, bold=bold)
            self._draw.text(
                (x * _FINE, (y + 1.25 * size * k) * _FINE), row, fill=colour, font=font, anchor=anchor
            )

    def width_of(self, text: str, size: int, *, bold: bool = False) -> float:
        """Return how wide a line would be."""
        return float(self._draw.textlength(text, font=font_for(text, size * _FINE, bold=bold))) / _FINE

    def wrapped(self, text: str, size: int, room: float, *, bold: bool = False) -> str:
        """Return a text broken between its words so that it fits into `room`."""
        rows = [""]
        for word in text.replace(" %", "\u00a0%").split(" "):
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and self.width_of(longer, size, bold=bold) > room:
                rows.append(word)
            else:
                rows[-1] = longer
        return "\n".join(rows)

    def png(self, dpi: int) -> bytes:
        """Return the picture as PNG."""
        file = io.BytesIO()
        self._picture.reduce(_FINE).save(file, format="PNG", dpi=(dpi, dpi), optimize=True)
        return file.getvalue()


def _fine(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * _FINE, y * _FINE) for x, y in points]


_LEAST_DAYS_SHOWN = 6.0
_LEAST_SHARE_SHOWN = 0.25
_STEP_DAYS = (1, 2, 7, 14)
_STEP_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


def at_day(moment: datetime) -> float:
    """Return a moment as days, by the clock on the wall; whole numbers are midnights."""
    wall = moment.replace(tzinfo=None)
    begin = datetime(wall.year, wall.month, wall.day)
    return wall.toordinal() + (wall - begin) / timedelta(days=1)


@dataclass(frozen=True)
class Scale:
    """What the axes span.

    Attributes
    ----------
    first_day, last_day : float
        As `at_day`.
    low, high : float
        The fraction, in [0, 1].
    """

    first_day: float
    last_day: float
    low: float
    high: float

    @classmethod
    def of(cls, trend: Trend) -> Scale:
        """Span all runs, with their intervals and the baseline."""
        days = [at_day(run.record.started) for run in trend.runs]
        middle, half = (days[0] + days[-1]) / 2, max(days[-1] - days[0], _LEAST_DAYS_SHOWN) / 2
        shown = [0.95]
        for run in trend.runs:
            figures = (run.record.figure, run.record.by_hand)
            shown += [v for f in figures if f is not None for v in (f.estimate, f.low) if v is not None]
        if trend.baseline is not None:
            shown.append(trend.baseline.low)
        low = max(0.0, math.floor(10 * (min(shown) - 0.02)) / 10)
        return cls(middle - 1.06 * half, middle + 1.06 * half, min(low, 1 - _LEAST_SHARE_SHOWN), 1.0)

    def ends_of(self, span: Span) -> tuple[float, float]:
        """Return where the days of a span begin and end, as far as they are on the axis."""
        begin = self.first_day if span.first is None else float(span.first.toordinal())
        end = self.last_day if span.last is None else span.last.toordinal() + 1.0
        return max(begin, self.first_day), min(end, self.last_day)

    def shares(self) -> list[float]:
        """Return the fractions to be written at the axis."""
        step = 0.05 if self.high - self.low <= 0.35 else 0.1 if self.high - self.low <= 0.7 else 0.2
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def dates(self, most: int = 9) -> list[tuple[float, str]]:
        """Return at most so many days to be written at the axis, with their words."""
        first = date.fromordinal(math.ceil(self.first_day))
        last = date.fromordinal(max(math.floor(self.last_day), first.toordinal()))
        every: list[Sequence[date]] = [list(_by_days(first, last, step)) for step in _STEP_DAYS]
        every += [list(_by_months(first, last, step)) for step in _STEP_MONTHS]
        days = next((days for days in every if len(days) <= most), every[-1])
        by_month = len(days) > 1 and all(day.day == 1 for day in days)
        return [(float(day.toordinal()), _said(day, before, by_month)) for day, before in _pairs(days)]


def _by_days(first: date, last: date, step: int) -> Iterator[date]:
    # Weeks begin on Mondays, whenever the first run was.
    day = first + timedelta(days=-first.toordinal() % step + (1 if step >= 7 else 0))
    if step >= 7 and day - timedelta(days=step) >= first:
        day -= timedelta(days=step)
    while day <= last:
        yield day
        day += timedelta(days=step)


def _by_months(first: date, last: date, step: int) -> Iterator[date]:
    for month in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        day = date(month // 12, month % 12 + 1, 1)
        if month % step == 0 and first <= day:
            yield day


def _pairs(days: Sequence[date]) -> Iterator[tuple[date, date | None]]:
    return zip(days, [None, *days], strict=False)


def _said(day: date, before: date | None, by_month: bool) -> str:
    name = MONTHS[day.month - 1] if by_month else f"{day.day} {MONTHS[day.month - 1]}"
    return f"{name}\n{day.year}" if before is None or before.year != day.year else name


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
