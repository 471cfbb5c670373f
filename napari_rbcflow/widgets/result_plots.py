"""The fraction's curve, and cells and frames in figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPolygonF
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rbcflow.quality import explained, lost_words
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Label
from napari_rbcflow.widgets.label_styles import CHIPS, EDGES, LABEL_STYLES, NOT_YET
from napari_rbcflow.widgets.panel import breakable, set_text, wrapping_label

# Behind qtpy: it takes the Qt that is already there.
import pyqtgraph as pg  # isort: skip
from napari_rbcflow.estimate import RunningFraction, shrunken_estimate
from napari_rbcflow.pipeline import COUNTED_AGAIN

_FIGURE = "font-size: 15px; font-weight: 600; padding: 0px;"
_WORD = "font-size: 14px; padding: 0px;"
_BAD = f"font-size: 14px; {CHIPS['note'].css} border-radius: 3px; padding: 1px 4px;"
_SEEN, _RELIABLE = "seen", "reliable"
# Two columns: what is counted is on the left.
_PLACES = (
    (_SEEN, 0, 0),
    (_RELIABLE, 1, 0),
    (Label.TANK_TREADING, 2, 0),
    (Label.FLIPPING, 3, 0),
    (NOT_YET, 0, 3),
    (Label.UNRELIABLE, 1, 3),
    (Label.TOO_SHORT, 2, 3),
    (Label.UNCOUNTED, 3, 3),
)
_WORDS = {_SEEN: say("viewer.count-seen"), _RELIABLE: say("viewer.count-reliable")}


class CountsTable(QWidget):
    """How many cells of each kind, and what became of the frames."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(6)
        grid = QGridLayout()
        grid.setHorizontalSpacing(5)
        grid.setVerticalSpacing(2)
        self.figures: dict[str, QLabel] = {}
        for name, row, place in _PLACES:
            figure = QLabel()
            figure.setStyleSheet(_FIGURE)
            figure.setAlignment(Qt.AlignmentFlag.AlignRight)
            self.figures[str(name)] = figure
            grid.addWidget(_word(name), row, place)
            grid.addWidget(figure, row, place + 1)
        grid.setColumnStretch(1, 1)
        grid.setColumnMinimumWidth(2, 10)
        grid.setColumnStretch(4, 1)
        column.addLayout(grid)
        self.rate, self.dropped, self.missed = QLabel(), QLabel(), QLabel()
        frames = QHBoxLayout()
        frames.setSpacing(12)
        for label in (self.rate, self.dropped, self.missed):
            label.setStyleSheet(_WORD)
            frames.addWidget(label)
        frames.addStretch(1)
        column.addLayout(frames)
        self.reasons = wrapping_label(_WORD)
        column.addWidget(self.reasons)
        self.clear()

    def clear(self) -> None:
        """Show no figures."""
        for label in (*self.figures.values(), self.rate, self.dropped, self.missed):
            label.setText("")
        set_text(self.reasons, "")
        self.hide()

    def show_counts(self, cells: Mapping[str, int], reliable: int, in_picture: int) -> None:
        """Show cells by label (as in ``run.json``), those counted, and those followed now, not judged yet."""
        self.show()
        figures = {_SEEN: cells.get("tracked", 0), _RELIABLE: reliable, NOT_YET: in_picture}
        for name, label in self.figures.items():
            n = figures[name] if name in figures else cells.get(name.replace("-", "_"), 0)
            _set_text(label, f"{n:,}")

    def show_frames(
        self,
        frames_per_s: float | None,
        dropped: int,
        missed: int,
        *,
        dropped_by: Mapping[str, int],
        missed_by: Mapping[str, int],
    ) -> None:
        """Show frames a second (None once the run has ended) and the frames lost, in all and by reason."""
        self.show()
        _set_text(self.rate, "" if frames_per_s is None else say("viewer.frame-rate", rate=frames_per_s))
        self.rate.setVisible(frames_per_s is not None)
        for label, key, n in (
            (self.dropped, "viewer.dropped", dropped),
            (self.missed, "viewer.missed", missed),
        ):
            _set_text(label, ("⚠ " if n else "") + say(key, frames=n))
            style = _BAD if n else _WORD
            if label.styleSheet() != style:
                label.setStyleSheet(style)
        set_text(self.reasons, breakable(lost_words(dropped=dropped_by, missed=missed_by)))
        for label, counts in ((self.dropped, dropped_by), (self.missed, missed_by)):
            if label.toolTip() != (meant := explained(counts)):
                label.setToolTip(meant)
        both = "\n".join(filter(None, (self.missed.toolTip(), self.dropped.toolTip())))
        if self.reasons.toolTip() != both:
            self.reasons.setToolTip(both)


