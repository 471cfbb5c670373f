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
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_rbcflow.errors import BadInput, RunFailed, sentence_of
from napari_rbcflow.ring import FrameRing, disk_faults, is_full, sync_folder
from napari_rbcflow.sentences import say
from napari_rbcflow.session import schema, tables
from napari_rbcflow.session.counting import unseen_flips_record
from napari_rbcflow.session.crops import CropStore
from napari_rbcflow.session.growing import Table
from napari_rbcflow.session.reader import Session
from napari_rbcflow.session.record import RunRecord
from napari_rbcflow.session.recovery import counts_as_kept
from napari_rbcflow.session.report import write_report
from napari_rbcflow.session.schema import RunSummary, WritingMarker
from napari_rbcflow.session.verdict import conclude
from napari_rbcflow.types import Judgement, RunStatus, SourceInfo, Track

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
T = TypeVar("T")

LOGGER = "napari_rbcflow"
LOG_LINES, LOG_SECONDS = 20, 60.0
"""One place in the program may log this often in this time: what repeats with every frame must not fill the
disk or hide the rest."""
CROPS_PER_RING_FRAME = 128
"""Room in the ring of crops, in cells per frame: about the load of the paper's acquisitions."""


class SessionLog(logging.FileHandler):
    """Writes what the package logs from INFO on, until `close`; counts what repeats."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
        self._written: Counter[tuple[str, int]] = Counter()
        self._left_out: dict[tuple[str, int], tuple[int, logging.LogRecord]] = {}
        self._since_s = time.monotonic()
        self._counting = threading.RLock()
        logger = logging.getLogger(LOGGER)
        self._level_before = logger.level
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless its place in the program has had its share of this minute."""
        place = record.pathname, record.lineno
        with self._counting:
            if time.monotonic() - self._since_s >= LOG_SECONDS:
                self._write_left_out()
            self._written[place] += 1
            if self._written[place] > LOG_LINES:
                newest = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
                self._left_out[place] = self._left_out.get(place, (0, newest))[0] + 1, newest
                return
        super().emit(record)

    def _write_left_out(self) -> None:
        """Write the last of each kind that was left out, with their number, and start a new minute."""
        for n, record in self._left_out.values():
            if n > 1:
                record.msg = say("session.log-repeated", message=record.msg, times=n - 1)
            super().emit(record)
        self._left_out.clear()
        self._written.clear()
        self._since_s = time.monotonic()

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: a full disk must not fill the terminal, and the fault is reported elsewhere."""

    def close(self) -> None:
        """Stop listening."""
        logger = logging.getLogger(LOGGER)
        if self in logger.handlers:
            logger.removeHandler(self)
            with self._counting:
                self._write_left_out()
            if not any(isinstance(handler, SessionLog) for handler in logger.handlers):
                logger.setLevel(self._level_before)
        super().close()


OPEN_END_S = 1800.0
"""A run without an end of its own is warned when the disk fills sooner than this."""
_SPAN_S = 120.0  # time over which the rate is taken
_LEAST_S = 15.0  # no estimate before this: the first seconds have no tracks
_POLLS = 64
_STEPS_MIN = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720)
_SPARED_BYTES = 64 << 20  # left for the report, the log, and what other programs write


class DiskRoom:
    """Watches the room on the disk that holds a folder. Poll it once a second or so.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._polls: deque[tuple[float, float]] = deque(maxlen=_POLLS)
        self._left_s: float | None = None

    def poll(self, to_be_copied: int = 0, *, now_s: float | None = None, free: int | None = None) -> None:
        """Note how many bytes are free; `to_be_copied` are those that the close will need once more."""
        now_s = time.monotonic() if now_s is None else now_s
        # The polls that are remembered span two minutes.
        if self._polls and now_s - self._polls[-1][0] < _SPAN_S / _POLLS:
            return
        if free is None:
            try:
                free = shutil.disk_usage(self._folder).free
            except OSError:
                return
        room = float(free - to_be_copied - _SPARED_BYTES)
        self._polls.append((now_s, room))
        began_s, before = self._polls[0]
        if now_s - began_s < _LEAST_S:
            return
        filled = before - room
        self._left_s = max(0.0, room) * (now_s - began_s) / filled if filled > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the disk is full, at the rate of the last two minutes; None if it does not fill."""
        return self._left_s


def room_words(left_s: float | None, needed_s: float | None) -> str:
    """Say when the disk will be full, if a person must know; else return an empty string.

    Parameters
    ----------
    left_s : float or None
        From `DiskRoom.left_s`.
    needed_s : float or None
        Seconds that the run will still take; None for an open end, which is warned under `OPEN_END_S`.
    """
    if left_s is None or left_s >= (OPEN_END_S if needed_s is None else needed_s):
        return ""
    # In steps: nobody reads a sentence that changes each second.
    minutes = max((step for step in _STEPS_MIN if 60 * step <= left_s), default=0)
    left = say("session.about-minutes", minutes=minutes) if minutes else say("session.under-a-minute")
    return say("session.disk-fills" if needed_s is None else "session.disk-fills-too-soon", time=left)


def make_folder(folder: Path) -> None:
    """Create the folder of a session, which must not exist, within one that must."""
    try:
        folder.mkdir()
    except FileExistsError:
        raise BadInput("session.exists", folder=folder) from None
    except ValueError:
        raise BadInput("session.name-holds-nul", folder=str(folder)) from None
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            if not folder.parent.exists():
                raise BadInput("session.no-parent-folder", folder=folder, parent=folder.parent) from None
            why = say("session.parent-takes-no-folders", parent=folder.parent)  # such as /proc
        raise BadInput("session.cannot-create", folder=folder, why=why) from None


class SessionWriter:
    """One session folder, from its first byte to its report.

    `create`, then `keep`, `heartbeat` and the `ring` from any threads, then `close` once.

    Attributes
    ----------
    folder : Path
    ring : FrameRing
        For the raw frames. `keep` puts the crops of the latest tracks beside them.
    room : DiskRoom
        When the disk will be full, as of the last heartbeat.
    conclusion : Conclusion
        The verdict, as of the last heartbeat or the close.
    report_fault : str or None
        After `close`: a sentence if everything but the report was written.
    """

    def __init__(self, folder: Path, source: SourceInfo, run: dict[str, Any], ring_frames: int) -> None:
        self.folder = folder
        self._run = run
        self._began_s = time.monotonic()
        self._source = source
        self._lock = threading.Lock()
        # For run.json alone, so that no track waits while it is written, each second.
        self._of_run = threading.Lock()
        self._closed = False
        self.room = DiskRoom(folder)
        self.report_fault: str | None = None
        self.conclusion = conclude(run)
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
                simulated=source.simulated,
            )
            undo.callback(self.ring.close)
            self._crops = CropStore(folder / "crops.zarr")
            self._tracks = Table(folder / "tracks.csv", tables.header(tables.TRACK_COLUMNS))
            undo.callback(self._tracks.close)
            self._fragments = Table(folder / tables.FRAGMENTS_FILE, tables.header(tables.FRAGMENT_COLUMNS))
            undo.callback(self._fragments.close)
            self._cells = Table(folder / "cells.csv", tables.header(tables.CELL_COLUMNS))
            undo.callback(self._cells.close)
            sync_folder(folder)
            self._tables = (self._cells, self._tracks, self._fragments)
            self._log = SessionLog(folder / "run.log")
            undo.pop_all()
        # A dozen files are synced after each batch: together they cost the disk as much as a few.
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
        record: RunRecord | None = None,
    ) -> SessionWriter:
        """Create the folder, with `status` running.

        Parameters
        ----------
        folder : Path
            Must not exist; the folder that it is to be in must.
        source : SourceInfo
            Goes into the parameters.
        parameters : mapping
            What else was chosen for this run, of JSON's types.
        models : mapping
            ``stage1`` and ``stage2``, each with ``name`` and ``hash``.
        patient, sample : str
        ring_frames : int
            How many raw frames the ring holds.
        record : RunRecord, optional

        Raises
        ------
        BadInput
            If the folder exists or cannot be created, or the disk is too small. Nothing is left.
        """
        folder = Path(folder)
        run = {
            "format": schema.FORMAT,
            "status": RunStatus.RUNNING,
            "stop_reason": None,
            "stop_sentence": "",
            **RunSummary(warnings=source.warnings).as_dict(),
            "parameters": {**schema.source_parameters(source), "ring_frames": ring_frames, **parameters},
            "models": dict(models),
            "versions": schema.versions(),
            "patient": patient,
            "sample": sample,
            **(record or RunRecord()).as_dict(),
            "simulated": source.simulated,
            "started": schema.now(),
            "ended": None,
        }
        run |= conclude(run).as_dict()
        make_folder(folder)
        try:
            writer = cls(folder, source, run, ring_frames)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                why = say("session.disk-is-full") if is_full(error) else error.strerror or str(error)
                raise BadInput("session.cannot-start", folder=folder, why=why) from error
            raise
        log.info("%s", say("session.log-started", folder=folder, source=source.name))
        for warning in source.warnings:
            log.warning("%s", warning)
        return writer

    def keep(self, pairs: Sequence[tuple[Track, Judgement]]) -> None:
        """Save tracks with their judgements; on the disk when it returns.

        All of them or none: after a failure the session is as it was.

        Parameters
        ----------
        pairs : sequence of (Track, Judgement)
            In the order of hand-over; each pair is of one cell.

        Raises
        ------
        RunFailed
            If the disk is full or cannot be written.
        """
        if not pairs:
            return
        if any(track.cell != judgement.cell for track, judgement in pairs):
            raise ValueError(say("session.judgement-of-another-cell"))
        tracks = [track for track, _ in pairs]
        with self._lock, disk_faults(self.folder):
            if self._closed:
                raise RunFailed("ring.closed", path=self.folder)
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
                self._fragments.append(fragments := tables.fragment_rows(tracks))
                also = [self._fragments.fileno()] if fragments else []
                self._sync([*self._crops.unsynced(), self._tracks.fileno(), *also])
                # A track is saved once its row in cells.csv is: so that comes last.
                self._cells.append(
                    tables.cell_rows(pairs, fps=self._source.fps, pixel_size_um=self._source.pixel_size_um)
                )
                self._sync([self._cells.fileno()])
            except BaseException:
                for table in self._tables:
                    table.roll_back()
                raise
            self._crops.commit(tracks)
            for table in self._tables:
                table.commit()

    def set_parameter(self, name: str, value: Any) -> None:
        """Change one of the parameters; the next `heartbeat` or `close` writes it."""
        with self._of_run:
            self._run["parameters"][name] = value

    def heartbeat(self, account: RunSummary) -> None:
        """Write the counts so far into ``run.json``; `RunFailed` if the disk does not take them."""
        with self._of_run, disk_faults(self.folder):
            if not self._closed:
                self._take(account)
                schema.write_run(self.folder, self._run)
                self.room.poll(self._tracks.size + self._cells.size)  # sorting needs them once more

    def close(
        self,
        account: RunSummary,
        status: str,
        stop_reason: str,
        stop_sentence: str = "",
        changed: Mapping[int, tuple[str, str]] | None = None,
    ) -> None:
        """End the session: sort the tables, write the last ``run.json``, then the report.

        A report that fails changes nothing else: it is logged, and becomes a warning in ``run.json``.

        Parameters
        ----------
        account : RunSummary
        status : RunStatus or str
            Anything but running.
        stop_reason : str
            As in ``run.json``.
        stop_sentence : str
            What the rule that stopped the run found, if its name does not say.
        changed : mapping of int to (str, str), optional
            Label and reason of the cells that get others at the end; `account` counts them so.

        Raises
        ------
        RunFailed
            If the disk does not take even that. What was saved can be read.
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
                for table in self._tables:
                    table.close()
                self._log.close()
                self._marker.remove()

    def _close(
        self, account: RunSummary, status: str, stop_reason: str, changed: Mapping[int, tuple[str, str]]
    ) -> None:
        self._marker.release_reserve()
        self.ring.close()
        crops_closed = self._close_crops()
        for table in self._tables:
            table.close()
        self._take(account)
        if not crops_closed:
            self._run["warnings"].append(say("session.crops-end-empty"))
        cells = self._sort_tables(changed)
        if changed and cells is None:
            # Another label than its table holds must not be counted.
            self._run.update(counts_as_kept(Session(self.folder, {**self._run, "status": RunStatus.RUNNING})))
        self._run["fraction_unseen_flips"] = self._unseen_flips(cells)
        ended = schema.later(self._run["started"], time.monotonic() - self._began_s)
        self._run.update(status=status, stop_reason=stop_reason, ended=ended)
        self._conclude()
        if account.focus_speed:
            figures = ", ".join(f"{name} {value}" for name, value in account.focus_speed.items())
            log.info("%s", say("session.log-focus-speed", figures=figures))
        log.info(
            "%s", say("session.log-closed", status=status, reason=stop_reason, cells=dict(account.cells))
        )
        written = self._write_run()
        fault = "" if written else say("session.disk-is-full")
        if written:
            try:
                write_report(self.folder, self._run, cells)
            except Exception as error:
                log.exception("%s", say("session.log-report-failed"))
                full = isinstance(error, OSError) and is_full(error)
                fault = say("session.disk-is-full") if full else sentence_of(error)
        if fault:
            self.report_fault = say("session.report-failed", why=fault)
            self._run["warnings"].append(self.report_fault)
            try:
                if not self._write_run():
                    # Another program took the reserve, all but these last bytes.
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

    def _close_crops(self) -> bool:
        """Close the crops; False if the disk is full, which leaves empty rows at their end."""
        try:
            self._crops.close()
        except OSError as error:
            if not is_full(error):
                raise
            return False
        return True

    def _sort_tables(self, changed: Mapping[int, tuple[str, str]]) -> pd.DataFrame | None:
        """Sort the tables and note their fingerprints; return ``cells.csv``, or None if it was not sorted.

        A table that cannot be sorted is still whole: no reason to lose the end of a run.
        """
        files: dict[str, tables.Fingerprint] = {}
        index = self._crops.index()

        def attempt(name: str, sort: Callable[[Path], T]) -> T | None:
            try:
                return sort(self.folder / name)
            except OSError as error:
                # It needs the table's size once more, and on Windows no other program may have it open.
                log.warning("%s", say("session.log-unsorted", name=name), exc_info=error)
                self._run["warnings"].append(
                    say("session.unsorted-disk-full", name=name)
                    if is_full(error)
                    else say("session.unsorted", name=name, why=error.strerror or error)
                )
                return None

        sorted_cells = attempt("cells.csv", lambda path: tables.sort_cells(path, changed))
        if sorted_cells is not None:
            files["cells.csv"] = sorted_cells[0]
        tracks = attempt("tracks.csv", lambda path: tables.sort_tracks(path, index[:, 0], index[:, 2]))
        if tracks is not None:
            files["tracks.csv"] = tracks
        attempt(tables.FRAGMENTS_FILE, tables.sort_fragments)
        self._run["files"] = {
            name: files.get(name) or tables.fingerprint(self.folder / name)
            for name in ("cells.csv", "tracks.csv", tables.FRAGMENTS_FILE)
        }
        return None if sorted_cells is None else sorted_cells[1]

    def _unseen_flips(self, cells: pd.DataFrame | None) -> dict[str, Any] | None:
        """Correct the fraction for unseen flips; a fault there must not lose the end of a run."""
        try:
            return unseen_flips_record(self._run, Session(self.folder, self._run, cells).cells)
        except Exception:
            log.exception("%s", say("session.log-no-correction"))
            return None

    def _take(self, account: RunSummary) -> None:
        """Take over the counts; the source's warnings stay."""
        self._run.update(account.as_dict())
        warnings = self._run["warnings"]
        warnings[:0] = [warning for warning in self._source.warnings if warning not in warnings]
        self._conclude()

    def _conclude(self) -> None:
        self.conclusion = conclude(self._run)
        self._run.update(self.conclusion.as_dict())

    def _sync(self, handles: Sequence[int]) -> None:
        if len(handles) == 1:
            os.fsync(handles[0])
        else:
            list(self._syncing.map(os.fsync, handles))
