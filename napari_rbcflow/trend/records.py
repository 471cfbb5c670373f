"""Session folders, found and read: one record a session, and whether they were measured alike."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.session import RUN_FILE as RUN_NAME
from napari_rbcflow.session import FractionFigure, Session, grave_warnings, open_session
from napari_rbcflow.types import LEAST_FRAMES

_HOW = "write FROM:TO with dates such as 2026-03-02:2026-03-09, or one date"


@dataclass(frozen=True)
class Span:
    """Days from `first` to `last`, both included; None is open.

    Raises
    ------
    BadInput
        Where it ends before it begins.
    """

    first: date | None
    last: date | None

    def __post_init__(self) -> None:
        if self.first is not None and self.last is not None and self.last < self.first:
            raise BadInput(f"{self} ends before it begins: {_HOW}.")

    def __contains__(self, day: date) -> bool:
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    def __str__(self) -> str:
        if self.first == self.last and self.first is not None:
            return str(self.first)
        return f"{self.first or ''}:{self.last or ''}"


def parse_span(text: str) -> Span:
    """Return the days of ``FROM:TO``, ``FROM:``, ``:TO`` or ``DATE``.

    Raises
    ------
    BadInput
        For anything else.
    """
    first, colon, last = text.strip().partition(":")
    if not (first.strip() or last.strip()):
        raise BadInput(f"{text!r} is no span of days: {_HOW}.")
    begin = _date(first, text)
    return Span(begin, _date(last, text) if colon else begin)


def parse_spans(text: str) -> tuple[Span, ...]:
    """Return the spans of a field in which several stand, between commas, semicolons or spaces."""
    return tuple(parse_span(part) for part in text.replace(",", " ").replace(";", " ").split())


def within(day: date, spans: Iterable[Span]) -> bool:
    """Say whether a day lies in one of them."""
    return any(day in span for span in spans)


def _date(text: str, whole: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"{whole!r} is no span of days ({text.strip()!r} is no date): {_HOW}.") from None


@dataclass(frozen=True)
class Record:
    """What a trend takes from one session.

    Attributes
    ----------
    folder : Path
    started : datetime
        With its offset from UTC; its day is the one of the clock on the wall.
    patient, sample, status : str
    pixel_size_um : float or None
    figure : FractionFigure
        The machine's.
    corrected, by_hand : FractionFigure or None
        None where there is none.
    doubt : str
        Why the number must not be acted on; empty where it may.
    networks : tuple of str
        The hashes of both.
    movie : str
        The file that it was made from; empty for a live run.
    remark : str
        What else a person must know of it; empty if nothing.
    shear_rate_per_s, focus_height_um : float
        As they were set.
    least_frames : int
        Of a counted track.
    leave_out_intruded : bool
        Whether tracks were judged without the frames in which another cell stood in the crop.
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
    # Sessions that do not say have these.
    shear_rate_per_s: float = SetFlow().shear_rate_per_s
    focus_height_um: float = SetFlow().focus_height_um
    least_frames: int = LEAST_FRAMES
    leave_out_intruded: bool = False

    @property
    def named(self) -> str:
        """The session for a person: its folder's name."""
        return self.folder.name or str(self.folder)


@dataclass(frozen=True)
class Gathered:
    """All sessions of some folders.

    Attributes
    ----------
    records : tuple of Record
        By start.
    notes : tuple of str
        What else a person must know, such as a session that cannot be read.
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    @property
    def patients(self) -> tuple[str, ...]:
        """Names, the one measured last first; an empty one where a session names none."""
        return tuple(dict.fromkeys(record.patient for record in reversed(self.records)))


def gather(paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> Gathered:
    """Read sessions.

    Parameters
    ----------
    paths : sequence of Path
        Sessions, or folders that hold sessions, one level down. A session given twice counts once.
    progress : callable, optional
        Called with how many were read, of how many.

    Raises
    ------
    BadInput
        Where there is no session, or one that was named itself cannot be used.
    """
    named, found = _sessions(paths)
    records: list[Record] = []
    notes: list[str] = []
    everything = [*named, *found]
    for k, folder in enumerate(everything):
        try:
            records.append(read_record(folder))
        except RbcflowError as error:
            if folder in named:
                raise
            notes.append(f"A session is left out: {error}")
        if progress is not None:
            progress(k + 1, len(everything))
    if not records:
        raise BadInput(" ".join(notes) or "There is no session: give session folders.")
    records.sort(key=lambda record: (record.started, str(record.folder)))
    return _without_copies(records, notes)


def _sessions(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the folders that were named themselves, and those that were found in others."""
    if not paths:
        raise BadInput("There is no session: give session folders, or a folder that holds some.")
    named: dict[str, Path] = {}
    found: dict[str, Path] = {}
    for given in paths:
        path = Path(given)
        if path.name == RUN_NAME and path.is_file():
            path = path.parent
        if not path.is_dir() or (path / RUN_NAME).exists():
            named[_real(path)] = path  # what is no session is told by whoever opens it
            continue
        try:
            inside = sorted(entry for entry in path.iterdir() if _holds_a_run(entry))
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}): choose another folder.") from None
        if not inside:
            raise BadInput(
                f"{path} is no session and holds none: give session folders, or the folder that they lie in."
            )
        found.update((_real(entry), entry) for entry in inside)
    return list(named.values()), [path for real, path in found.items() if real not in named]


