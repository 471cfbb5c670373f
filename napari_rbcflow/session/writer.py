"""Writing a session folder while a run goes on."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_rbcflow.errors import BadInput, RunFailed, sentence_of
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.ring.disk import disk_faults, is_full, sync_folder
from napari_rbcflow.session import pieces, runfile, tables
from napari_rbcflow.session.account import Account
from napari_rbcflow.session.beginning import first_run, make_folder
from napari_rbcflow.session.closing import close_tables
from napari_rbcflow.session.crops import CropStore
from napari_rbcflow.session.growing import Table
from napari_rbcflow.session.log import SessionLog
from napari_rbcflow.session.marker import WritingMarker
from napari_rbcflow.session.reading import Session
from napari_rbcflow.session.recovery import counts_as_kept
from napari_rbcflow.session.report import write_report
from napari_rbcflow.session.room import DiskRoom
from napari_rbcflow.session.watched import unseen_flips_record
from napari_rbcflow.types import Judgement, SourceInfo, Track

log = logging.getLogger(__name__)

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
            runfile.write_run(folder, run)
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
            self._pieces = Table(folder / pieces.NAME, tables.header(pieces.COLUMNS))
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
                self._pieces.append(of_pieces := pieces.piece_rows(tracks))
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
                runfile.write_run(self.folder, self._run)
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
        self._run.update(status=status, stop_reason=stop_reason, ended=runfile.now())
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
                    self._marker.become(self.folder / runfile.NAME, runfile.encoded(self._run))
            except OSError:
                if not written:  # else the counts are on the disk already
                    raise

    def _write_run(self) -> bool:
        """Write ``run.json``; False where the disk is full."""
        try:
            runfile.write_run(self.folder, self._run)
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
