"""Writing a session folder while a run goes on: from its first bytes to its sorted tables."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RunFailed, sentence_of
from napari_rbcflow.ring import FrameRing, disk_faults, is_full, sync_folder
from napari_rbcflow.session import schema, tables
from napari_rbcflow.session.counting import unseen_flips_record
from napari_rbcflow.session.crops import CropStore
from napari_rbcflow.session.growing import Table
from napari_rbcflow.session.reader import Session
from napari_rbcflow.session.recovery import counts_as_kept
from napari_rbcflow.session.report import write_report
from napari_rbcflow.session.schema import Account, WritingMarker
from napari_rbcflow.types import Judgement, SourceInfo, Track

LOGGER = "napari_rbcflow"
IN_A_ROW, EVERY_S = 20, 60.0
"""So often one place in the program is taken down within this time: what repeats with every frame, for hours,
must not fill the disk or hide the rest."""


class SessionLog(logging.FileHandler):
    """Takes down what the package logs from INFO on, until `close`; of what repeats, how often it came."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
        self._told: Counter[tuple[str, int]] = Counter()
        self._left_out: dict[tuple[str, int], tuple[int, logging.LogRecord]] = {}
        self._since_s = time.monotonic()
        self._counting = threading.RLock()
        logger = logging.getLogger(LOGGER)
        self._level_before = logger.level
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take down a record, unless its place in the program has had its share of this minute."""
        place = record.pathname, record.lineno
        with self._counting:
            if time.monotonic() - self._since_s >= EVERY_S:
                self._tell_left_out()
            self._told[place] += 1
            if self._told[place] > IN_A_ROW:
                newest = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
                self._left_out[place] = self._left_out.get(place, (0, newest))[0] + 1, newest
                return
        super().emit(record)

    def _tell_left_out(self) -> None:
        """Say how often what was left out came, and begin to count anew."""
        for n, record in self._left_out.values():
            record.msg = f"{record.msg} (and {n - 1} times more like it)" if n > 1 else record.msg
            super().emit(record)
        self._left_out.clear()
        self._told.clear()
        self._since_s = time.monotonic()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: a full disk must not fill the terminal, and what broke is said elsewhere."""

    def close(self) -> None:
        """Stop listening."""
        logger = logging.getLogger(LOGGER)
        if self in logger.handlers:
            logger.removeHandler(self)
            with self._counting:
                self._tell_left_out()
            if not any(isinstance(handler, SessionLog) for handler in logger.handlers):
                logger.setLevel(self._level_before)
        super().close()


OPEN_END_S = 1800.0
"""A run with no end of its own is told when the disk will hold no longer."""
_SPAN_S = 120.0
"""Over which the rate is taken."""
_LEAST_S = 15.0
"""Before that nothing is said: the first seconds have no tracks."""
_LOOKS = 64
_STEPS_MIN = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720)
_SPARED_BYTES = 64 << 20
"""For the report, the log, and what else is written on such a disk."""


class DiskRoom:
    """Watches the room on the disk that holds a folder. Look once a second or so.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: deque[tuple[float, float]] = deque(maxlen=_LOOKS)
        self._left_s: float | None = None

    def look(self, to_be_copied: int = 0, *, now_s: float | None = None, free: int | None = None) -> None:
        """Take in how much room there is.

        Parameters
        ----------
        to_be_copied : int
            Bytes that the close will need once more.
        now_s : float, optional
            Default: the clock.
        free : int, optional
            Bytes; default: what the disk says.
        """
        now_s = time.monotonic() if now_s is None else now_s
        # Two minutes in as many looks as are remembered.
        if self._looks and now_s - self._looks[-1][0] < _SPAN_S / _LOOKS:
            return
        if free is None:
            try:
                free = shutil.disk_usage(self._folder).free
            except OSError:  # a disk that does not tell
                return
        room = float(free - to_be_copied - _SPARED_BYTES)
        self._looks.append((now_s, room))
        began_s, before = self._looks[0]
        if now_s - began_s < _LEAST_S:
            return
        filled = before - room
        self._left_s = max(0.0, room) * (now_s - began_s) / filled if filled > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the disk is full, at the last two minutes' rate; None where it does not fill."""
        return self._left_s


def room_words(left_s: float | None, needed_s: float | None) -> str:
    """Say how long the disk will hold where a person must know, else nothing.

    Parameters
    ----------
    left_s : float or None
        From `DiskRoom.left_s`.
    needed_s : float or None
        That the run will still go on, if that is known; None for an open end: said under `OPEN_END_S` then.
    """
    if left_s is None or left_s >= (OPEN_END_S if needed_s is None else needed_s):
        return ""
    # In steps: a sentence that changes each second is not read.
    minutes = max((step for step in _STEPS_MIN if 60 * step <= left_s), default=0)
    said = f"some {minutes} minutes" if minutes > 1 else "a minute" if minutes else "less than a minute"
    wanted = "" if needed_s is None else ", less than the run needs"
    return f"At this rate the disk has room for {said} more{wanted}: free some, or stop by then."


