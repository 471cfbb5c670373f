"""``run.json`` and ``.writing``: the counts and the record of a run, made, written and read."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import numpy as np

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import ANYTIME, FEW_CELLS, ReportedInterval, RunningFraction
from napari_rbcflow.quality import percent as percent
from napari_rbcflow.quality import warnings_of_run
from napari_rbcflow.ring import preallocate, read_json, rename_over, replace_file, sync_folder, write_all
from napari_rbcflow.sentences import say
from napari_rbcflow.types import RunStatus, SourceInfo
from napari_rbcflow.version import __version__

CELL_COUNTS = ("tracked", "too_short", "unreliable", "tank_treading", "flipping", "uncounted")
"""`tracked` is every finished track, a row of ``cells.csv``; the others add up to it."""
NOT_CORRECTED = "none"


@dataclass(frozen=True)
class FractionFigure:
    """A fraction with its interval.

    Attributes
    ----------
    estimate, low, high : float or None
        In [0, 1]; None where nothing was counted.
    level : float
        Confidence level of the interval.
    method : str
        Which interval: ``wilson``, ``fixed-width``, ``anytime``, ...; ``none`` where there is none.
    n : int
        Cells counted.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    n: int

    @classmethod
    def of(
        cls,
        fraction: RunningFraction,
        interval: tuple[float, float] | None = None,
        method: str = "wilson",
    ) -> FractionFigure:
        """Take the figure from the running fraction; `method` names the interval (default: Wilson's)."""
        if not fraction.n:
            return cls(None, None, None, fraction.level, method, 0)
        low, high = fraction.interval() if interval is None else interval
        return cls(fraction.estimate, low, high, fraction.level, method, fraction.n)

    @classmethod
    def read(cls, told: Any) -> FractionFigure | None:
        """Take the figure from ``run.json`` or ``review.json``; None where that holds none."""
        try:
            figure = cls(**{one.name: told[one.name] for one in fields(FractionFigure)})
        except (KeyError, TypeError):
            return None
        return None if misfit(told, _FIGURE) else figure

    @classmethod
    def saying(cls, fraction: RunningFraction, reported: ReportedInterval) -> FractionFigure:
        """Take the figure from the running fraction, with the interval that fits how the run goes."""
        return cls.of(fraction, reported.interval, reported.method)


