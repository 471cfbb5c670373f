"""A trend as a picture that is printed on one page, and the axes that it shares with the widget."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from napari_rbcflow.quality import percent
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FLIPPING_COLOUR, TANK_TREADING_COLOUR
from napari_rbcflow.trend.baseline import Below
from napari_rbcflow.trend.judge import (
    MONTHS,
    Trend,
    TrendRun,
    below_words,
    day_words,
    days_of,
    summary,
)
from napari_rbcflow.trend.records import Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

_LEAST_DAYS_SHOWN = 6.0
_LEAST_SHARE_SHOWN = 0.25
_STEP_DAYS = (1, 2, 7, 14)
_STEP_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120)


def at_day(moment: datetime) -> float:
    """Return a moment in days of local time; whole numbers are midnights."""
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
        """Return axes that span all runs, with their intervals and the baseline."""
        days = [at_day(run.record.started) for run in trend.runs]
        middle, half = (days[0] + days[-1]) / 2, max(days[-1] - days[0], _LEAST_DAYS_SHOWN) / 2
        shown = [0.95]
        for run in trend.runs:
            figures = (run.figure, run.record.by_hand)
            shown += [v for f in figures if f is not None for v in (f.estimate, f.low) if v is not None]
        if trend.baseline is not None:
            shown.append(trend.baseline.low)
        low = max(0.0, math.floor(10 * (min(shown) - 0.02)) / 10)
        return cls(middle - 1.06 * half, middle + 1.06 * half, min(low, 1 - _LEAST_SHARE_SHOWN), 1.0)

    def ends_of(self, span: Span) -> tuple[float, float]:
        """Return where the days of a span begin and end, cut to the axis."""
        begin = self.first_day if span.first is None else float(span.first.toordinal())
        end = self.last_day if span.last is None else span.last.toordinal() + 1.0
        return max(begin, self.first_day), min(end, self.last_day)

    def shares(self) -> list[float]:
        """Return the fractions that are labelled on the axis."""
        step = 0.05 if self.high - self.low <= 0.35 else 0.1 if self.high - self.low <= 0.7 else 0.2
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def dates(self, most: int = 9) -> list[tuple[float, str]]:
        """Return at most so many days that are labelled on the axis, with their words."""
        first = date.fromordinal(math.ceil(self.first_day))
        last = date.fromordinal(max(math.floor(self.last_day), first.toordinal()))
        every: list[Sequence[date]] = [list(_by_days(first, last, step)) for step in _STEP_DAYS]
        every += [list(_by_months(first, last, step)) for step in _STEP_MONTHS]
        days = next((days for days in every if len(days) <= most), every[-1])
        pairs = zip(days, [None, *days], strict=False)
        by_month = len(days) > 1 and all(day.day == 1 for day in days)
        return [(float(day.toordinal()), _date_words(day, before, by_month)) for day, before in pairs]


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


def _date_words(day: date, before: date | None, by_month: bool) -> str:
    name = MONTHS[day.month - 1] if by_month else f"{day.day} {MONTHS[day.month - 1]}"
    return f"{name}\n{day.year}" if before is None or before.year != day.year else name


WIDTH, HEIGHT, DPI = 2400, 1500, 210
"""A4 landscape, with margins; in pixels."""
GREY, BLACK = "#8a8a8a", "#1a1a1a"
_LEFT, _RIGHT, _BOTTOM = 150, 60, 330
_SMALL, _MEDIUM, _LARGE = 27, 34, 52
_MOST_LABELLED = 40  # runs above which numbers beside the marks would hide each other
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Microsoft YaHei",
    "Meiryo",
    "PingFang SC",
    "Arial Unicode MS",
)
"""The first comes with matplotlib; the others are for names in scripts that it lacks."""


def as_png(trend: Trend) -> bytes:
    """Draw a trend as a PNG of `WIDTH` x `HEIGHT` pixels.

    Parameters
    ----------
    trend : Trend

    Returns
    -------
    bytes
    """
    return printed(lambda: _TrendPage(trend))


def printed(make: Callable[[], Page]) -> bytes:
    """Make a page, and return it as a PNG."""
    from matplotlib import font_manager, rc_context

    installed = set(font_manager.get_font_names())
    fonts = [name for name in _FONTS if name in installed]
    file = io.BytesIO()
    with (
        # `text.parse_math`: a name may hold a dollar sign.
        rc_context({"font.family": fonts, "text.parse_math": False}),
        warnings.catch_warnings(action="ignore", category=UserWarning),  # a letter that no font has
    ):
        make().figure.savefig(file, format="png")
    return file.getvalue()


class Page:
    """One printed page. Positions and sizes are in pixels from the top left."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)  # measures texts

    def _add_axes(self, top: float, bottom: float, right: float = _RIGHT) -> Axes:
        """Return axes between two heights, over the width of the page."""
        width = WIDTH - _LEFT - right
        axes = self.figure.add_axes(
            (_LEFT / WIDTH, 1 - bottom / HEIGHT, width / WIDTH, (bottom - top) / HEIGHT)
        )
        axes.set_axisbelow(True)
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.spines["bottom"].set_color(GREY)
        axes.tick_params("both", labelsize=points(_SMALL), labelcolor=BLACK, color=GREY, pad=4)
        axes.tick_params("y", length=0)
        return axes

    def _text(self, x: float, y: float, text: str, size: float, colour: str = BLACK, **style: Any) -> Text:
        return self.figure.text(
            x / WIDTH, 1 - y / HEIGHT, text, size=points(size), color=colour, va="top", **style
        )

    def _wrapped(
        self, y: float, text: str, size: float, colour: str, most_lines: int = 9, **style: Any
    ) -> float:
        """Write a paragraph, broken between words, and return where it ends."""
        label = self._text(_LEFT, y, "", size, colour, linespacing=1.15, **style)
        lines = [""]
        for word in text.replace(" %", "\N{NO-BREAK SPACE}%").split(" "):
            longer = f"{lines[-1]} {word}".strip()
            label.set_text(longer)
            if lines[-1] and label.get_window_extent().width > WIDTH - _LEFT - _RIGHT:
                lines.append(word)
            else:
                lines[-1] = longer
        label.set_text("\n".join(lines[:most_lines]) + (" ..." if len(lines) > most_lines else ""))
        return HEIGHT - float(label.get_window_extent().y0)