def make_folder(folder: Path) -> None:
    """Make the folder of a session.

    Parameters
    ----------
    folder : Path
        Must not exist; the folder that it is to be in must.

    Raises
    ------
    BadInput
        If it exists, or cannot be made there.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        raise BadInput(
            f"{folder} exists already: choose a folder that does not, or move that one away."
        ) from None
    except ValueError:
        raise BadInput(
            f"{str(folder)!r} cannot be made: a folder's name cannot hold a NUL character."
        ) from None
    except OSError as error:
        said = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            if not folder.parent.exists():
                raise BadInput(
                    f"{folder} cannot be made: there is no folder {folder.parent}; make that first."
                ) from None
            said = f"{folder.parent} takes no new folders"  # as /proc says it
        raise BadInput(f"{folder} cannot be made ({said}): choose a folder that you may write to.") from None


def first_run(
    source: SourceInfo,
    *,
    parameters: Mapping[str, Any],
    models: Mapping[str, Any],
    patient: str,
    sample: str,
) -> dict[str, Any]:
    """Return ``run.json`` of a run that begins now."""
    return {
        "format": schema.FORMAT,
        "status": "running",
        "stop_reason": None,
        "stop_sentence": "",
        **Account(warnings=source.warnings).as_dict(),
        "parameters": {**schema.source_parameters(source), **dict(parameters)},
        "models": dict(models),
        "versions": schema.versions(),
        "patient": patient,
        "sample": sample,
        "started": schema.now(),
        "ended": None,
    }


log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class ClosedTables:
    """What became of the tables.

    Attributes
    ----------
    files : dict
        Size and SHA-256 of each by its name, as in ``run.json``.
    warnings : list of str
        What a person must be told.
    cells : DataFrame or None
        ``cells.csv``, where it was sorted: nobody need read it again.
    """

    files: dict[str, tables.Fingerprint] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cells: pd.DataFrame | None = None


def close_tables(
    folder: Path, index: NDArray[np.int64], changed: Mapping[int, tuple[str, str]] | None = None
) -> ClosedTables:
    """Sort the tables of a session that nobody writes to any more.

    A table that cannot be sorted is still whole: no reason to lose a run's end.

    Parameters
    ----------
    folder : Path
    index : ndarray of int64, shape (m, 4)
        Of its crops.
    changed : mapping of int to (str, str), optional
        Label and reason of the cells that get others.

    Raises
    ------
    OSError
        If a table cannot even be read.
    """
    closed = ClosedTables()

    def tried(name: str, sort: Callable[[Path], T]) -> T | None:
        try:
            return sort(folder / name)
        except OSError as error:
            # It needs the table's size once more, and on Windows that no other program has it open.
            log.warning("%s could not be sorted", name, exc_info=error)
            why = (
                "The disk was full"
                if is_full(error)
                else f"{name} could not be replaced ({error.strerror or error}; is it open elsewhere?)"
            )
            closed.warnings.append(f"{why}: {name} is in the order in which the tracks ended.")
            return None

    if (cells := tried("cells.csv", lambda path: tables.sort_cells(path, changed))) is not None:
        closed.files["cells.csv"], closed.cells = cells
    tracks = tried("tracks.csv", lambda path: tables.sort_tracks(path, index[:, 0], index[:, 2]))
    if tracks is not None:
        closed.files["tracks.csv"] = tracks
    tried(tables.NAME, tables.sort_pieces)
    closed.files = {
        name: closed.files.get(name) or tables.fingerprint(folder / name)
        for name in ("cells.csv", "tracks.csv", tables.NAME)
    }
    return closed


CROPS_PER_RING_FRAME = 128
"""Cells in a frame that the ring of crops has room for: about the load of the paper's acquisitions."""