def _word(name: str) -> QLabel:
    label = QLabel(_WORDS.get(name) or f"{LABEL_STYLES[name].sign} {LABEL_STYLES[name].words}")
    counted = name in (Label.TANK_TREADING, Label.FLIPPING)
    label.setStyleSheet(
        f"{_WORD} {CHIPS[name].css} border-radius: 3px; padding: 0px 3px;" if counted else _WORD
    )
    return label


def _set_text(label: QLabel, text: str) -> None:
    if label.text() != text:
        label.setText(text)


# Points drawn at most; beyond, every second one goes.
MOST_POINTS = 500
# Cells that the axis shows at least, so that the first ones do not fill it.
_LEAST_CELLS = 20


def colour_axes(plot: pg.PlotItem, palette: QPalette) -> QColor:
    """Give a plot's axes the theme's colour of text, and return that."""
    text = palette.windowText().color()
    for name in ("left", "bottom"):
        axis = plot.getAxis(name)
        axis.setPen(pg.mkPen(text, width=1))
        axis.setTextPen(text)
    return text


class FractionCurve(QWidget):
    """Fraction in per cent over counted cells. Cost and memory do not grow with the run.

    The band is the anytime interval: whoever watches may stop the run because of what is drawn here.
    """

    def __init__(self, parent: QWidget | None = None, *, level: float = 0.95) -> None:
        super().__init__(parent)
        view = pg.PlotWidget(background=None)
        # Else the viewport keeps the ground of the theme that it was made in.
        view.viewport().setAutoFillBackground(False)
        view.setStyleSheet("background: transparent;")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(view)
        self.caption = wrapping_label("font-size: 12px; padding: 0px 4px;")
        column.addWidget(self.caption)
        view.setFixedHeight(160)
        view.setFrameShape(view.Shape.NoFrame)
        view.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        # The wheel scrolls the panel that the curve stands in; the plot itself cannot be moved.
        view.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._plot = plot = view.getPlotItem()
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setYRange(-8, 108, padding=0)
        plot.setLabel("bottom", say("viewer.reliable-cells"))
        plot.getAxis("left").setTicks([[(t, f"{t} %") for t in (0, 25, 50, 75, 100)]])
        plot.getAxis("left").setWidth(46)
        plot.getAxis("left").setStyle(hideOverlappingLabels=False)
        plot.showGrid(y=True, alpha=0.25)
        self._band = _Band(QColor(EDGES["band"]))
        self._line = pg.PlotCurveItem()
        # With one cell there is no line and no band yet: the present interval is drawn by itself.
        self._now = pg.ErrorBarItem(beam=0)
        self._hints = [pg.InfiniteLine(angle=0) for _ in range(2)]
        for item in (self._band, self._line, self._now, *self._hints):
            plot.addItem(item)
        self._level = level
        self._target: float | None = None
        self._final: tuple[float, float] | None = None
        self._take_colours()
        self.clear()

    def clear(self) -> None:
        """Forget all cells."""
        self._fraction = RunningFraction(self._level)
        self._step = 1
        self._final = None
        self._points: list[tuple[float, float, float, float]] = []
        self._draw()

    def set_target(self, half_width: float | None) -> None:
        """Show the width at which the run stops (0 to 0.5), or nothing."""
        self._target = half_width
        self._draw()

    def show_final(self, low: float, high: float) -> None:
        """Show the final interval as a bar behind the last cell (0 to 1)."""
        self._final = (100 * low, 100 * high)
        self._draw()

    def add(self, counted: bytes) -> None:
        """Count more cells, in their order: 1 tank-treading, 0 flipping; all anew behind `COUNTED_AGAIN`."""
        if not counted:
            return
        if COUNTED_AGAIN in counted:
            self.clear()
            counted = counted.rpartition(COUNTED_AGAIN)[2]
        for hit in counted:
            self._fraction.update(tank_treading=int(hit == 1), flipping=int(hit != 1))
            if self._fraction.n % self._step == 0:
                self._points.append(self._present())
                if len(self._points) >= MOST_POINTS:
                    self._step *= 2
                    self._points = [p for p in self._points if p[0] % self._step == 0]
        self._draw()

    @property
    def n(self) -> int:
        """Cells counted."""
        return self._fraction.n

    @property
    def points(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """What is drawn, shape (m, 4): cells, fraction, low and high in per cent."""
        points = self._points
        if self._fraction.n and (not points or points[-1][0] != self._fraction.n):
            points = [*points, self._present()]
        return np.array(points, np.float64).reshape(-1, 4)

    def _present(self) -> tuple[float, float, float, float]:
        low, high = self._fraction.anytime_interval()
        return float(self._fraction.n), 100 * self._fraction.estimate, 100 * low, 100 * high

    def _draw(self) -> None:
        points = self.points
        self._line.setData(points[:, 0], points[:, 1])
        self._band.set_points(points)
        self._plot.setXRange(0, max(self._fraction.n, _LEAST_CELLS), padding=0.02)
        self._now.setVisible(len(points) > 0)
        narrow = self._target is not None and len(points) > 0
        if len(points):
            n, estimate, low, high = points[-1]
            low, high = self._final or (low, high)
            self._now.setData(
                x=np.array([n]),
                y=np.array([estimate]),
                top=np.array([high - estimate]),
                bottom=np.array([estimate - low]),
            )
            at_stop = shrunken_estimate(self._fraction.tank_treading, self._fraction.n)
            for line, sign in zip(self._hints, (-1, 1), strict=True):
                line.setValue(100 * (at_stop + sign * (self._target or 0.0)))
        for line in self._hints:
            line.setVisible(narrow)
        key = "viewer.curve-band-and-target" if narrow else "viewer.curve-band"
        if self._final is not None:
            key = "viewer.curve-band-and-bar"
        set_text(self.caption, say(key) if len(points) else "")

    def changeEvent(self, event: QEvent) -> None:
        """Follow the viewer's theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange) and hasattr(self, "_level"):
            self._take_colours()

    def _take_colours(self) -> None:
        text = colour_axes(self._plot, self.palette())
        self._line.setPen(pg.mkPen(text, width=2))
        self._now.setData(pen=pg.mkPen(text, width=2))
        for line in self._hints:
            line.setPen(pg.mkPen(text, width=1, style=Qt.PenStyle.DashLine))


class _Band(pg.GraphicsObject):  # type: ignore[misc]
    """One filled outline, without a pen: pyqtgraph's own needs two curves and draws them as well."""

    def __init__(self, colour: QColor) -> None:
        super().__init__()
        self._brush = pg.mkBrush(colour)
        self._outline = QPolygonF()

    def set_points(self, points: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
        self.prepareGeometryChange()
        lower = [QPointF(n, low) for n, _, low, _ in points.tolist()]
        upper = [QPointF(n, high) for n, _, _, high in points.tolist()]
        self._outline = QPolygonF(lower + upper[::-1])
        self.update()

    def boundingRect(self) -> QRectF:
        return self._outline.boundingRect()

    def paint(self, painter: QPainter, *_: object) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._brush)
        painter.drawPolygon(self._outline)