def _holds_a_run(folder: Path) -> bool:
    try:
        return (folder / RUN_NAME).is_file()
    except PermissionError:
        return True  # so that it is told, not overlooked


def _real(path: Path) -> str:
    return os.path.normcase(path.resolve())


def read_record(folder: Path) -> Record:
    """Read one session.

    Raises
    ------
    BadInput
        If it is not a session, or does not say when it was started.
    RunFailed
        If a table that is needed is damaged.
    """
    session = open_session(folder)
    run = session.run
    try:
        started = datetime.fromisoformat(run["started"])
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{folder} does not say when it was started: its run.json is damaged.") from None
    by_hand, fault = _by_hand(session)
    parameters = run.get("parameters") or {}
    return Record(
        folder=session.folder,
        started=started if started.tzinfo else started.astimezone(),
        patient=_one_line(run.get("patient")),
        sample=_one_line(run.get("sample")),
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
    )


def _sound(session: Session) -> FractionFigure:
    """Return the machine's number, if it can be one."""
    figure = session.fraction
    said: tuple[Any, ...] = (figure.estimate, figure.low, figure.high)
    try:
        estimate, low, high = said
        # The anytime interval may exclude its own estimate (docs/decisions/estimate.md).
        sound = said == (None, None, None) or (0 <= low <= high <= 1 and 0 <= estimate <= 1)
        sound = sound and figure.n == int(figure.n) >= 0
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise BadInput(f"{session.folder} cannot be used: the fraction in its run.json cannot be one.")
    return figure


def _doubt(session: Session) -> str:
    try:
        grave = grave_warnings(session.run)
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{session.folder} cannot be used: its run.json is damaged.") from None
    if session.interrupted:
        grave = ["The run was interrupted, and its session never closed.", *grave[1:]]
    if not grave and session.fraction.estimate is None:
        grave = ["It holds no number."]
    return " ".join(grave)


def _by_hand(session: Session) -> tuple[FractionFigure | None, str]:
    """Return the number with the changes by hand, and a sentence where they are damaged."""
    try:
        return (session.fraction_by_hand if session.changes_made else None), ""
    except RbcflowError as error:
        return None, f"What persons changed in {session.folder} is not known: {error}"


def _figure(said: Any) -> FractionFigure | None:
    try:
        figure = FractionFigure(**{field.name: said[field.name] for field in fields(FractionFigure)})
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


def _one_line(text: Any) -> str:
    return " ".join(str(text or "").split())


def _without_copies(records: Sequence[Record], notes: Sequence[str]) -> Gathered:
    """Take one of the copies of a session: two runs do not start in the same millisecond and count alike."""
    kept: dict[tuple[Any, ...], Record] = {}
    said = list(notes)
    for record in records:
        key = (record.started, record.patient, record.sample, record.figure)
        if key in kept:
            said.append(f"{record.folder} is a copy of {kept[key].folder}: counted once.")
        else:
            kept[key] = record
    return Gathered(tuple(kept.values()), tuple(said))


Value = float | None
_Setting = tuple[str, str, str, Callable[[Record], Value]]
_SETTINGS: tuple[_Setting, ...] = (
    ("pixel sizes", " µm", "--pixel-size-um", lambda record: record.pixel_size_um),
    ("shear rates", " per s", "--shear-rate", lambda record: record.shear_rate_per_s),
    ("focus heights", " µm", "--focus-height-um", lambda record: record.focus_height_um),
)


def must_be_measured_alike(records: Sequence[Record]) -> None:
    """Refuse sessions whose numbers cannot be compared: how many cells tank-tread depends on these settings.

    Raises
    ------
    BadInput
        Naming the first that differs from most.
    """
    for what, unit, option, value_of in _SETTINGS:
        values = [value_of(record) for record in records]
        most = Counter(values).most_common(1)[0][0]
        for record, value in zip(records, values, strict=True):
            if not _alike(value, most):
                said, usual = ("none" if v is None else f"{v:g}{unit}" for v in (value, most))
                raise BadInput(
                    f"The sessions are of different {what}: {record.folder} has {said}, the others {usual}."
                    " Leave it out, or, where that was set wrongly, analyse its movie again with the right"
                    f" {option}."
                )


def notes_on_counting(used: Sequence[Record]) -> list[str]:
    """Return a sentence for each rule of counting that not all sessions share."""
    notes = []
    for words_of in (_least_length, _frames_judged):
        said = [words_of(record) for record in used]
        if len(set(said)) < 2:
            continue
        most = Counter(said).most_common(1)[0][0]
        odd = next(k for k, words in enumerate(said) if words != most)
        run = used[odd]
        notes.append(
            f"Not all runs count alike: {run.named} of {run.started:%Y-%m-%d} {said[odd]}, where most"
            f" others {most}. A difference may come from that and not from the patient."
        )
    return notes


def _least_length(record: Record) -> str:
    return f"counted only cells seen in {record.least_frames} frames or more"


def _frames_judged(record: Record) -> str:
    frames = (
        "without the frames in which another cell stood close by" if record.leave_out_intruded else "whole"
    )
    return f"judged each track {frames}"


def _alike(one: Value, other: Value) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-3)