@dataclass(frozen=True)
class RunSummary:
    """What a run has done so far: every frame and every cell accounted for.

    Attributes
    ----------
    received, processed : int
        Frames; ``received = processed + sum(dropped)`` once the run has ended.
    dropped, missed : mapping of str to int
        Frames by reason: those lost here, and those that never arrived.
    cells : mapping of str to int
        `CELL_COUNTS`.
    fraction, fraction_corrected : FractionFigure
    latency_ms : mapping of str to (float or None)
        ``p50``, ``p95``, ``p99``: from the hand-over of a finished track to its label.
    warnings : tuple of str
        Sentences for a person.
    quality : mapping
        More numbers about the run's quality; each name carries its unit.
    focus_speed : mapping
        What the speed of the cells in focus gave (`FocusSpeed.as_dict`), and how many cells were set aside.
    calibration : mapping
        The laboratory's calibration, and whether it holds (`Calibration.record`); empty if there is none.
    """

    received: int = 0
    processed: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    fraction: FractionFigure = FractionFigure(None, None, None, 0.95, ANYTIME, 0)
    fraction_corrected: FractionFigure = FractionFigure(None, None, None, 0.95, NOT_CORRECTED, 0)
    latency_ms: Mapping[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)
    focus_speed: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        received: int,
        processed: int,
        dropped: Mapping[str, int],
        missed: Mapping[str, int],
        cells: Mapping[str, int],
        fraction: RunningFraction | FractionFigure,
        latencies_ms: Sequence[float] = (),
        warnings: Sequence[str] = (),
        fraction_corrected: FractionFigure | None = None,
        quality: Mapping[str, Any] | None = None,
        focus_speed: Mapping[str, Any] | None = None,
    ) -> RunSummary:
        """Make it from what a run counts.

        Parameters
        ----------
        received, processed, dropped, missed, cells, warnings, fraction_corrected, quality, focus_speed
            As the attributes; counts that are not given are 0.
        fraction : RunningFraction or FractionFigure
            Of a running fraction, Wilson's interval is taken.
        latencies_ms : sequence of float
            One for each label, warm-up left out.
        """
        figure = fraction if isinstance(fraction, FractionFigure) else FractionFigure.of(fraction)
        latencies = np.asarray(list(latencies_ms), dtype=np.float64)
        levels = np.percentile(latencies, (50, 95, 99)) if len(latencies) else (None, None, None)
        return cls(
            received=int(received),
            processed=int(processed),
            dropped={str(k): int(v) for k, v in dropped.items()},
            missed={str(k): int(v) for k, v in missed.items()},
            cells={name: int(cells.get(name, 0)) for name in CELL_COUNTS},
            fraction=figure,
            fraction_corrected=fraction_corrected
            or FractionFigure(None, None, None, figure.level, NOT_CORRECTED, 0),
            latency_ms={
                name: None if value is None else round(float(value), 3)
                for name, value in zip(("p50", "p95", "p99"), levels, strict=True)
            },
            warnings=tuple(str(w) for w in warnings),
            quality=dict(quality or {}),
            focus_speed=dict(focus_speed or {}),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as part of ``run.json``; what is not a finite number is None."""
        return {
            "frames": {
                "received": self.received,
                "processed": self.processed,
                "dropped": dict(self.dropped),
                "missed": dict(self.missed),
            },
            "cells": {name: self.cells.get(name, 0) for name in CELL_COUNTS},
            "fraction": plain(asdict(self.fraction)),
            "fraction_corrected": plain(asdict(self.fraction_corrected)),
            "latency_ms": {name: plain(self.latency_ms.get(name)) for name in ("p50", "p95", "p99")},
            "warnings": list(self.warnings),
            "quality": plain(dict(self.quality)),
            "focus_speed": plain(dict(self.focus_speed)),
            **({"calibration": plain(dict(self.calibration))} if self.calibration else {}),
        }


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: numpy numbers as Python's, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


FORMAT = 1  # version of a session folder
RUN_FILE = "run.json"


class DamagedRun(BadInput):
    """A folder whose ``run.json`` is missing or unreadable; the files beside it may be whole."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__("session.not-a-session", folder=folder, what=what)
        self.what = what


def now() -> str:
    """Return the local time in ISO 8601, with its offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def later(moment: str, seconds: float) -> str:
    """Return the moment so many seconds later, whatever the clock was set to meanwhile."""
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def versions() -> dict[str, str | None]:
    """Return the version of what matters, without importing it."""
    found: dict[str, str | None] = {"napari-rbcflow": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", "onnxruntime", "zarr", "napari"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["os"] = platform.platform()
    return found


def source_parameters(source: SourceInfo) -> dict[str, Any]:
    """Return what is known of the source, as `parameters` hold it."""
    known = asdict(source)
    warnings = known.pop("warnings")
    details = known.pop("details")
    del known["simulated"]  # stands at the top of run.json
    return {
        "source": known.pop("name"),
        **known,
        "source_details": dict(details),
        "source_warnings": list(warnings),
    }


def is_simulated(run: Mapping[str, Any]) -> bool:
    """Say whether a run's frames were not a camera's or a recording's.

    A session from before ``simulated`` stood in ``run.json`` tells by its source.
    """
    told = run.get("simulated")
    if isinstance(told, bool):
        return told
    parameters = run.get("parameters") or {}
    details = parameters.get("source_details") or {}
    made_up = parameters.get("source") in ("simulated chamber", "DemoCamera")
    return made_up or bool(parameters.get("live") and details.get("file"))


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Replace ``run.json`` in one step."""
    replace_file(folder / RUN_FILE, encoded(run))


def encoded(run: Mapping[str, Any]) -> bytes:
    text = json.dumps(plain(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A name or path that is not UTF-8 reaches us with lone surrogates; so escaped, JSON gives them back.
    return text.encode(errors="backslashreplace")


def read_run(folder: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises
    ------
    BadInput
        If `folder` is not a session, or one of a newer version; `DamagedRun` where only ``run.json`` is bad.
    """
    if folder.is_file():
        raise BadInput("session.is-a-file", folder=folder)
    if not folder.is_dir():
        raise BadInput("session.no-such-folder", folder=folder)
    try:
        run = read_json(folder / RUN_FILE)
    except FileNotFoundError:
        raise DamagedRun(folder, say("session.no-run-json")) from None
    except (OSError, ValueError) as error:
        raise DamagedRun(folder, say("session.run-json-damaged", why=error)) from None
    if run.get("status") not in list(RunStatus):
        raise DamagedRun(folder, say("session.run-json-foreign"))
    version = run.get("format")
    if not isinstance(version, int):
        raise DamagedRun(folder, say("session.run-json-without-format"))
    if version > FORMAT:
        raise BadInput("ring.newer-version", path=folder)
    if wrong := misfit(run, _SHAPE) or _lacking(run):
        raise DamagedRun(folder, say("session.run-json-entry", name=wrong))
    return run


_ALWAYS: dict[str, tuple[str, ...]] = {
    "frames": ("received", "processed", "dropped", "missed"),
    "cells": CELL_COUNTS,
    "fraction": ("estimate", "low", "high", "level", "method", "n"),
    **{"parameters": (), "models": ("stage1", "stage2")},
}
"""What every version of ``run.json`` holds."""
_NUMBER = (int, float)
_FIGURE: dict[str, Any] = {
    **dict.fromkeys(("estimate", "low", "high"), (*_NUMBER, None)),
    **{"level": _NUMBER, "method": str, "n": int, "reason": str},
}
_EACH = ""  # names every other entry of an object
_SCALAR = (int, float, str, None)
_SHAPE: dict[str, Any] = {
    **dict.fromkeys(("started", "patient", "sample", "stop_sentence"), (str, None)),
    **{"stop_reason": (str, None), "ended": (str, None), "simulated": bool, "warnings": [str]},
    "control": str,
    "frames": {"received": int, "processed": int, "dropped": {_EACH: int}, "missed": {_EACH: int}},
    **{"cells": {_EACH: int}, "latency_ms": {_EACH: (*_NUMBER, None)}, "versions": {_EACH: (str, None)}},
    **{"fraction": _FIGURE, "fraction_corrected": _FIGURE, "fraction_unseen_flips": {}},
    "quality": {
        **{"warnings": [dict], "not_analysed": {_EACH: int}, "steps": {_EACH: (*_NUMBER, None)}},
        _EACH: _SCALAR,
    },
    "focus_speed": {_EACH: (*_SCALAR, list)},
    "parameters": {"source_details": {_EACH: str}, "source_warnings": [str], _EACH: (*_SCALAR, list, dict)},
    "models": {_EACH: {}},
    "files": {_EACH: {"bytes": int, "sha256": str}},
    "calibration": {},
    "record": {_EACH: (*_NUMBER, str)},
    "record_titles": {_EACH: str},
}
"""What the entries of ``run.json`` are, of any version; what stands nowhere may be anything."""


def _lacking(run: Mapping[str, Any]) -> str:
    """Return the name of the first entry that every version holds and this one does not."""
    for name, parts in _ALWAYS.items():
        if name not in run:
            return name
        if lost := [part for part in parts if part not in run[name]]:
            return f"{name}.{lost[0]}"
    return ""


def misfit(value: Any, shape: Any, name: str = "") -> str:
    """Return the name of the first entry that is of another kind than in a shape; empty where all fit."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return name or RUN_FILE
        parts = ((f"{name}.{k}" if name else k, v, shape.get(k, shape.get(_EACH))) for k, v in value.items())
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return name
        parts = ((name, v, shape[0]) for v in value)
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        known = tuple(type(None) if kind is None else kind for kind in kinds)
        return "" if shape is None or isinstance(value, known) else name
    return next((wrong for part, v, s in parts if s is not None and (wrong := misfit(v, s, part))), "")


if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

MARKER_FILE = ".writing"
LOCK_S = 10.0  # seconds to wait for a lock that another program holds for as long as it writes
_FAR = 1 << 30  # a place behind the end of a file, where a lock hinders no reader
RESERVE_BYTES = 8 * 2**20
"""Held back until the close, so that a full disk still takes run.json, report.html and a sorted cells.csv."""
LAST_BYTES = 256 * 2**10
"""The part of them that is kept even then: another program may take what was released."""


class WritingMarker:
    """Locked while the session's process lives; without its lock it says that the session crashed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MARKER_FILE
        self._file: IO[bytes] = self._path.open("xb+", buffering=0)
        preallocate(self._file, RESERVE_BYTES)
        _lock(self._file)

    def release_reserve(self) -> None:
        """Free the bytes that were held back for the close."""
        with contextlib.suppress(OSError):
            self._file.truncate(LAST_BYTES)

    def become(self, path: Path, data: bytes) -> None:
        """Put `data` in the place of `path` with the bytes of this file, which then marks nothing."""
        self._file.seek(0)
        write_all(self._file, data)
        self._file.truncate(len(data))
        os.fsync(self._file.fileno())
        self._file.close()
        rename_over(self._path, path)
        sync_folder(path.parent)

    def remove(self) -> None:
        """Unlock and delete."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def is_being_written(folder: Path) -> bool:
    """Say whether a living process writes the session; also where the marker may not be read."""
    # A shared lock needs no right to write. A living run must never be taken for a crashed one.
    try:
        file = (folder / MARKER_FILE).open("rb", buffering=0)
    except PermissionError:
        return True
    except OSError:
        return False
    with file:
        try:
            _lock(file, shared=True)
        except OSError:
            return True
    return False


def _lock(file: IO[bytes], *, shared: bool = False, at: int = 0) -> None:
    """Lock at once or raise `OSError`; Windows locks the byte at a place, which nobody can read then."""
    if sys.platform == "win32":
        file.seek(at)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file.fileno(), (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(path: Path, busy: str = "session.review-busy", patience_s: float | None = None) -> Iterator[None]:
    """Hold a lock on a file that is there and is never replaced, so that programs write in turn.

    Raises
    ------
    RunFailed
        Where another program holds it for longer than `patience_s`, `LOCK_S` by default (then the sentence is
        `busy`), or there is no such file.
    """
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise RunFailed("session.unreadable", path=path, why=error.strerror or error) from None
    with file:
        until = time.monotonic() + (LOCK_S if patience_s is None else patience_s)
        while True:
            try:
                _lock(file, at=_FAR)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    break  # a disk that knows no locks
                if time.monotonic() >= until:
                    raise RunFailed(busy, folder=path.parent) from None
                time.sleep(0.02)
        yield


def grave_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the grave warnings of a run, which forbid acting on its number."""
    return [w.sentence for w in warnings_of_run(run) if w.grave]


def too_few_words(n: int) -> str:
    """Say that a number with changes by hand is of too few cells to act on; empty where it is not."""
    return "" if n >= FEW_CELLS else say("session.too-few-to-act-on", cells=n, least=FEW_CELLS)


def mild_warnings(run: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the other warnings of a run."""
    return [w.sentence for w in warnings_of_run(run) if not w.grave]
