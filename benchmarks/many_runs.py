"""What run after run leaves behind in one napari: memory, threads, processes, open files, layers, Qt objects.

    OMP_NUM_THREADS=1 xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/many_runs.py
        [--runs 20] [--seconds 5] [--closing] [--objects]

Opens napari with the Live dock, presses Start, waits until the simulated chamber has stopped, and so on. With
`--closing` each run has a window of its own, which is closed in mid run. Prints a line a run, and what kinds
of Python objects there are more of with `--objects`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import psutil
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication

from napari_rbcflow.session import verify
from napari_rbcflow.widgets.window import docked

PATIENCE_S = 600


def wait(true: Callable[[], Any]) -> None:
    """Let napari go on until something is true."""
    until = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(true)
        QApplication.processEvents()
        # Without a loop of events Qt keeps for ever what was to be deleted later.
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        time.sleep(0.005)


def left(worker: int | None) -> dict[str, int]:
    """Return what this program holds now."""
    gc.collect()
    me = psutil.Process()
    found = {"viewer_mb": me.memory_info().rss >> 20}
    if worker is not None:
        its = psutil.Process(worker)
        found |= {"worker_mb": its.memory_info().rss >> 20, "worker_threads": its.num_threads()}
    found |= {"threads": me.num_threads(), "children": len(me.children(recursive=True))}
    if hasattr(me, "num_fds"):
        found["files"] = me.num_fds()
    return found


def press_start(viewer: napari.Viewer, folder: Path, seconds: float) -> Any:
    """Begin a run of the simulated chamber as a person does; return the dock."""
    widget = docked(viewer)
    form = widget.form
    form.folder.setText(str(folder))
    if form.choice.spec != "simulated":
        form.camera.setCurrentIndex(0)
    form.stop.by_reliable.setChecked(False)
    form.stop.by_seconds.setChecked(True)
    form.stop.seconds.setValue(seconds)
    wait(lambda: widget._parts.worker.ready)
    widget.start_button.click()
    return widget


def in_one_window(folder: Path, seconds: float, n: int, objects: bool) -> list[dict[str, int]]:
    """Start, wait for the stop, and again."""
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    rows: list[dict[str, int]] = []
    before: Counter[str] = Counter()
    for k in range(n):
        widget = press_start(viewer, folder, seconds)
        worker = widget._parts.worker
        wait(lambda widget=widget: not widget._going)
        assert widget.run is not None
        assert widget.run.outcome == ("finished", "seconds"), widget.run.sentence
        wait(lambda worker=worker: worker.ready)
        shutil.rmtree(widget.run.folder)  # twenty of them would fill a small disk
        window = viewer.window._qt_window
        ours = {"timers": len(window.findChildren(QTimer)), "qt": len(window.findChildren(QObject))}
        rows.append({**left(worker.pid), "layers": len(viewer.layers), **ours})
        print(k + 1, json.dumps(rows[-1]), flush=True)
        if objects and k in (4, n - 1):
            kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
            print((kinds - before).most_common(25) if before else "", flush=True)
            before = kinds
    viewer.close()
    return rows


def each_closed(folder: Path, n: int) -> list[dict[str, int]]:
    """Close the window in mid run."""
    rows = []
    for k in range(n):
        viewer = napari.Viewer()
        widget = press_start(viewer, folder, 3600)
        run, pid = widget.run, widget._parts.worker.pid
        assert run is not None
        wait(lambda run=run: run.snapshot is not None and run.snapshot.progress.cells["tracked"])
        viewer.close()
        del viewer, widget
        assert run.outcome == ("stopped", "user"), run.outcome
        assert verify(run.folder).code == 0
        assert not psutil.pid_exists(pid)
        shutil.rmtree(run.folder)
        QApplication.processEvents()
        rows.append(left(None))
        print(k + 1, json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Run, and say how it grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--closing", action="store_true", help="a window a run, closed in mid run")
    parser.add_argument("--objects", action="store_true", help="kinds of objects that there are more of")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rbcflow-runs-") as place:
        os.environ.setdefault("RBCFLOW_CONFIG", f"{place}/config")
        folder = Path(place) / "sessions"
        if args.closing:
            rows = each_closed(folder, args.runs)
        else:
            rows = in_one_window(folder, args.seconds, args.runs, args.objects)
    for name in rows[0]:
        values = [row[name] for row in rows]
        third = max(1, len(values) // 3)
        print(
            f"{name:10} first third {statistics.median(values[:third]):.0f},"
            f" last third {statistics.median(values[-third:]):.0f}, most {max(values)}"
        )


if __name__ == "__main__":
    main()
