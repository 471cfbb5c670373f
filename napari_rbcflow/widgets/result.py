"""The number and all that a person must know beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QRectF, Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate import (
    AFTER_STOP,
    ANYTIME,
    METHOD_HELP,
    RuleProgress,
    end_sentence,
    method_words,
    time_words,
)
from napari_rbcflow.pipeline import Progress
from napari_rbcflow.quality import FEW_CELLS, QualityLine, Severity, quality_lines, warnings_of_run
from napari_rbcflow.session import (
    FractionFigure,
    Session,
    by_hand,
    corrected_words,
    grave_warnings,
    mild_warnings,
    open_session,
    too_few_words,
)
from napari_rbcflow.widgets.dock import (
    FAULT_COLOUR,
    LABEL_STYLES,
    STRUCK_OUT,
    WARNING_COLOUR,
    WarningBox,
    breakable,
    set_text,
    wrapping_label,
)
from napari_rbcflow.widgets.result_plots import CountsTable, FractionCurve

HEIGHT_PX = 14
STEPS = 500


class ShareBar(QWidget):
    """Shows a share from 0 to 1.

    Not a QProgressBar: that one paints at once whenever its value changes, and beside napari's canvas
    each such painting composes the whole window (38 ms at 1500 x 950 without a GPU, measured).
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._share = 0.0
        self.setFixedHeight(HEIGHT_PX)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def share(self) -> float:
        """What is shown."""
        return self._share

    def show_share(self, share: float) -> None:
        """Show another share; painted with whatever is painted next."""
        share = round(min(1.0, max(0.0, share)) * STEPS) / STEPS
        if share != self._share:
            self._share = share
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Fill as much of the frame as the share says."""
        painter = QPainter(self)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        frame = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        filled = QRectF(frame)
        filled.setWidth(frame.width() * self._share)
        ink.setAlphaF(0.55)
        painter.fillRect(filled, ink)
        painter.setPen(ink)
        painter.drawRect(frame)
        painter.end()


class SessionLinks(QWidget):
    """The folder's path, and buttons for it and for its report; takes no room without a session."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.line = wrapping_label("font-size: 13px;")
        self.open_folder = QPushButton("Open the session's folder")
        self.open_report = QPushButton("Open the report")
        self.open_folder.clicked.connect(lambda: self._open(""))
        self.open_report.clicked.connect(lambda: self._open("report.html"))
        row = QHBoxLayout()
        row.addWidget(self.open_folder)
        row.addWidget(self.open_report)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.line)
        column.addLayout(row)
        self._folder: Path | None = None
        self.hide()

    def clear(self) -> None:
        """Forget the session."""
        self._folder = None
        set_text(self.line, "")
        self.hide()

    def show_folder(self, folder: Path) -> None:
        """Show where a session lies."""
        self._folder = Path(folder)
        set_text(self.line, f"Session: {breakable(str(folder))}")
        self.open_report.setVisible((self._folder / "report.html").exists())
        self.show()

    def _open(self, name: str) -> None:
        if self._folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder / name)))


_PLAIN_ROW = "font-size: 13px; padding: 0px;"
_GROUND = "font-size: 13px; color: black; border-radius: 3px; padding: 0px 3px; background: "
_LOOKS = {
    None: ("✓", _PLAIN_ROW),
    Severity.NOTE: ("▲", _GROUND + WARNING_COLOUR + ";"),
    Severity.WARNING: ("⚠", _GROUND + FAULT_COLOUR + ";"),
}


