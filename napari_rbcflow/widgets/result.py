"""The verdict on a run, its number where that is a result, and all that a person must know beside it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from qtpy.QtCore import QEvent, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.estimate import (
    AFTER_STOP,
    ANYTIME,
    RuleProgress,
    end_sentence,
    method_help,
    method_words,
    time_words,
)
from napari_rbcflow.pipeline import Progress
from napari_rbcflow.quality import quality_lines, warnings_of_run
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    Conclusion,
    FractionFigure,
    Session,
    conclude,
    corrected_words,
    grave_warnings,
    mild_warnings,
    open_session,
    too_few_words,
)
from napari_rbcflow.trend import keep_control
from napari_rbcflow.types import StopReason, Verdict
from napari_rbcflow.widgets.label_styles import INKS
from napari_rbcflow.widgets.panel import ElidingLabel, WarningBox, breakable, set_text, wrapping_label
from napari_rbcflow.widgets.result_parts import BANNER, QualityTable, SessionLinks, ShareBar, VerdictBox
from napari_rbcflow.widgets.result_plots import CountsTable, FractionCurve

_RULES = {
    "reliable": say("viewer.rule-reliable"),
    "half-width": say("viewer.rule-half-width"),
    "seconds": say("viewer.rule-seconds"),
    "tracks": say("viewer.rule-tracks"),
    "baseline": say("viewer.rule-baseline"),
}
# Of these rules, what is missing is not a number that counts down.
_NOT_COUNTED_DOWN = ("half-width", "baseline")


def percent(share: float) -> str:
    """Return a share in whole per cent; with one decimal where that would pretend to be none or all."""
    whole = f"{100 * share:.0f}"
    if whole in ("0", "100") and 0 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
    return f"{whole} %"


def interval_words(low: float, high: float) -> str:
    """Return an interval in whole per cent, rounded outwards: never narrower than it is."""
    # A thousandth of a point is lost in floating point before it is rounded.
    return say("viewer.interval", low=math.floor(100 * low + 1e-3), high=math.ceil(100 * high - 1e-3))


def cells_words(level: float, n: int) -> str:
    """Say what kind of interval it is, and from how many cells."""
    return say("viewer.from-cells", level=100 * level, cells=n)


def end_words(status: str, reason: str, n: int, sentence: str = "") -> str:
    """Say how a run ended; `sentence` is what the rule that stopped it found, as in ``run.json``."""
    if status == "failed":
        return say("quality.warn-failed", reason=reason)
    if status == "running":
        return say("report.run-not-ended")
    return end_sentence(reason, n, sentence)


def left_words(progress: Progress) -> str:
    """Say what will stop a run, each rule on a line of its own, and how long it takes at the present rate."""
    lines = []
    if progress.total_frames:
        lines.append(say("viewer.frame-of", frame=progress.processed, frames=progress.total_frames))
    elif not progress.rules:
        return say("viewer.goes-on")
    timed = progress.seconds_left is not None
    # Never two times side by side: the one left is that of the nearest rule.
    lines += [_rule_words(rule) for rule in progress.rules if not (timed and rule.name == StopReason.SECONDS)]
    if progress.seconds_left is not None:
        lines.append(say("viewer.time-left", time=time_words(progress.seconds_left)))
    return "\n".join(lines)


def _rule_words(rule: RuleProgress) -> str:
    title = _RULES.get(rule.name, rule.name)
    if not rule.missing:
        return say("viewer.rule-reached", rule=title)
    key = "viewer.rule-missing" if rule.name in _NOT_COUNTED_DOWN else "viewer.rule-to-go"
    return say(key, rule=title, missing=rule.missing)


# Nobody reads numbers that change more often.
REFRESH_MS = 600
_NUMBER = "font-size: 92px; font-weight: 700; padding: 0px 4px; margin: 0px;"
_INTERVAL = "font-size: 40px; font-weight: 600; padding: 0px 4px;"
_PLAIN = "font-size: 16px; padding: 0px 4px;"
# What nobody may copy as the result: small once the run has ended, and grey.
_SO_FAR = "font-size: 22px; padding: 0px 4px;"
_DETAIL = "font-size: 13px; padding: 0px 4px;"
_SMALL_PRINT = "<span style='font-size: 13px'>{}</span>"


_PLUGIN = "napari-rbcflow"
_ASK_MS = 100


def _ask_control(folder: Path, answer: SimpleQueue[str]) -> None:
    """Ask in a thread: of all sessions beside it, which may lie on a slow disk.

    The thread knows nothing of the panel: what it held last, it would destroy, and Qt ends a program whose
    widgets are destroyed in another thread than its own.
    """
    answer.put(keep_control(folder))


def review_dock() -> str:
    """Return the name of the dock in which cells are checked; empty where the plugin is off."""
    from npe2 import PluginManager

    plugins = PluginManager.instance()
    if _PLUGIN not in plugins or plugins.is_disabled(_PLUGIN):
        return ""
    docks = plugins.get_manifest(_PLUGIN).contributions.widgets or ()
    return next((dock.display_name for dock in docks if dock.command == f"{_PLUGIN}.review"), "")


class ResultPanel(QWidget):
    """A run's verdict, its number where that is a result, its curve, its counts, its warnings and its end.

    `clear`, then `show_progress` as often as you like, then `show_end`; or `show_session` alone, for a
    session on disk. `check_cells` is emitted with the session's folder when a person wants to check cells;
    `offer_check` opens the dock for it. `head` is the verdict, the number and how far it is to the stop;
    with `head_apart` it is not in the panel, for a place where it is always seen.
    """

    check_cells = Signal(object)

    def __init__(self, parent: QWidget | None = None, *, head_apart: bool = False) -> None:
        super().__init__(parent)
        self._review_dock = ""
        self._review: QWidget | None = None
        # What forbids acting on the number is above it, milder notes at the end.
        self.warnings, self.notes = WarningBox(), WarningBox()
        self.banner = wrapping_label(BANNER)
        self.whose = ElidingLabel("font-size: 18px; font-weight: 600; padding: 0px 4px;")
        self.verdict = VerdictBox()
        self.caption = wrapping_label(_PLAIN)
        self.number = wrapping_label(_NUMBER)
        self.interval = wrapping_label(_INTERVAL)
        self.cells = wrapping_label(_PLAIN)
        self.so_far = wrapping_label()
        self.machine = wrapping_label()
        self.corrected = wrapping_label()
        self.by_hand = wrapping_label()
        self.end = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.remarks = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.control = wrapping_label("font-size: 14px; padding: 0px 4px;")
        self.progress = ShareBar()
        self.left = wrapping_label(_PLAIN)
        self.curve = FractionCurve()
        self.counts = CountsTable()
        self.quality = QualityTable()
        self.links = SessionLinks()
        self.open_folder, self.open_report = self.links.open_folder, self.links.open_report
        self.verdict.check.clicked.connect(self._check_pressed)

        # Warnings come below what is read all the time, which stays where it is.
        self.head = QWidget()
        column = QVBoxLayout(self.head)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        for widget in (
            self.banner,
            self.whose,
            self.verdict,
            self.caption,
            self.number,
            self.interval,
            self.so_far,
            self.cells,
            self.progress,
            self.left,
        ):
            column.addWidget(widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(2, 0, 6, 0)
        column.setSpacing(3)
        if head_apart:
            # As high as its lines at the width there is; its least height is that at the least width.
            self.head.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)
        else:
            column.addWidget(self.head)
        for part in (
            self.warnings,
            self.end,
            self.remarks,
            self.control,
            self.links,
            self.curve,
            self.machine,
            self.corrected,
            self.by_hand,
            self.counts,
            self.quality,
            self.notes,
        ):
            column.addWidget(part)
        column.addStretch(1)
        self._slow = QTimer(self)
        self._slow.setSingleShot(True)
        self._slow.timeout.connect(self._draw_waiting)
        self._asking = QTimer(self)
        self._asking.setInterval(_ASK_MS)
        self._asking.timeout.connect(self._take_control)
        self._take_colours()
        self.clear()

    def changeEvent(self, event: QEvent) -> None:
        """Follow the viewer's theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange) and hasattr(self, "_slow"):
            self._take_colours()

    def _take_colours(self) -> None:
        quiet = f" color: {INKS['quiet'].on(self.palette()).name()};"
        for label, style in (
            (self.so_far, _SO_FAR),
            (self.machine, _DETAIL),
            (self.corrected, _DETAIL),
            (self.by_hand, _DETAIL),
        ):
            if label.styleSheet() != style + quiet:
                label.setStyleSheet(style + quiet)

    # ------------------------------------------------------------------ what is shown

    def clear(self) -> None:
        """Forget the run shown before."""
        self._slow.stop()
        self._asking.stop()
        self._waiting: tuple[Progress, tuple[str, ...]] | None = None
        self._counted = bytearray()
        self._failed = False
        self._n = 0
        self.curve.clear()
        self.curve.hide()
        self.counts.clear()
        self.quality.clear()
        self.curve.set_target(None)
        self.warnings.clear()
        self.notes.clear()
        for label in (
            self.banner,
            self.whose,
            self.caption,
            self.number,
            self.interval,
            self.cells,
            self.so_far,
            self.machine,
            self.corrected,
            self.by_hand,
            self.end,
            self.remarks,
            self.control,
            self.left,
        ):
            set_text(label, "")
        self.verdict.clear()
        self.verdict.show_words(None, say("viewer.no-run"), "")
        self.links.clear()
        self.progress.hide()

    def show_whose(self, patient: str, sample: str) -> None:
        """Say whose number it is, so that nobody takes it for the next patient's."""
        names = [part for part in (patient.strip(), sample.strip()) if part]
        set_text(self.whose, " · ".join(names) or say("viewer.unnamed"))

    def show_starting(self, patient: str, sample: str) -> None:
        """Say that a run of theirs, or the reading of its session, begins."""
        self.show_whose(patient, sample)
        self.verdict.show_words(None, say("viewer.starting"), "")

    def show_simulated(self, simulated: bool) -> None:
        """Say above all else where the frames are not a camera's or a recording's."""
        set_text(self.banner, say("viewer.banner-simulated") if simulated else "")

    def set_target(self, half_width: float | None) -> None:
        """Show in the curve how narrow the interval must get, where a stop rule asks for it."""
        self.curve.set_target(half_width)

    def show_progress(self, progress: Progress, counted: bytes, warnings: Sequence[str]) -> None:
        """Show how a run stands, every `REFRESH_MS` at most. `counted` is what came since the last call."""
        self._counted += counted
        self._waiting = (progress, tuple(warnings))
        if not self._slow.isActive():
            self._draw_waiting()

    def show_end(self, status: str, reason: str, folder: Path, remarks: Sequence[str] = ()) -> None:
        """Show how a run ended, what its session says, and remarks, such as a simulation's own fraction."""
        self._draw_waiting()
        self._slow.stop()
        self._end_progress()
        self.links.show_folder(folder)
        self._failed = status == "failed"
        sentence = ""
        # A run that failed may have left a file that still says it goes on, or none that can be read.
        known = {"status": status, "stop_reason": reason} if self._failed else {}
        try:
            session = open_session(folder)
            run = {**session.run, **known}
            sentence = str(run.get("stop_sentence", ""))
            self._show_run(run)
            self._show_conclusion(conclude(run) if self._failed else session.conclusion)
        except RbcflowError as error:
            failure = [end_words(status, reason, self._n)] if self._failed else []
            self.warnings.say(grave=[*failure, *self.warnings.grave, str(error)])
            self._show_conclusion(Conclusion(Verdict.NO_RESULT, str(error)))
        self._show_ending(status, reason, remarks, sentence)
        self._control: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=_ask_control, args=(folder, self._control), daemon=True).start()
        self._asking.start()

    def _take_control(self) -> None:
        if not self._control.empty():
            self._asking.stop()
            self._show_control(self._control.get())

    def _show_control(self, words: str) -> None:
        """Say whether the control sample of the day was in order, or why not."""
        set_text(self.control, breakable(say("report.control", words=words)) if words else "")

    def show_session(self, session: Session) -> None:
        """Show a session on disk; an RbcflowError where it cannot be read, and nothing of it is shown."""
        counted, figure, changed = session.counted, session.fraction, session.fraction_by_hand
        conclusion = session.conclusion
        self.clear()
        run = session.run
        self.show_whose(str(run["patient"]), str(run["sample"]))
        self.curve.add(counted.astype("uint8").tobytes())
        self._show_run({**run, "fraction": vars(figure)})
        self.show_by_hand(changed)
        self.links.show_folder(session.folder)
        self._failed = run["status"] == "failed"
        self._show_conclusion(conclusion)
        self._show_control(run.get("control", ""))
        ended = str(run["status"]), str(run["stop_reason"])
        self._show_ending(*ended, (), str(run.get("stop_sentence", "")))

    def offer_check(self, viewer: Any, report_errors: Callable[..., Any]) -> None:
        """Offer to check cells where there is a dock for that."""

        def check(folder: Path) -> None:
            _, review = viewer.window.add_plugin_dock_widget(_PLUGIN, self._review_dock)
            if review is not self._review:
                self._review = review
                # A slot of the panel itself, which Qt forgets with it: the check may go on without this dock.
                review.reviewed.connect(self._reviewed)
            review.open_session(folder)

        self._review_dock, self._report_errors = review_dock(), report_errors
        self.check_cells.connect(report_errors(check))

    def _reviewed(self, folder: Path) -> None:
        self._report_errors(self._conclude_again)(folder)

    def _conclude_again(self, folder: Path) -> None:
        """Show the verdict of the same session anew, after a person has checked cells of it."""
        if folder == self.links.folder:
            self._show_conclusion(open_session(folder).conclusion)

    def show_fault(self, sentence: str) -> None:
        """Show, above all else, that something went wrong; then nothing is a result."""
        self._draw_waiting()
        self._failed = True
        self._end_progress()
        set_text(self.end, "")
        self.warnings.say(grave=[sentence, *self.warnings.grave])
        self._show_conclusion(Conclusion(Verdict.NO_RESULT, sentence, simulated=bool(self.banner.text())))

    def show_by_hand(self, figure: FractionFigure | None) -> None:
        """Show the number with a person's changes among the details; None where there are none."""
        if figure is None:
            set_text(self.by_hand, "")
        elif figure.estimate is None or figure.low is None or figure.high is None:
            set_text(self.by_hand, say("viewer.by-hand-none"))
        else:
            at_once = figure.method == ANYTIME
            number = say(
                "viewer.by-hand",
                percent=percent(figure.estimate),
                interval=interval_words(figure.low, figure.high),
                cells=cells_words(figure.level, figure.n),
                method=say("viewer.at-once") if at_once else method_words(figure.method).split(":")[0],
            )
            set_text(self.by_hand, "<br>".join(filter(None, (number, too_few_words(figure.n)))))

    # ------------------------------------------------------------------ how it is drawn

    def draw_now(self) -> None:
        """Draw what waits, beside something else that is drawn: Qt then composes the whole window anyway."""
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
        warned = progress.warned or ()
        grave = [warning.sentence for warning in warned if warning.grave]
        mild = [warning.sentence for warning in warned if not warning.grave]
        self.warnings.say(grave=[*(self.warnings.grave if self._failed else ()), *grave])
        self.notes.say(mild=[*mild, *(warning for warning in warnings if warning not in grave)])
        self.quality.show_lines(progress.quality)
        self._show_so_far(progress)
        self._show_left(progress)
        self._slow.start(REFRESH_MS)

    def _show_left(self, progress: Progress) -> None:
        share = progress.stop_share
        if self.progress.isHidden() != (share is None):
            self.progress.setVisible(share is not None)
        if share is not None:
            self.progress.show_share(share)
        set_text(self.left, left_words(progress).replace("\n", "<br>"))

    def _show_so_far(self, progress: Progress) -> None:
        """Show the number of a run that goes on, never without its interval, and that nobody checked it."""
        self._n = progress.n
        if self.curve.isHidden():
            self.curve.show()
        if not progress.n:
            set_text(self.so_far, "")
            set_text(self.cells, "")
            self.verdict.show_words(None, say("viewer.no-cell-yet"), "")
            return
        number = {"percent": percent(progress.estimate), "interval": interval_words(*progress.interval)}
        set_text(self.so_far, say("viewer.number-so-far", **number))
        small_print = _SMALL_PRINT.format(method_words(progress.method)) if progress.method else ""
        cells = cells_words(progress.level, progress.n)
        set_text(self.cells, "<br>".join(filter(None, (cells, small_print))))
        self.cells.setToolTip(method_help(progress.method))
        # Until the run has told its verdict, it has been checked by nobody either.
        grave = progress.verdict is Verdict.NO_RESULT and bool(self.warnings.grave)
        verdict = Verdict.NO_RESULT if grave else Verdict.PROVISIONAL
        self.verdict.show_words(verdict, say("viewer.so-far"), "")

    def _show_conclusion(self, conclusion: Conclusion) -> None:
        """Show the verdict, and the number where it is a result."""
        self.show_simulated(conclusion.simulated)
        set_text(self.so_far, "")
        figure = conclusion.headline
        known = figure is not None and None not in (figure.estimate, figure.low, figure.high)
        for label in () if known else (self.caption, self.number, self.interval, self.cells):
            set_text(label, "")
        if figure is not None and known:
            set_text(self.caption, say("viewer.caption"))
            set_text(self.number, percent(figure.estimate or 0.0))
            set_text(self.interval, interval_words(figure.low or 0.0, figure.high or 0.0))
            level = 100 * figure.level
            set_text(self.cells, say("viewer.of-checked-cells", level=level, why=conclusion.why))
            self.cells.setToolTip(conclusion.todo)
            self.verdict.show_words(conclusion.verdict, "", "")
        else:
            # A sentence that stands among the warnings is not said twice.
            why = "" if conclusion.why in self.warnings.grave else conclusion.why
            self.verdict.show_words(conclusion.verdict, conclusion.todo, why)
        there = self.links.folder is not None and bool(self._review_dock)
        self.verdict.check.setVisible(there and conclusion.verdict is Verdict.PROVISIONAL)

    def _show_run(self, run: Mapping[str, Any]) -> None:
        """Show what ``run.json`` says; counts and warnings in the report's words."""
        frames, cells, fraction = run["frames"], run["cells"], run["fraction"]
        figure = FractionFigure(**fraction)
        self._n = figure.n
        if self.curve.isHidden():
            self.curve.show()
        set_text(self.machine, _machine_words(figure))
        self.machine.setToolTip(method_help(figure.method))
        if figure.low is not None and figure.high is not None:
            self.curve.show_final(figure.low, figure.high)
        self.counts.show_counts(cells, fraction["n"], 0)
        # What a camera still sent after the stop is not lost to the number.
        dropped = {why: n for why, n in frames["dropped"].items() if why != AFTER_STOP}
        missed = frames["missed"]
        self.counts.show_frames(
            None, sum(dropped.values()), sum(missed.values()), dropped_by=dropped, missed_by=missed
        )
        self.warnings.say(grave=grave_warnings(run))
        self.notes.say(mild=mild_warnings(run))
        self.quality.show_lines(quality_lines(run, warnings_of_run(run)))
        corrected = corrected_words(run.get("fraction_corrected") or {}, run.get("calibration"))
        set_text(self.corrected, breakable(corrected) if fraction["n"] else "")

    def _show_ending(self, status: str, reason: str, remarks: Sequence[str], sentence: str) -> None:
        # A failure stands in red already: said once.
        set_text(
            self.end,
            say("viewer.saved-so-far")
            if status == "failed"
            else breakable(end_words(status, reason, self._n, sentence)),
        )
        set_text(self.remarks, "<br>".join(breakable(remark) for remark in remarks))

    def _end_progress(self) -> None:
        self.progress.hide()
        set_text(self.left, "")

    def _check_pressed(self) -> None:
        if self.links.folder is not None:
            self.check_cells.emit(self.links.folder)


def _machine_words(figure: FractionFigure) -> str:
    if figure.estimate is None or figure.low is None or figure.high is None:
        return ""
    return say(
        "viewer.machine-number",
        percent=percent(figure.estimate),
        interval=interval_words(figure.low, figure.high),
        cells=cells_words(figure.level, figure.n),
        method=method_words(figure.method),
    )
