"""Closing a session whose process died during the run."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.session import schema, tables
from napari_rbcflow.session.counting import corrected_figure
from napari_rbcflow.session.reader import Session, open_session
from napari_rbcflow.session.report import write_report_again
from napari_rbcflow.session.schema import CELL_COUNTS, is_being_written, plain
from napari_rbcflow.session.verdict import conclude
from napari_rbcflow.types import RunStatus

log = logging.getLogger(__name__)

LOST = "run-failed"


def counts_as_kept(session: Session) -> dict[str, Any]:
    """Return the part of ``run.json`` that counts the labels as given during the run, which is not closed."""
    labels = session.cells["label"]
    cells = {name: int((labels == name.replace("_", "-")).sum()) for name in CELL_COUNTS}
    cells["tracked"] = len(labels)
    return {
        "cells": cells,
        "fraction": plain(asdict(session.fraction)),
        "fraction_corrected": plain(
            asdict(
                corrected_figure(
                    session.run["models"],
                    cells,
                    session.fraction,
                    calibration=session.run.get("calibration"),
                )
            )
        ),
        "focus_speed": {"said": False, "reason": say("session.labels-as-told")},
    }


def close_interrupted(folder: Path, sentence: str) -> None:
    """Write into ``run.json`` that the run failed, and count what it saved.

    The tables stay in the order in which the tracks ended; ``rbcflow verify`` lists what is missing.

    Parameters
    ----------
    folder : Path
        A session with the status ``running`` that nobody writes any more.
    sentence : str
        Why.

    Raises
    ------
    BadInput
        If it is not a session.
    RunFailed
        If it is still being written, or its tables cannot be read.
    """
    session = open_session(folder)
    if not session.running:
        return
    if is_being_written(folder):
        raise RunFailed("session.still-written", folder=folder)
    run = dict(session.run)
    frames = run["frames"]
    lost = frames["received"] - frames["processed"] - sum(frames["dropped"].values())
    if lost > 0:  # as counted a second before the crash at most
        frames["dropped"][LOST] = frames["dropped"].get(LOST, 0) + lost
    run.update(
        status=RunStatus.FAILED,
        stop_reason=sentence,
        ended=schema.now(),
        **counts_as_kept(session),
        files={
            name: tables.fingerprint(folder / name)
            for name in ("cells.csv", "tracks.csv", tables.FRAGMENTS_FILE)
            if (folder / name).exists()
        },
    )
    run["warnings"] = [*run.get("warnings", ()), say("session.frames-as-of-last-second")]
    run.update(conclude(run).as_dict())
    schema.write_run(folder, run)
    if fault := write_report_again(folder):
        log.warning("%s", fault)
