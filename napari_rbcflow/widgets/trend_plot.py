"""The picture of a trend: points over the dates, with their intervals, and the baseline as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QWheelEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.trend import Below, TrendRun
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.label_styles import LABEL_STYLES, Ink
from napari_rbcflow.widgets.result_plots import colour_axes

# Behind qtpy: it takes the Qt that is already there.
import pyqtgraph as pg  # isort: skip
from napari_rbcflow.session import STRUCK_OUT
from napari_rbcflow.trend import Scale, Trend, at_day, below_words, day_words, figure_words, use_words

BLUE = LABEL_STYLES[Label.TANK_TREADING].ink
ORANGE = LABEL_STYLES[Label.FLIPPING].ink
GREY = LABEL_STYLES[Label.UNRELIABLE].ink


@dataclass(frozen=True)
class Mark:
    """How a run is drawn: a symbol of pyqtgraph, its size in pixels, and one character for the table."""

    symbol: str
    ink: Ink
    filled: bool
    size: int
    sign: str


_MARKS = {
    Below.NO: Mark("o", BLUE, True, 11, "●"),
    Below.PERHAPS: Mark("o", ORANGE, False, 12, "○"),
    Below.YES: Mark("t", ORANGE, True, 16, "▼"),
    Below.UNKNOWN: Mark("o", BLUE, False, 11, "○"),
}
NOT_USED = Mark("x", GREY, True, 11, "✕")


def mark_of(run: TrendRun) -> Mark:
    """Return the mark of a run."""
    return _MARKS[run.below] if run.compared else NOT_USED


HEIGHT = 300
# Dates that there is room for in a dock.
_DATES = 5
_SEE_THROUGH = 45


class DatedPlot(QWidget):
    """Runs over the dates; nothing in it can be dragged, so that a click is a click."""

    # A run was clicked, or clicked twice: its place among the runs.
    clicked = Signal(int)
    opened = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._view = view = _StillView(background=None)
        # Else the viewport keeps the ground of the theme that it was made in.
        view.viewport().setAutoFillBackground(False)
        view.setStyleSheet("background: transparent;")
        view.setFrameShape(view.Shape.NoFrame)
        view.setAcceptDrops(False)  # a dropped folder is for the whole dock
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(view)
        self.setFixedHeight(HEIGHT)
        self._plot = plot = view.getPlotItem()
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        plot.showGrid(y=True, alpha=0.25)
        plot.getAxis("left").setWidth(46)
        plot.getAxis("left").setStyle(hideOverlappingLabels=False)
        # The first date, with its year, is wider than the default lets labels be at the ends of an axis.
        plot.getAxis("bottom").setStyle(hideOverlappingLabels=45)
        self._spots = pg.ScatterPlotItem(hoverable=True, tip=self._tip)
        self._spots.sigClicked.connect(self._spot_clicked)
        self._others: list[Any] = []
        plot.addItem(self._spots)

    @property
    def viewport(self) -> QWidget:
        """What the mouse clicks on."""
        viewport: QWidget = self._view.viewport()
        return viewport

    def clear(self) -> None:
        """Show nothing."""
        self._remove_others()
        self._spots.clear()
        self.hide()

    def _draw(self) -> None:
        """Draw what is shown, anew."""

    def _tip(self, x: float, y: float, data: object) -> str:
        return ""

    def _remove_others(self) -> None:
        for item in self._others:
            self._plot.removeItem(item)
        self._others = []

    def _add(self, item: Any) -> None:
        item.setZValue(-1)
        self._plot.addItem(item)
        self._others.append(item)

    def _add_line(self, share: float, colour: QColor, style: Any = Qt.PenStyle.SolidLine) -> None:
        self._add(pg.InfiniteLine(100 * share, angle=0, pen=pg.mkPen(colour, width=1, style=style)))

    def _spot(self, place: int, at: tuple[float, float], mark: Mark) -> dict[str, Any]:
        colour = mark.ink.on(self.palette())
        brush, pen = pg.mkBrush(colour) if mark.filled else None, pg.mkPen(colour, width=2)
        spot = {"pos": at, "data": place, "symbol": mark.symbol, "size": mark.size}
        return spot | {"brush": brush, "pen": pen}

    def _spot_clicked(self, _: object, spots: Sequence[Any], event: Any) -> None:
        if len(spots):
            (self.opened if event.double() else self.clicked).emit(int(spots[0].data()))

    def changeEvent(self, event: QEvent) -> None:
        """Follow the viewer's theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange) and hasattr(self, "_drawn"):
            self._take_colours()

    def _take_colours(self) -> QColor:
        self._drawn = True
        text = colour_axes(self._plot, self.palette())
        self._draw()
        return text

    def _span(self, scale: Scale) -> None:
        self._plot.setXRange(scale.first_day, scale.last_day, padding=0)
        self._plot.setYRange(100 * scale.low, 100 * scale.high, padding=0)
        self._plot.getAxis("bottom").setTicks(
            [[(d, words.replace("\n", " ")) for d, words in scale.dates(_DATES)]]
        )


