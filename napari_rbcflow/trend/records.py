"""Finds and reads session folders, one record a session, and checks that they were measured alike."""

from __future__ import annotations

import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.sentences import say
from napari_rbcflow.session import RUN_FILE as RUN_NAME
from napari_rbcflow.session import (
    FractionFigure,
    Session,
    grave_warnings,
    is_simulated,
    open_session,
)
from napari_rbcflow.types import LEAST_FRAMES, Verdict


@dataclass(frozen=True)
class Span:
    """Days from `first` to `last`, both included; None is open. BadInput if it ends before it begins."""

    first: date | None
    last: date | None

    def __post_init__(self) -> None:
        if self.first is not None and self.last is not None and self.last < self.first:
            raise BadInput("trend.days-backwards", days=self, how=say("trend.how-to-write-days"))

    def __contains__(self, day: date) -> bool:
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    def __str__(self) -> str:
        if self.first == self.last and self.first is not None:
            return str(self.first)
        return f"{self.first or ''}:{self.last or ''}"


def parse_span(text: str) -> Span:
    """Return the days of ``FROM:TO``, ``FROM:``, ``:TO`` or ``DATE``; BadInput for anything else."""
    first, colon, last = text.strip().partition(":")
    if not (first.strip() or last.strip()):
        raise BadInput("trend.not-days", text=text, how=say("trend.how-to-write-days"))
    begin = _date(first, text)
    return Span(begin, _date(last, text) if colon else begin)


def parse_spans(text: str) -> tuple[Span, ...]:
    """Return several spans that are separated by commas, semicolons or spaces."""
    return tuple(parse_span(part) for part in text.replace(",", " ").replace(";", " ").split())


def within(day: date, spans: Iterable[Span]) -> bool:
    """Whether a day is in one of these spans."""
    return any(day in span for span in spans)