class SessionWriter:
    """One session folder, from its first byte to its report.

    `create`, then `keep`, `heartbeat` and the `ring` from whatever threads, then `close` once.

    Attributes
    ----------
    folder : Path
    ring : FrameRing
        For the raw frames. `keep` puts the crops of the tracks kept last beside them.
    room : DiskRoom
        How long the disk will hold, as of the last heartbeat.
    report_fault : str or None
        After `close`: a sentence where everything but the report was written.
    """

    def __init__(self, folder: Path, source: SourceInfo, run: dict[str, Any], ring_frames: int) -> None:
        self.folder = folder
        self._run = run
        self._source = source
        self._lock = threading.Lock()
        # For run.json alone: no track waits while that goes to the disk, each second.
        self._of_run = threading.Lock()
        self._closed = False
        self.room = DiskRoom(folder)
        self.report_fault: str | None = None
        with ExitStack() as undo:
            self._marker = WritingMarker(folder)
            undo.callback(self._marker.remove)
            schema.write_run(folder, run)
            self.ring = FrameRing.create(
                folder / "frames.zarr",
                height=source.height,
                width=source.width,
                capacity=ring_frames,
                crop_capacity=ring_frames * CROPS_PER_RING_FRAME,
                fps=source.fps,
                pixel_size_um=source.pixel_size_um,
            )
            undo.callback(self.ring.close)
            self._crops = CropStore(folder / "crops.zarr")
            self._tracks = Table(folder / "tracks.csv", tables.header(tables.TRACK_COLUMNS))
            undo.callback(self._tracks.close)
            self._pieces = Table(folder / tables.NAME, tables.header(tables.COLUMNS))
            undo.callback(self._pieces.close)
            self._cells = Table(folder / "cells.csv", tables.header(tables.CELL_COLUMNS))
            undo.callback(self._cells.close)
            sync_folder(folder)
            self._log = SessionLog(folder / "run.log")
            undo.pop_all()
        # A dozen files to sync after each batch: the disk takes them together for the price of a few.
        self._syncing = ThreadPoolExecutor(4, thread_name_prefix="rbcflow-sync")

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        source: SourceInfo,
        parameters: Mapping[str, Any],
        models: Mapping[str, Any],
        patient: str,
        sample: str,
        ring_frames: int,
    ) -> SessionWriter:
        """Make the folder, with `status` running.

        Parameters
        ----------
        folder : Path
            Must not exist; the folder that it is to be in must.
        source : SourceInfo
            Goes into the parameters.
        parameters : mapping
            What else was chosen for this run; JSON's types.
        models : mapping
            ``stage1`` and ``stage2``, each with ``name`` and ``hash``.
        patient, sample : str
        ring_frames : int
            How many raw frames the ring holds.

        Raises
        ------
        BadInput
            If the folder exists, or cannot be made there, or the disk is too small. Nothing is left.
        """
        folder = Path(folder)
        run = first_run(
            source,
            parameters={"ring_frames": ring_frames, **dict(parameters)},
            models=models,
            patient=patient,
            sample=sample,
        )
        make_folder(folder)
        try:
            writer = cls(folder, source, run, ring_frames)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                said = "the disk is full" if is_full(error) else error.strerror or str(error)
                raise BadInput(
                    f"A session cannot be begun in {folder} ({said}): choose a folder on a disk with more"
                    " room that you may write to."
                ) from error
            raise
        log.info("session begun: %s, %s", folder, source.name)
        for warning in source.warnings:
            log.warning("%s", warning)
        return writer

    def keep(self, pairs: Sequence[tuple[Track, Judgement]]) -> None:
        """Keep tracks and what is said of them; on the disk when it returns.

        All of them or none: after a failure the session is as if they had not been given.

        Parameters
        ----------
        pairs : sequence of (Track, Judgement)
            In hand-over order, of the same cell each.

        Raises
        ------
        RunFailed
            If the disk is full or cannot be written.
        """
        if not pairs:
            return
        if any(track.cell != judgement.cell for track, judgement in pairs):
            raise ValueError("a judgement of another cell's track")
        tracks = [track for track, _ in pairs]
        with self._lock, disk_faults(self.folder):
            if self._closed:
                raise RunFailed(f"{self.folder} is closed already: begin another session.")
            self.ring.append_crops(
                np.concatenate([t.frames for t in tracks]),
                np.repeat([t.cell for t in tracks], [len(t) for t in tracks]),
                np.concatenate([t.y_px for t in tracks]),
                np.concatenate([t.x_px for t in tracks]),
                np.concatenate([t.crops for t in tracks]),
            )
            try:
                self._crops.write(tracks)
                self._tracks.append(tables.track_rows(tracks))
                self._pieces.append(of_pieces := tables.piece_rows(tracks))
                also = [self._pieces.fileno()] if of_pieces else []
                self._sync([*self._crops.unsynced(), self._tracks.fileno(), *also])
                # The row in cells.csv is what makes a track kept: last, when all else is on the disk.
                self._cells.append(
                    tables.cell_rows(pairs, fps=self._source.fps, pixel_size_um=self._source.pixel_size_um)
                )
                self._sync([self._cells.fileno()])
            except BaseException:
                self._cells.take_back()
                self._tracks.take_back()
                self._pieces.take_back()
                raise
            self._crops.commit(tracks)
            self._tracks.commit()
            self._pieces.commit()
            self._cells.commit()

    def set_parameter(self, name: str, value: Any) -> None:
        """Change what `create` was given; it is on the disk with the next `heartbeat` or `close`."""
        with self._of_run:
            self._run["parameters"][name] = value

    def heartbeat(self, account: Account) -> None:
        """Write how the run stands into ``run.json``.

        Raises
        ------
        RunFailed
            If the disk is full or cannot be written.
        """
        with self._of_run, disk_faults(self.folder):
            if not self._closed:
                self._take(account)
                schema.write_run(self.folder, self._run)
                self.room.look(self._tracks.size + self._cells.size)  # sorting needs them once more

    def close(
        self,
        account: Account,
        status: str,
        stop_reason: str,
        stop_sentence: str = "",
        changed: Mapping[int, tuple[str, str]] | None = None,
    ) -> None:
        """End the session: sort the tables, write the last ``run.json``, then the report.

        A report that fails changes nothing else: it is logged, and told in the warnings of ``run.json``.

        Parameters
        ----------
        account : Account
        status : {"finished", "stopped", "failed"}
        stop_reason : str
            As in ``run.json``.
        stop_sentence : str
            What the rule that stopped the run found, where its name does not tell.
        changed : mapping of int to (str, str), optional
            Label and reason of the cells that count otherwise than was kept; `account` counts them so.

        Raises
        ------
        RunFailed
            If the disk does not take even that. What was kept can be read.
        """
        with self._lock, self._of_run:
            if self._closed:
                return
            self._closed = True
            try:
                with disk_faults(self.folder):
                    self._run["stop_sentence"] = stop_sentence
                    self._close(account, status, stop_reason, changed or {})
            finally:
                self._syncing.shutdown()
                self.ring.close()
                self._crops.abandon()
                self._tracks.close()
                self._pieces.close()
                self._cells.close()
                self._log.close()
                self._marker.remove()

    def _close(
        self, account: Account, status: str, stop_reason: str, changed: Mapping[int, tuple[str, str]]
    ) -> None:
        self._marker.release_reserve()
        self.ring.close()
        not_closed = self._close_crops()
        self._tracks.close()
        self._pieces.close()
        self._cells.close()
        self._take(account)
        closed = close_tables(self.folder, self._crops.index(), changed)
        if changed and closed.cells is None:
            # Another label than its table holds must not be counted.
            self._run.update(counts_as_kept(Session(self.folder, {**self._run, "status": "running"})))
        self._run["warnings"] += [*not_closed, *closed.warnings]
        self._run["files"] = closed.files
        self._run["fraction_unseen_flips"] = self._unseen_flips(closed.cells)
        self._run.update(status=status, stop_reason=stop_reason, ended=schema.now())
        if told := account.focus_speed:
            log.info("speed of the cells in focus: %s", ", ".join(f"{k} {v}" for k, v in told.items()))
        log.info("session closed: %s (%s), %s", status, stop_reason, account.cells)
        written = self._write_run()
        fault = "" if written else "the disk is full"
        if written:
            try:
                write_report(self.folder, self._run, closed.cells)
            except Exception as error:
                log.exception("report.html could not be written")
                full = isinstance(error, OSError) and is_full(error)
                fault = "the disk is full" if full else sentence_of(error)
        if fault:
            self.report_fault = f"report.html could not be written ({fault}): all else was kept."
            self._run["warnings"].append(self.report_fault)
            try:
                if not self._write_run():
                    # Another program took what was held back for this, but for these last bytes.
                    self._marker.become(self.folder / schema.RUN_FILE, schema.encoded(self._run))
            except OSError:
                if not written:  # else the counts are on the disk already
                    raise

    def _write_run(self) -> bool:
        """Write ``run.json``; False where the disk is full."""
        try:
            schema.write_run(self.folder, self._run)
        except OSError as error:
            if not is_full(error):
                raise
            return False
        return True

    def _close_crops(self) -> list[str]:
        """Close the crops; a disk that is full leaves them longer than they are, as a crash does."""
        try:
            self._crops.close()
        except OSError as error:
            if not is_full(error):
                raise
            return ["The disk was full: the end of crops.zarr is empty."]
        return []

    def _unseen_flips(self, cells: pd.DataFrame | None) -> dict[str, Any] | None:
        """Correct the fraction for unseen flips; a fault there is no reason to lose the end of a run."""
        try:
            return unseen_flips_record(self._run, Session(self.folder, self._run, cells).cells)
        except Exception:
            log.exception("the fraction could not be corrected for unseen flips")
            return None

    def _take(self, account: Account) -> None:
        """Take the counts over; what the source warned of stays said."""
        self._run.update(account.as_dict())
        said = self._run["warnings"]
        said[:0] = [warning for warning in self._source.warnings if warning not in said]

    def _sync(self, handles: Sequence[int]) -> None:
        if len(handles) == 1:
            os.fsync(handles[0])
        else:
            list(self._syncing.map(os.fsync, handles))