class TrendPlot(DatedPlot):
    """A patient's runs."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._trend: Trend | None = None
        self._chosen = pg.ScatterPlotItem(symbol="o", size=24, brush=None)
        self._plot.addItem(self._chosen)
        self._take_colours()

    def clear(self) -> None:
        """Show nothing."""
        self._trend = None
        self._chosen.clear()
        super().clear()

    def show_trend(self, trend: Trend) -> None:
        """Draw a trend instead of the one before."""
        self.clear()
        self._trend = trend
        self._draw()
        self.show()

    def _draw(self) -> None:
        trend = self._trend
        if trend is None:
            return
        self._remove_others()
        scale = Scale.of(trend)
        self._span(scale)
        self._plot.setYRange(100 * scale.low, 100 * scale.high + 2, padding=0)
        self._plot.getAxis("left").setTicks([[(100 * t, f"{100 * t:.0f} %") for t in scale.shares()]])
        self._draw_days(trend, scale)
        self._draw_runs(trend, scale)

    def choose(self, place: int | None) -> None:
        """Put a ring around a run."""
        if self._trend is None or place is None:
            self._chosen.clear()
            return
        self._chosen.setData(*([v] for v in self._at(place)))

    def _at(self, place: int) -> tuple[float, float]:
        assert self._trend is not None
        run = self._trend.runs[place]
        record, estimate = run.record, run.figure.estimate
        # A run without a number is at the bottom.
        return at_day(record.started), 100 * (Scale.of(self._trend).low if estimate is None else estimate)

    def _draw_days(self, trend: Trend, scale: Scale) -> None:
        for span in trend.choices.crises:
            begin, end = scale.ends_of(span)
            if begin < end:
                self._add(_region((begin, end), "vertical", ORANGE.on(self.palette())))
        base = trend.baseline
        if base is not None:
            blue = BLUE.on(self.palette())
            self._add(_region((100 * base.low, 100 * base.high), "horizontal", blue))
            for share, style in (
                (base.mean, Qt.PenStyle.SolidLine),
                (base.low, Qt.PenStyle.SolidLine),
                (base.sure_low, Qt.PenStyle.DashLine),
            ):
                self._add_line(share, blue, style)

    def _draw_runs(self, trend: Trend, scale: Scale) -> None:
        spots = []
        for place, run in enumerate(trend.runs):
            figure, mark = run.figure, mark_of(run)
            x, y = self._at(place)
            colour = mark.ink.on(self.palette())
            if figure.low is not None and figure.high is not None:
                top, bottom = np.array([100 * figure.high - y]), np.array([y - 100 * figure.low])
                pen = pg.mkPen(colour, width=1.5)
                at = {"x": np.array([x]), "y": np.array([y])}
                self._add(pg.ErrorBarItem(**at, top=top, bottom=bottom, pen=pen, beam=0.0))
            spots.append(self._spot(place, (x, y), mark))
        self._spots.setData(spots)
        self._draw_by_hand(trend)

    def _draw_by_hand(self, trend: Trend) -> None:
        hands = [
            (at_day(run.record.started), 100 * run.record.by_hand.estimate)
            for run in trend.runs
            if run.record.by_hand is not None and run.record.by_hand.estimate is not None
        ]
        if hands:
            pen = pg.mkPen(LABEL_STYLES[STRUCK_OUT].ink.on(self.palette()), width=2)
            self._add(pg.ScatterPlotItem(pos=hands, symbol="d", size=13, brush=None, pen=pen))

    def _tip(self, x: float, y: float, data: object) -> str:
        if self._trend is None or not isinstance(data, int):
            return ""
        run = self._trend.runs[data]
        lines = (day_words(run.day), figure_words(run), below_words(run) or use_words(run))
        return "\n".join(filter(None, lines))

    def _take_colours(self) -> QColor:
        text = super()._take_colours()
        self._chosen.setPen(pg.mkPen(text, width=2))
        return text


class _StillView(pg.PlotWidget):  # type: ignore[misc]
    """The wheel scrolls what the plot is in."""

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


def _region(values: tuple[float, float], orientation: str, colour: QColor) -> Any:
    brush = QColor(colour)
    brush.setAlpha(_SEE_THROUGH)
    pen = pg.mkPen(colour, width=1)
    return pg.LinearRegionItem(values, orientation=orientation, movable=False, brush=brush, pen=pen)