class QualityTable(QWidget):
    """What `quality.lines.quality_lines` says of a run; takes no room without any.

    Labels are made once and filled anew: a run changes them a few times a second.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 4, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self._rows: list[tuple[QLabel, QLabel, QLabel]] = []
        self._shown: tuple[QualityLine, ...] = ()
        self.hide()

    def show_lines(self, lines: Sequence[QualityLine]) -> None:
        """Show these measures instead of those before."""
        if (shown := tuple(lines)) == self._shown:
            return
        self._shown = shown
        while len(self._rows) < len(shown):
            self._rows.append(self._new_row())
        for k, row in enumerate(self._rows):
            for label in row:
                label.setVisible(k < len(shown))
        for row, line in zip(self._rows, shown, strict=False):
            _fill(row, line)
        self.setVisible(bool(shown))

    def clear(self) -> None:
        """Show nothing."""
        self.show_lines(())

    @property
    def lines(self) -> tuple[QualityLine, ...]:
        """What is shown."""
        return self._shown

    def _new_row(self) -> tuple[QLabel, QLabel, QLabel]:
        row = QLabel(), QLabel(), QLabel()
        at = len(self._rows)
        for column, label in enumerate(row):
            label.setStyleSheet(_PLAIN_ROW)
            self._grid.addWidget(label, at, column)
        row[2].setAlignment(Qt.AlignmentFlag.AlignRight)
        return row


def _fill(row: tuple[QLabel, QLabel, QLabel], line: QualityLine) -> None:
    mark, style = _LOOKS[line.severity]
    for label, text in zip(row, (mark, line.name, line.said), strict=True):
        if label.text() != text:
            label.setText(text)
        label.setToolTip(f"usual: {line.usual}")
    if row[0].styleSheet() != style:
        row[0].setStyleSheet(style)
        row[2].setStyleSheet(style)


_NO_NUMBERS_LEFT = ("half-width", "baseline")
_RULES = {
    "reliable": "reliable cells",
    "half-width": "interval",
    "seconds": "time",
    "tracks": "tracks",
    "baseline": "baseline",
}


def percent(share: float) -> str:
    """Return a share in whole per cent; with one decimal where that would pretend to be none or all."""
    whole = f"{100 * share:.0f}"
    if whole in ("0", "100") and 0 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
    return f"{whole} %"


def interval_words(low: float, high: float) -> str:
    """Return an interval in whole per cent, rounded outwards: never narrower than it is."""
    # A thousandth of a point is lost in floating point before it is rounded.
    return f"{math.floor(100 * low + 1e-3)} to {math.ceil(100 * high - 1e-3)} %"


def cells_words(level: float, n: int, method: str = "") -> str:
    """Say what stands under the interval, and what that holds for."""
    cells = "1 reliable cell" if n == 1 else f"{n:,} reliable cells"
    return f"{100 * level:g} % interval, from {cells}" + (f"\n({method_words(method)})" if method else "")


def one_look_words(method: str) -> str:
    """Say what the interval of a number with changes by hand is."""
    return (
        "worked out from all these cells at once" if method == ANYTIME else method_words(method).split(":")[0]
    )


def end_words(status: str, reason: str, n: int, sentence: str = "") -> str:
    """Say how a run ended.

    Parameters
    ----------
    status, reason : str
        As in ``run.json``.
    n : int
        Cells counted.
    sentence : str
        What the rule that stopped it found, as in ``run.json``.
    """
    if status == "failed":
        return f"The run failed: {reason}"
    if status == "running":
        return "The run has not ended."
    return end_sentence(reason, n, sentence)


def left_words(progress: Progress) -> str:
    """Say what will stop a run, each rule on a line of its own with how long it takes at the present rate."""
    lines = []
    if progress.total_frames:
        lines.append(f"frame {progress.processed:,} of {progress.total_frames:,}")
    elif not progress.rules:
        return "goes on until you press Stop"
    lines += [_rule_words(rule) for rule in progress.rules]
    if progress.seconds_left is not None:
        lines.append(f"about {time_words(progress.seconds_left)} left")
    return "\n".join(lines)


def _rule_words(rule: RuleProgress) -> str:
    title = _RULES.get(rule.name, rule.name)
    if not rule.missing:
        return f"{title}: reached"
    timed = ""
    if rule.seconds_left is not None:
        # A unit does not stand alone on a line.
        timed = f", about {time_words(rule.seconds_left)}".replace(" s", "\N{NO-BREAK SPACE}s")
    to_go = "" if rule.name in _NO_NUMBERS_LEFT else " to go"
    missing = rule.missing.removeprefix("the interval ") if rule.name == "half-width" else rule.missing
    return f"{title}: {missing}{to_go}{timed if rule.name != 'seconds' else ''}"


def too_few_line(n: int) -> str:
    """Say that there are too few cells to act on, where that is so."""
    return f"too few cells to act on yet: wait for {FEW_CELLS} at least" if n < FEW_CELLS else ""


def grave_so_far(progress: Progress) -> list[str]:
    """Return what already forbids acting on the number of a run that goes on."""
    return [w.sentence for w in progress.warned or () if w.grave]


def mild_so_far(progress: Progress, warnings: Sequence[str]) -> list[str]:
    """Return what else must be said of a run that goes on: `warnings`, and what its quality says."""
    warned = progress.warned or ()
    grave = {w.sentence for w in warned if w.grave}
    return [*(w.sentence for w in warned if not w.grave), *(w for w in warnings if w not in grave)]


REFRESH_MS = 600
"""Nobody reads numbers that change more often."""
_NUMBER = "font-size: 92px; font-weight: 700; padding: 0px 4px; margin: 0px;"
_INTERVAL = "font-size: 40px; font-weight: 600; padding: 0px 4px;"
_PLAIN = "font-size: 16px; padding: 0px 4px;"
_CORRECTED = "font-size: 13px;"
_BY_HAND = f"font-size: 18px; border-left: 4px solid {LABEL_STYLES[STRUCK_OUT].colour}; padding-left: 8px;"
_DIM = " color: #8f959b;"
_NONE_YET = "no reliable cell yet"


class ResultPanel(QWidget):
    """A run's fraction with its interval, its curve, its counts, its warnings and its end.

    Lifecycle: `clear` -> `show_progress` as often as one likes (it draws four times a second) ->
    `show_end`. Or `show_session` alone, for a session on disk.

    Attributes
    ----------
    warnings : WarningBox
        What forbids acting on the number; stands above it.
    notes : WarningBox
        Milder ones.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.warnings, self.notes = WarningBox(), WarningBox()
        self.whose = wrapping_label("font-size: 18px; font-weight: 600; padding: 0px 4px;")
        self.caption = wrapping_label(_PLAIN)
        self.number = wrapping_label(_NUMBER)
        self.interval = wrapping_label(_INTERVAL)
        self.cells = wrapping_label(_PLAIN)
        self.doubt = wrapping_label(_PLAIN + " font-style: italic;")
        self.corrected = wrapping_label(_CORRECTED)
        self.by_hand = wrapping_label(_BY_HAND)
        self.end = wrapping_label("font-size: 18px; font-weight: 600;")
        self.remarks = wrapping_label("font-size: 14px;")
        self.progress = ShareBar()
        self.left = wrapping_label(_PLAIN)
        self.curve = FractionCurve()
        self.counts = CountsTable()
        self.quality = QualityTable()
        self.links = SessionLinks()
        self.open_folder, self.open_report = self.links.open_folder, self.links.open_report

        column = QVBoxLayout(self)
        column.setContentsMargins(2, 0, 6, 0)
        column.setSpacing(3)
        for widget in (
            self.whose,
            self.warnings,
            self.caption,
            self.number,
            self.interval,
            self.cells,
            self.doubt,
            self.corrected,
            self.by_hand,
            self.end,
            self.remarks,
            self.links,
            self.progress,
            self.left,
            self.curve,
            self.counts,
            self.quality,
            self.notes,
        ):
            column.addWidget(widget)
        column.addStretch(1)
        # One timer, four times a second at most, only while something new was said.
        self._slow = QTimer(self)
        self._slow.setSingleShot(True)
        self._slow.timeout.connect(self._draw_waiting)
        self.clear()

    # ------------------------------------------------------------------ what is shown

    def clear(self) -> None:
        """Forget the run shown before."""
        self._slow.stop()
        self._waiting: tuple[Progress, tuple[str, ...]] | None = None
        self._counted = bytearray()
        self._failed = self._doubtful = self._few_by_hand = False
        self._n = 0
        self.curve.clear()
        self.curve.hide()
        self.counts.clear()
        self.quality.clear()
        self.curve.set_target(None)
        self.warnings.clear()
        self.notes.clear()
        for label in (self.whose, self.cells, self.doubt, self.corrected, self.by_hand, self.end):
            set_text(label, "")
        set_text(self.remarks, "")
        set_text(self.left, "")
        set_text(self.caption, "")
        set_text(self.number, "")
        set_text(self.interval, "no run yet")
        self.links.clear()
        self.progress.hide()

    def show_whose(self, patient: str, sample: str) -> None:
        """Say whose number it is, so that nobody takes it for the next patient's."""
        said = [part for part in (patient.strip(), sample.strip()) if part]
        set_text(self.whose, " · ".join(breakable(part) for part in said) or "unnamed sample")

    def set_target(self, half_width: float | None) -> None:
        """Show in the curve how narrow the interval must get, where a stop rule asks for it."""
        self.curve.set_target(half_width)

    def show_progress(self, progress: Progress, counted: bytes, warnings: Sequence[str]) -> None:
        """Show how a run stands; cheap, and drawn four times a second at most.

        Parameters
        ----------
        progress : Progress
        counted : bytes
            Cells counted since this was called last, as in `Snapshot.counted`.
        warnings : sequence of str
        """
        self._counted += counted
        self._waiting = (progress, tuple(warnings))
        if not self._slow.isActive():
            self._draw_waiting()

    def show_end(self, status: str, reason: str, folder: Path, remarks: Sequence[str] = ()) -> None:
        """Show how a run ended, with what its session says.

        Parameters
        ----------
        status, reason : str
            As in ``run.json``.
        folder : Path
            The session.
        remarks : sequence of str
            What else is to be said, such as a simulation's own fraction.
        """
        self._draw_waiting()
        self._slow.stop()
        self._end_progress()
        self.links.show_folder(folder)
        self._failed = status == "failed"
        sentence = ""
        # A run that failed may have left a file that still says it goes on, or none that can be read.
        known = {"status": status, "stop_reason": reason} if self._failed else {}
        try:
            run = {**open_session(folder).run, **known}
            sentence = str(run.get("stop_sentence", ""))
            self._show_run(run)
        except RbcflowError as error:
            failure = [end_words(status, reason, self._n)] if self._failed else []
            self.warnings.say(grave=[*failure, *self.warnings.grave, str(error)])
        self._show_ending(status, reason, remarks, sentence)

    def show_session(self, session: Session) -> None:
        """Show a session on disk instead of what was shown before.

        Raises
        ------
        RbcflowError
            Where it cannot be read; nothing of it is shown then.
        """
        counted, figure, changed = session.counted, session.fraction, by_hand(session)
        self.clear()
        run = session.run
        self.show_whose(str(run["patient"]), str(run["sample"]))
        self.curve.add(counted.astype("uint8").tobytes())
        self._show_run({**run, "fraction": vars(figure)})
        self.show_by_hand(changed)
        self.links.show_folder(session.folder)
        self._failed = run["status"] == "failed"
        ended = str(run["status"]), str(run["stop_reason"])
        self._show_ending(*ended, (), str(run.get("stop_sentence", "")))

    def show_fault(self, sentence: str) -> None:
        """Show, above all else, that something went wrong; a number that stands there is greyed."""
        self._draw_waiting()
        self._failed = True
        self._end_progress()
        set_text(self.end, "")
        self.warnings.say(grave=[sentence, *self.warnings.grave])
        self._shade(doubtful=True)

    def show_by_hand(self, figure: FractionFigure | None) -> None:
        """Show the number with a person's changes beside the machine's; None where there are none."""
        few = too_few_words(figure.n) if figure is not None else ""
        self._few_by_hand = bool(few)
        if figure is None:
            set_text(self.by_hand, "")
        elif figure.estimate is None or figure.low is None or figure.high is None:
            set_text(self.by_hand, "With the changes by hand: no reliable cell is left.")
        else:
            set_text(
                self.by_hand,
                f"With the changes by hand: <b>{percent(figure.estimate)}</b>"
                f" ({interval_words(figure.low, figure.high)},"
                f" {cells_words(figure.level, figure.n)}; {one_look_words(figure.method)})"
                + (f"<br>{few}" if few else ""),
            )
        self._shade(doubtful=self._doubtful)

    # ------------------------------------------------------------------ how it is drawn

    def draw_now(self) -> None:
        """Draw what waits, beside something else in the window that is drawn anyway.

        Whatever is drawn, Qt composes the whole window anew (33 ms of CPU at 1500 x 950 without a GPU).
        """
        self._slow.stop()
        self._draw_waiting()

    def _draw_waiting(self) -> None:
        if self._waiting is None:
            return
        progress, warnings = self._waiting
        self._waiting = None
        counted = bytes(self._counted)
        self._counted.clear()
        self.curve.add(counted)
        self.counts.show_counts(progress.cells, progress.n, progress.open_tracks)
        self.counts.show_frames(
            progress.frames_per_s,
            progress.dropped,
            progress.missed,
            dropped_by=progress.dropped_by,
            missed_by=progress.missed_by,
        )
        grave = grave_so_far(progress)
        self.warnings.say(grave=[*(self.warnings.grave if self._failed else ()), *grave])
        self.notes.say(mild=mild_so_far(progress, warnings))
        self.quality.show_lines(progress.quality)
        low, high = progress.interval
        estimate = None if math.isnan(progress.estimate) else progress.estimate
        self._show_number(FractionFigure(estimate, low, high, progress.level, progress.method, progress.n))
        set_text(self.doubt, too_few_line(progress.n) if progress.n else "")
        self._shade(doubtful=bool(grave) or progress.n < FEW_CELLS)
        self._show_left(progress)
        self._slow.start(REFRESH_MS)

    def _show_left(self, progress: Progress) -> None:
        share = progress.stop_share
        if self.progress.isHidden() != (share is None):
            self.progress.setVisible(share is not None)
        if share is not None:
            self.progress.show_share(share)
        set_text(self.left, left_words(progress).replace("\n", "<br>"))

    def _show_number(self, figure: FractionFigure) -> None:
        """Show a fraction, never without its interval."""
        self._n = figure.n
        if self.curve.isHidden():
            self.curve.show()
        set_text(self.caption, "tank-treading fraction")
        if not figure.n or figure.estimate is None or figure.low is None or figure.high is None:
            set_text(self.number, "")
            set_text(self.interval, _NONE_YET)
            set_text(self.cells, "")
            return
        set_text(self.number, percent(figure.estimate))
        set_text(self.interval, interval_words(figure.low, figure.high))
        set_text(self.cells, cells_words(figure.level, figure.n, figure.method).replace("\n", "<br>"))
        self.cells.setToolTip(METHOD_HELP.get(figure.method, ""))

    def _show_run(self, run: Mapping[str, Any]) -> None:
        """Show what ``run.json`` says; counts and warnings in the report's words."""
        frames, cells, fraction = run["frames"], run["cells"], run["fraction"]
        figure = FractionFigure(**fraction)
        self._show_number(figure)
        if figure.low is not None and figure.high is not None:
            self.curve.show_said(figure.low, figure.high)
        self.counts.show_counts(cells, fraction["n"], 0)
        # What a camera still sent after the stop is not lost to the number.
        dropped = {why: n for why, n in frames["dropped"].items() if why != AFTER_STOP}
        missed = frames["missed"]
        self.counts.show_frames(
            None, sum(dropped.values()), sum(missed.values()), dropped_by=dropped, missed_by=missed
        )
        grave = grave_warnings(run)
        self.warnings.say(grave=grave)
        self.notes.say(mild=mild_warnings(run))
        self.quality.show_lines(quality_lines(run, warnings_of_run(run)))
        set_text(self.doubt, "Read the warning above first." if grave and fraction["n"] else "")
        corrected = corrected_words(run.get("fraction_corrected") or {})
        set_text(self.corrected, breakable(corrected) if fraction["n"] else "")
        self._shade(doubtful=bool(grave))

    def _show_ending(self, status: str, reason: str, remarks: Sequence[str], sentence: str) -> None:
        # A failure stands in red above the number: said once.
        set_text(
            self.end,
            "Results up to that moment were saved."
            if status == "failed"
            else breakable(end_words(status, reason, self._n, sentence)),
        )
        if not self._n:
            set_text(self.interval, "no number: no reliable cell")
        set_text(self.remarks, "<br>".join(breakable(remark) for remark in remarks))
        self._shade(doubtful=self._failed or bool(self.warnings.grave))

    def _end_progress(self) -> None:
        self.progress.hide()
        set_text(self.left, "")

    def _shade(self, *, doubtful: bool) -> None:
        """Grey every number that must not be acted on."""
        self._doubtful = doubtful
        dim = doubtful and self._n > 0
        for label, style, grey in (
            (self.number, _NUMBER, dim),
            (self.interval, _INTERVAL, dim),
            (self.corrected, _CORRECTED, dim),
            (self.by_hand, _BY_HAND, dim or self._few_by_hand),
        ):
            wanted = style + (_DIM if grey else "")
            if label.styleSheet() != wanted:
                label.setStyleSheet(wanted)
