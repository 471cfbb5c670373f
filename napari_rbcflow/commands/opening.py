"""A run begun in the terminal: a camera that does not answer must not take Ctrl-C away."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from napari_rbcflow.commands.carrying_out import stopped_by_signals
from napari_rbcflow.errors import BadInput

if TYPE_CHECKING:
    from napari_rbcflow.pipeline.run import Run

THREAD = "rbcflow-opening"
PATIENCE_S = 8.0
"""That a camera which is being opened has to answer, once a person stopped it; as in `worker`."""
_LOOK_S = 0.1


def begin(run: Run) -> bool:
    """Start a run; return whether a person asked to stop meanwhile.

    Python hears a Ctrl-C only between its own steps, and in a call into a driver there are none: so the
    driver is called in another thread. One that never returns is left there; `group.main` ends all the same.

    Raises
    ------
    BadInput
        As `Run.start`; or where the source did not answer after a person asked to stop.
    """
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run.start()
        except BaseException as error:
            failed.append(error)

    asked = threading.Event()
    opening = threading.Thread(target=work, name=THREAD, daemon=True)
    with stopped_by_signals(asked.set):
        opening.start()
        while opening.is_alive() and not asked.is_set():
            opening.join(_LOOK_S)
        if asked.is_set():
            run.source.stop()
            opening.join(PATIENCE_S)
    if opening.is_alive():
        raise BadInput(
            "the source did not answer while it was being opened (nothing was made): check camera and path"
        )
    if failed:
        raise failed[0]
    return asked.is_set()