class _TrendPage(Page):
    def __init__(self, trend: Trend) -> None:
        super().__init__()
        self._trend = trend
        scale, top = Scale.of(trend), self._heading() + 40
        self._axes = self._add_axes(top, HEIGHT - _BOTTOM)
        self._draw_axes(scale)
        self._draw_days(scale)
        for run in sorted(trend.runs, key=lambda run: run.compared):
            self._draw_run(run)
        self._legend()
        self._small_print()

    def _heading(self) -> float:
        """Write who, what and how it is; return where that ends."""
        trend = self._trend
        self._text(_LEFT, 40, say("trend.picture-title", patient=trend.patient), _LARGE, weight="bold")
        first, last = day_words(trend.runs[0].day), day_words(trend.runs[-1].day)
        days = first if first == last else say("trend.picture-days", first=first, last=last)
        runs = say("trend.picture-runs", runs=len(trend.runs), days=days)
        self._text(WIDTH - _RIGHT, 52, runs, _MEDIUM, GREY, ha="right")
        verdict, *more = summary(trend)
        alarm = trend.last is not None and trend.last.below in (Below.YES, Below.PERHAPS)
        colour = FLIPPING_COLOUR if alarm else BLACK
        y = self._wrapped(130, verdict, _MEDIUM + 4, colour, weight="bold")
        return self._wrapped(y + 14, " ".join(more), _SMALL + 2, "#333333")

    def _draw_axes(self, scale: Scale) -> None:
        axes = self._axes
        axes.set(xlim=(scale.first_day, scale.last_day), ylim=(scale.low, scale.high))
        shares, dates = scale.shares(), scale.dates()
        axes.set_yticks(shares, [f"{100 * share:.0f} %" for share in shares])
        axes.set_xticks([day for day, _ in dates], [words for _, words in dates])
        axes.grid(axis="y", color="#e8e8e8", linewidth=0.6)

    def _draw_days(self, scale: Scale) -> None:
        axes, base = self._axes, self._trend.baseline
        for span in self._trend.choices.crises:
            begin, end = scale.ends_of(span)
            if end > begin:
                axes.axvspan(begin, end, color=FLIPPING_COLOUR, alpha=0.14, linewidth=0)
                axes.text(
                    (begin + end) / 2,
                    0.98,
                    say("trend.picture-crisis"),
                    transform=axes.get_xaxis_transform(),
                    color=FLIPPING_COLOUR,
                    size=points(_SMALL),
                    ha="center",
                    va="top",
                )
        if base is not None:
            axes.axhspan(base.low, base.high, color=TANK_TREADING_COLOUR, alpha=0.15, linewidth=0)
            axes.axhline(base.mean, color=TANK_TREADING_COLOUR, linewidth=0.7)
            axes.axhline(base.low, color=TANK_TREADING_COLOUR, linewidth=1.1)
            axes.axhline(base.sure_low, color=TANK_TREADING_COLOUR, linewidth=0.7, dashes=(7, 5))

    def _draw_run(self, run: TrendRun) -> None:
        from matplotlib.transforms import offset_copy

        axes, figure, by_hand = self._axes, run.figure, run.record.by_hand
        x, style = at_day(run.record.started), _mark(run)
        if figure.estimate is None or figure.low is None or figure.high is None:
            # At the bottom of the plot, as there is no number.
            axes.plot([x], [0.03], transform=axes.get_xaxis_transform(), **style)
            return
        bar = {"color": style["color"], "linewidth": 1.1, "marker": "_", "markersize": 6}
        axes.plot([x, x], [figure.low, figure.high], **bar)
        if by_hand is not None and by_hand.estimate is not None:
            beside = offset_copy(axes.transData, self.figure, x=24, units="dots")
            axes.plot([x], [by_hand.estimate], transform=beside, **_BY_HAND)
        axes.plot([x], [figure.estimate], zorder=3, clip_on=False, **style)
        if len(self._trend.runs) <= _MOST_LABELLED and run.below in (Below.YES, Below.PERHAPS):
            right = axes.transData.transform((x, 0))[0] < WIDTH - _RIGHT - 120
            axes.annotate(
                percent(figure.estimate),
                (x, figure.estimate),
                (7 if right else -7, -3),
                textcoords="offset points",
                ha="left" if right else "right",
                va="top",
                size=points(_SMALL),
                weight="bold" if run.below is Below.YES else "normal",
                color=style["color"],
            )

    def _legend(self) -> None:
        """Explain the marks that are on the page."""
        from matplotlib.lines import Line2D

        runs = self._trend.runs
        seen = {(not run.compared, run.below): run for run in runs}
        marks = [Line2D([], [], label=_words(run), **_mark(run)) for _, run in sorted(seen.items())]
        if any(run.record.by_hand for run in runs):
            marks.append(Line2D([], [], label=say("trend.legend-by-hand"), **_BY_HAND))
        self.figure.legend(
            handles=marks,
            loc="upper left",
            bbox_to_anchor=(_LEFT / WIDTH, (_BOTTOM - 105) / HEIGHT),
            ncols=len(marks),
            frameon=False,
            fontsize=points(_SMALL),
            borderpad=0,
            borderaxespad=0,
            handlelength=1,
            handletextpad=0.6,
            columnspacing=1.8,
        )

    def _small_print(self) -> None:
        trend = self._trend
        words = [say("trend.picture-bars")]
        if trend.baseline is not None:
            words.append(say("trend.picture-band"))
        if doubts := [run for run in trend.runs if not run.compared]:
            words.append(say("trend.picture-not-used", days=days_of(doubts)))
        text = " ".join([*words, *trend.notes])
        self._wrapped(HEIGHT - _BOTTOM + 166, text, _SMALL - 4, "#444444", most_lines=3)
        self._text(_LEFT, HEIGHT - 44, say("trend.picture-foot"), _SMALL - 7, GREY)


def points(pixels: float) -> float:
    """Return a size of letters in points."""
    return pixels * 72 / DPI


_BY_HAND: dict[str, Any] = {
    "marker": "D",
    "color": BLACK,
    "markerfacecolor": "white",
    "markersize": 5,
    "linestyle": "none",
}


def _mark(run: TrendRun) -> dict[str, Any]:
    """Return the style of a run's mark."""
    style: dict[str, Any] = {
        "color": TANK_TREADING_COLOUR,
        "marker": "o",
        "markersize": 8,
        "linestyle": "none",
    }
    if not run.compared:
        return style | {"color": GREY, "marker": "x", "markeredgewidth": 1.8, "markersize": 7}
    if run.below is Below.YES:
        return style | {"color": FLIPPING_COLOUR, "marker": "v", "markersize": 11}
    if run.below is Below.PERHAPS:
        style["color"] = FLIPPING_COLOUR
    return style if run.below is Below.NO else style | {"markerfacecolor": "white", "markeredgewidth": 1.8}


def _words(run: TrendRun) -> str:
    """Return what the mark of a run means."""
    if not run.compared:
        return say("trend.legend-not-used")
    return say("trend.legend-below") if run.below is Below.YES else below_words(run)