def _date(text: str, whole: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        how = say("trend.how-to-write-days")
        raise BadInput("trend.not-a-date", text=whole, date=text.strip(), how=how) from None


@dataclass(frozen=True)
class Record:
    """What a trend uses of one session.

    Attributes
    ----------
    folder : Path
    started : datetime
        With its offset from UTC; its day is the one of local time.
    patient, sample, status : str
    pixel_size_um : float or None
    figure : FractionFigure
        The machine's number.
    corrected, by_hand : FractionFigure or None
    doubt : str
        Why the number cannot be compared at all; empty if it can.
    verdict : Verdict
    headline : FractionFigure or None
        The number of a result.
    networks : tuple of str
        The hashes of both.
    movie : str
        The file that was analysed; empty for a live run.
    remark : str
        A sentence about the session; empty if there is none.
    shear_rate_per_s, focus_height_um : float
        As they were set.
    least_frames : int
        Fewest frames of a counted track.
    leave_out_intruded : bool
        Whether tracks were judged without the frames in which another cell was in the crop.
    simulated : bool
        Whether its frames were not a camera's or a recording's.
    instrument : str
        Its serial number, by the run's record.
    control_lot : str
        Of the control sample; empty for a patient's.
    """

    folder: Path
    started: datetime
    patient: str
    sample: str
    status: str
    pixel_size_um: float | None
    figure: FractionFigure
    corrected: FractionFigure | None = None
    by_hand: FractionFigure | None = None
    doubt: str = ""
    networks: tuple[str, ...] = ()
    movie: str = ""
    remark: str = ""
    # Sessions that do not tell have these.
    shear_rate_per_s: float = SetFlow().shear_rate_per_s
    focus_height_um: float = SetFlow().focus_height_um
    least_frames: int = LEAST_FRAMES
    leave_out_intruded: bool = False
    simulated: bool = False
    verdict: Verdict = Verdict.PROVISIONAL
    headline: FractionFigure | None = None
    instrument: str = ""
    control_lot: str = ""

    @property
    def named(self) -> str:
        """The name of its folder."""
        return self.folder.name or str(self.folder)


@dataclass(frozen=True)
class Gathered:
    """All sessions of some folders.

    Attributes
    ----------
    records : tuple of Record
        Of patients, by start.
    notes : tuple of str
        What else a person must know, such as a session that could not be read.
    controls : tuple of Record
        Of control samples, by start.
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    controls: tuple[Record, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        """Names, the one measured last first; empty for sessions without one."""
        return tuple(dict.fromkeys(record.patient for record in reversed(self.records)))


def gather(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> Gathered:
    """Read sessions.

    Parameters
    ----------
    paths : sequence of Path
        Sessions, or folders that hold sessions, one level down. A session given twice counts once.
    progress : callable, optional
        Called with the numbers of sessions read and of all.

    Raises
    ------
    BadInput
        If there is no session, or one that was named itself cannot be used; or if all that were found in
        folders were simulated.
    """
    named, found = find_sessions(paths)
    records: list[Record] = []
    notes: list[str] = []
    everything = [*named, *found]
    for k, folder in enumerate(everything):
        try:
            records.append(read_record(folder))
        except Exception as error:  # damage can do anything
            known = isinstance(error, RbcflowError)
            why = error if known else BadInput("trend.run-damaged", folder=folder)
            if folder in named:
                raise why from error
            notes.append(say("trend.session-left-out", why=why))
        if progress is not None:
            progress(k + 1, len(everything))
    if not records:
        raise BadInput.told(" ".join(notes) or say("trend.no-session"), "trend.no-session")
    records, said = _of_patients(records, all_named=not found)
    notes += said
    records.sort(key=lambda record: (record.started, str(record.folder)))
    return without_copies(records, notes)


def _of_patients(records: list[Record], *, all_named: bool) -> tuple[list[Record], list[str]]:
    """Leave out what was simulated, and say so: it must never enter a patient's baseline.

    Where nothing else is there, it is shown as a demonstration, if a person named each session.
    """
    real = [record for record in records if not record.simulated]
    simulated = len(records) - len(real)
    if not simulated:
        return real, []
    if real:
        return real, [say("trend.simulated-left-out", sessions=simulated)]
    if not all_named:
        raise BadInput("trend.only-simulated")
    return records, [say("trend.all-simulated")]


def find_sessions(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Find the sessions of some folders.

    Parameters
    ----------
    paths : sequence of Path
        Sessions, or folders that hold sessions, one level down.

    Returns
    -------
    named, found : list of Path
        Those that were named themselves, and those that were found in others; none twice.

    Raises
    ------
    BadInput
        If there is none, or a folder cannot be read.
    """
    if not paths:
        raise BadInput("trend.no-session")
    named: dict[str, Path] = {}
    found: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        if path.name == RUN_NAME and path.is_file():
            path = path.parent
        if not path.is_dir() or (path / RUN_NAME).exists():
            named[_real(path)] = path  # opening it tells whether it is a session
            continue
        try:
            inside = sorted(entry for entry in path.iterdir() if _holds_a_run(entry))
        except OSError as error:
            raise BadInput("trend.folder-unreadable", folder=path, why=error.strerror) from None
        if not inside:
            raise BadInput("trend.holds-no-session", folder=path)
        found.update((_real(entry), entry) for entry in inside)
    return list(named.values()), [path for real, path in found.items() if real not in named]


def _holds_a_run(folder: Path) -> bool:
    try:
        return (folder / RUN_NAME).is_file()
    except PermissionError:
        return True  # so that it is reported, not overlooked


def _real(path: Path) -> str:
    return os.path.normcase(path.resolve())


def read_record(folder: Path) -> Record:
    """Read one session; an `RbcflowError` if it cannot be used."""
    session = open_session(folder)
    run = session.run
    try:
        started = datetime.fromisoformat(run["started"])
        started = started if started.tzinfo else started.astimezone()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise BadInput("trend.no-start", folder=folder) from None
    by_hand, fault = _by_hand(session)
    parameters, told = run.get("parameters") or {}, run.get("record") or {}
    return Record(
        folder=session.folder,
        started=started,
        patient=one_line(run.get("patient")),
        sample=one_line(run.get("sample")),
        status="interrupted" if session.interrupted else run["status"],
        pixel_size_um=_number(parameters.get("pixel_size_um")),
        figure=_sound(session),
        corrected=_figure(run.get("fraction_corrected")),
        by_hand=by_hand,
        doubt=_doubt(session),
        networks=tuple(_hash(run, stage) for stage in ("stage1", "stage2")),
        movie=_movie(parameters),
        remark=fault,
        shear_rate_per_s=_number(parameters.get("shear_rate_per_s")) or Record.shear_rate_per_s,
        focus_height_um=_number(parameters.get("focus_height_um")) or Record.focus_height_um,
        least_frames=int(_number(parameters.get("least_frames")) or Record.least_frames),
        leave_out_intruded=bool(parameters.get("leave_out_intruded")),
        simulated=is_simulated(run),
        verdict=session.conclusion.verdict,
        headline=session.conclusion.headline,
        instrument=one_line(told.get("instrument_serial")),
        control_lot=one_line(told.get("control_lot")),
    )


def _sound(session: Session) -> FractionFigure:
    """Return the machine's number, if it is possible."""
    figure = session.fraction
    ends: tuple[Any, ...] = (figure.estimate, figure.low, figure.high)
    try:
        estimate, low, high = ends
        # The anytime interval may exclude its own estimate (docs/decisions/estimate.md).
        sound = ends == (None, None, None) or (0 <= low <= high <= 1 and 0 <= estimate <= 1)
        sound = sound and figure.n == int(figure.n) >= 0
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise BadInput("trend.fraction-impossible", folder=session.folder)
    return figure


def _doubt(session: Session) -> str:
    if session.conclusion.verdict is Verdict.RESULT:
        return ""  # a person answered the warnings that are left
    grave = grave_warnings(session.run)
    if session.interrupted:
        grave = [say("trend.interrupted"), *grave[1:]]
    if not grave and session.fraction.estimate is None:
        grave = [say("trend.holds-no-number")]
    return " ".join(grave)


def _by_hand(session: Session) -> tuple[FractionFigure | None, str]:
    """Return the number with the changes by hand, and a sentence if they are damaged."""
    try:
        return (session.fraction_by_hand if session.changes_made else None), ""
    except RbcflowError as error:
        return None, say("trend.changes-unknown", folder=session.folder, why=error)


def _figure(told: Any) -> FractionFigure | None:
    try:
        figure = FractionFigure(**{field.name: told[field.name] for field in fields(FractionFigure)})
    except (KeyError, TypeError):
        return None
    return None if None in (figure.estimate, figure.low, figure.high) else figure


def _movie(parameters: dict[str, Any]) -> str:
    file = (parameters.get("source_details") or {}).get("file")
    return "" if not file or parameters.get("live") else str(file)


def _hash(run: dict[str, Any], stage: str) -> str:
    model = (run.get("models") or {}).get(stage) or {}
    return str(model.get("hash", ""))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def one_line(text: Any) -> str:
    return unicodedata.normalize("NFC", " ".join(str(text or "").split()))


def without_copies(records: Sequence[Record], notes: Sequence[str]) -> Gathered:
    """Keep one of the copies of a session: no two runs start in the same millisecond and count the same.

    It is the first that a person made a result, else the first.
    """
    kept: dict[tuple[Any, ...], Record] = {}
    notes = list(notes)
    for record in records:
        key = record.started, record.patient, record.sample, record.figure, record.instrument
        before = kept.setdefault(key, record)
        if before is not record:
            if record.headline is not None and before.headline is None:
                kept[key] = record
            left, original = (before, record) if kept[key] is record else (record, before)
            notes.append(say("trend.session-copied", folder=left.folder, original=original.folder))
    controls = tuple(record for record in kept.values() if record.control_lot)
    of_patients = tuple(record for record in kept.values() if not record.control_lot)
    return Gathered(of_patients, tuple(notes), controls)


# Key of the word, Python's name of the setting, unit.
_SETTINGS = (
    ("trend.pixel-sizes", "pixel_size_um", " µm"),
    ("trend.shear-rates", "shear_rate_per_s", " per s"),
    ("trend.focus-heights", "focus_height_um", " µm"),
)


def must_be_measured_alike(records: Sequence[Record]) -> None:
    """Raise BadInput if settings on which the fraction depends differ, naming the first odd session."""
    for key, setting, unit in _SETTINGS:
        values = [getattr(record, setting) for record in records]
        most = Counter(values).most_common(1)[0][0]
        for record, value in zip(records, values, strict=True):
            if not _alike(value, most):
                shown, usual = (
                    say("trend.value-none") if v is None else f"{v:g}{unit}" for v in (value, most)
                )
                raise BadInput(
                    "trend.different-settings",
                    what=say(key),
                    folder=record.folder,
                    value=shown,
                    usual=usual,
                    setting=setting,
                )


def notes_on_counting(used: Sequence[Record]) -> list[str]:
    """Return a sentence for each rule of counting that not all sessions share."""
    notes = []
    for words_of in (_least_length, _frames_judged):
        words = [words_of(record) for record in used]
        if len(set(words)) < 2:
            continue
        usual = Counter(words).most_common(1)[0][0]
        run, how = next((run, w) for run, w in zip(used, words, strict=True) if w != usual)
        day = f"{run.started:%Y-%m-%d}"
        notes.append(say("trend.counted-otherwise", session=run.named, day=day, how=how, usual=usual))
    return notes


def _least_length(record: Record) -> str:
    return say("trend.counted-from-frames", frames=record.least_frames)


def _frames_judged(record: Record) -> str:
    return say("trend.judged-without-intruded" if record.leave_out_intruded else "trend.judged-whole")


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-3)
