"""A laboratory's control samples in the Trend dock: whether the instrument is in order, and the chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_rbcflow.sentences import say
from napari_rbcflow.trend import (
    ControlChart,
    State,
    at_day,
    control_scale,
    day_words,
    number_words,
)
from napari_rbcflow.widgets.label_styles import CHIPS, EDGES
from napari_rbcflow.widgets.panel import breakable, in_form, set_text, wrapping_label
from napari_rbcflow.widgets.trend_plot import BLUE, GREY, NOT_USED, ORANGE, DatedPlot, Mark

_MARKS = {
    State.IN_ORDER: Mark("o", BLUE, True, 11, "●"),
    State.WARNING: Mark("o", BLUE, False, 12, "○"),
    State.REJECTED: Mark("t", ORANGE, True, 16, "▼"),
    State.NO_NUMBER: NOT_USED,
    State.NO_TARGET: Mark("o", GREY, True, 11, "●"),
}
# By standard deviations from the target.
_LINES = {1: "good", 2: "caution", 3: "bad"}
_VERDICT = "font-size: 17px; font-weight: 600; padding: 6px; border-radius: 4px;"
_VERDICTS = {
    State.REJECTED: f"{_VERDICT} {CHIPS['grave'].css}",
    State.NO_NUMBER: f"{_VERDICT} border: 2px solid {EDGES['caution']};",
    State.WARNING: f"{_VERDICT} border: 2px solid {EDGES['caution']};",
}


class ControlPlot(DatedPlot):
    """A Levey-Jennings chart: a lot's runs, and up to three standard deviations around its target."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._chart: ControlChart | None = None
        self._take_colours()

    def show_chart(self, chart: ControlChart) -> None:
        """Draw a chart instead of the one before."""
        self.clear()
        self._chart = chart
        self._draw()
        self.show()

    def _draw(self) -> None:
        chart = self._chart
        if chart is None:
            return
        self._remove_others()
        scale = control_scale(chart)
        self._span(scale)
        self._plot.getAxis("left").setTicks(None)
        if (target := chart.target) is not None:
            quiet = GREY.on(self.palette())
            lines = [(target.mean + k * target.sd, k) for k in range(-3, 4)]
            for share, k in lines:
                solid = k in (-3, 0, 3)
                style = Qt.PenStyle.SolidLine if solid else Qt.PenStyle.DashLine
                self._add_line(share, QColor(EDGES[_LINES[abs(k)]]) if k else quiet, style)
            self._plot.getAxis("left").setTicks([[(100 * share, f"{100 * share:.1f}") for share, _ in lines]])
        spots = []
        for place, run in enumerate(chart.runs):
            estimate = run.record.figure.estimate
            at = at_day(run.record.started), 100 * (scale.low if estimate is None else estimate)
            spots.append(self._spot(place, at, _MARKS[run.state]))
        self._spots.setData(spots)

    def _tip(self, x: float, y: float, data: object) -> str:
        if self._chart is None or not isinstance(data, int):
            return ""
        run = self._chart.runs[data]
        z = "" if run.z is None else f"{run.z:+.2f} s"
        lines = day_words(run.day), number_words(run.record.figure), z, run.state.word, run.rule_words
        return "\n".join(filter(None, lines))


class ControlView(QWidget):
    """One control at a time: what became of its last run, its chart, its target and its repeatability."""

    # A run's folder, clicked twice.
    opened = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.charts: list[ControlChart] = []
        self.which = QComboBox()
        self.which.setToolTip(say("viewer.control-which"))
        self.which.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.verdict = wrapping_label(_VERDICT)
        self.plot = ControlPlot()
        self.summary = wrapping_label("font-size: 14px; padding: 0px 4px;")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.which, self.verdict, self.plot, self.summary):
            column.addWidget(widget)
        column.addStretch(1)
        self.which.currentIndexChanged.connect(self._show)
        self.plot.opened.connect(lambda place: self.opened.emit(self._folder(place)))

    def show_charts(self, charts: Sequence[ControlChart]) -> None:
        """Show these, the first of them now."""
        self.charts = list(charts)
        self.which.blockSignals(True)
        self.which.clear()
        self.which.addItems([chart.title for chart in charts])
        self.which.blockSignals(False)
        self.which.setVisible(len(charts) > 1)
        self._show()

    @property
    def chart(self) -> ControlChart | None:
        """The one that is shown."""
        at = self.which.currentIndex()
        return self.charts[at] if 0 <= at < len(self.charts) else None

    def _show(self, *_: object) -> None:
        chart = self.chart
        if chart is None:
            self.plot.clear()
            return
        verdict, *more = chart.summary()
        self.verdict.setText(breakable(verdict))
        self.verdict.setStyleSheet(_VERDICTS.get(chart.runs[-1].state, _VERDICT))
        set_text(self.summary, "<br>".join(breakable(in_form(line)) for line in more))
        self.plot.show_chart(chart)

    def _folder(self, place: int) -> Path | None:
        return None if self.chart is None else self.chart.runs[place].record.folder
