"""The number and all that a person must know beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate.tally import AFTER_STOP
from napari_rbcflow.pipeline.status import Progress
from napari_rbcflow.quality.monitor import warnings_of_run
from napari_rbcflow.quality.summary import quality_lines
from napari_rbcflow.session.counting import corrected_words
from napari_rbcflow.session.label_edits import by_hand
from napari_rbcflow.session.reader import Session, open_session
from napari_rbcflow.session.schema import (
    FEW_CELLS,
    FractionFigure,
    grave_warnings,
    mild_warnings,
    too_few_words,
)
from napari_rbcflow.widgets.labels import breakable, say, wrapping_label
from napari_rbcflow.widgets.result import words as words
from napari_rbcflow.widgets.result.counts_table import CountsTable
from napari_rbcflow.widgets.result.fraction_curve import FractionCurve
from napari_rbcflow.widgets.result.quality import QualityTable
from napari_rbcflow.widgets.result.session_links import SessionLinks
from napari_rbcflow.widgets.result.share_bar import ShareBar
from napari_rbcflow.widgets.theme import LOOKS, STRUCK_OUT
from napari_rbcflow.widgets.warning_box import WarningBox

REFRESH_MS = 600
"""Nobody reads numbers that change more often."""
_NUMBER = "font-size: 92px; font-weight: 700; padding: 0px 4px; margin: 0px;"
_INTERVAL = "font-size: 40px; font-weight: 600; padding: 0px 4px;"
_PLAIN = "font-size: 16px; padding: 0px 4px;"
_CORRECTED = "font-size: 13px;"
_BY_HAND = f"font-size: 18px; border-left: 4px solid {LOOKS[STRUCK_OUT].colour}; padding-left: 8px;"
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
            say(label, "")
        say(self.remarks, "")
        say(self.left, "")
        say(self.caption, "")
        say(self.number, "")
        say(self.interval, "no run yet")
        self.links.clear()
        self.progress.hide()

    def show_whose(self, patient: str, sample: str) -> None:
        """Say whose number it is, so that nobody takes it for the next patient's."""
        said = [part for part in (patient.strip(), sample.strip()) if part]
        say(self.whose, " · ".join(breakable(part) for part in said) or "unnamed sample")

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
            failure = [words.end_words(status, reason, self._n)] if self._failed else []
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
        say(self.end, "")
        self.warnings.say(grave=[sentence, *self.warnings.grave])
        self._shade(doubtful=True)

    def show_by_hand(self, figure: FractionFigure | None) -> None:
        """Show the number with a person's changes beside the machine's; None where there are none."""
        few = too_few_words(figure.n) if figure is not None else ""
        self._few_by_hand = bool(few)
        if figure is None:
            say(self.by_hand, "")
        elif figure.estimate is None or figure.low is None or figure.high is None:
            say(self.by_hand, "With the changes by hand: no reliable cell is left.")
        else:
            say(
                self.by_hand,
                f"With the changes by hand: <b>{words.percent(figure.estimate)}</b>"
                f" ({words.interval_words(figure.low, figure.high)},"
                f" {words.cells_words(figure.level, figure.n)}; {words.one_look_words(figure.method)})"
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
        grave = words.grave_so_far(progress)
        self.warnings.say(grave=[*(self.warnings.grave if self._failed else ()), *grave])
        self.notes.say(mild=words.mild_so_far(progress, warnings))
        self.quality.show_lines(progress.quality)
        low, high = progress.interval
        estimate = None if math.isnan(progress.estimate) else progress.estimate
        self._show_number(FractionFigure(estimate, low, high, progress.level, progress.method, progress.n))
        say(self.doubt, words.too_few_words(progress.n) if progress.n else "")
        self._shade(doubtful=bool(grave) or progress.n < FEW_CELLS)
        self._show_left(progress)
        self._slow.start(REFRESH_MS)

    def _show_left(self, progress: Progress) -> None:
        share = progress.stop_share
        if self.progress.isHidden() != (share is None):
            self.progress.setVisible(share is not None)
        if share is not None:
            self.progress.show_share(share)
        say(self.left, words.left_words(progress).replace("\n", "<br>"))

    def _show_number(self, figure: FractionFigure) -> None:
        """Show a fraction, never without its interval."""
        self._n = figure.n
        if self.curve.isHidden():
            self.curve.show()
        say(self.caption, "tank-treading fraction")
        if not figure.n or figure.estimate is None or figure.low is None or figure.high is None:
            say(self.number, "")
            say(self.interval, _NONE_YET)
            say(self.cells, "")
            return
        say(self.number, words.percent(figure.estimate))
        say(self.interval, words.interval_words(figure.low, figure.high))
        say(self.cells, words.cells_words(figure.level, figure.n, figure.method).replace("\n", "<br>"))

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
        say(self.doubt, "Read the warning above first." if grave and fraction["n"] else "")
        corrected = corrected_words(run.get("fraction_corrected") or {})
        say(self.corrected, breakable(corrected) if fraction["n"] else "")
        self._shade(doubtful=bool(grave))

    def _show_ending(self, status: str, reason: str, remarks: Sequence[str], sentence: str) -> None:
        # A failure stands in red above the number: said once.
        say(
            self.end,
            "What is shown was kept up to then."
            if status == "failed"
            else breakable(words.end_words(status, reason, self._n, sentence)),
        )
        if not self._n:
            say(self.interval, "no number: no reliable cell")
        say(self.remarks, "<br>".join(breakable(remark) for remark in remarks))
        self._shade(doubtful=self._failed or bool(self.warnings.grave))

    def _end_progress(self) -> None:
        self.progress.hide()
        say(self.left, "")

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
