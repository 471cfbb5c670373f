"""A hundred starts and stops of the live widget: what is left of them.

    python benchmarks/starts.py --starts 100

Needs a screen (``xvfb-run -a -s "-screen 0 1600x1000x24" python ...``). Prints, every tenth start, the
threads, open files and memory of both processes and the layers and callbacks of the viewer; a leak
shows as a number that rises. Sessions go into a temporary folder and are deleted as they come.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def of_process(pid: int) -> tuple[int, int, float]:
    """Return threads, open files and resident megabytes."""
    proc = Path("/proc") / str(pid)
    pages = int((proc / "statm").read_text().split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir())), megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=100)
    starts = parser.parse_args().starts

    import napari
    from qtpy.QtCore import QObject, QTimer
    from qtpy.QtWidgets import QApplication

    from napari_rbcflow.estimate import StopRules
    from napari_rbcflow.pipeline.messages import Camera, RunRequest
    from napari_rbcflow.pipeline.settings import RunSettings
    from napari_rbcflow.widgets.live import LiveWidget

    viewer = napari.Viewer()
    widget = LiveWidget(viewer)
    viewer.window.add_dock_widget(widget, area="right")
    worker = widget._parts.worker
    window = viewer.window._qt_window

    def until(true: Callable[[], object], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            QApplication.processEvents()
            time.sleep(0.005)
            if time.monotonic() > deadline:
                raise SystemExit("waited in vain: a start or a stop hung")

    until(lambda: worker.ready)
    print(f"{'':>6} | viewer: threads files MB | worker: threads files MB | layers timers objects")
    first_pictures_s = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(starts + 1):
            folder = Path(scratch) / str(number)
            pictures = widget._parts.picture.updates
            began = time.perf_counter()
            chamber = Camera("simulated", {"seed": number})
            run = widget.open_with(RunRequest(chamber, folder, RunSettings(stop=StopRules(seconds=600))))
            until(lambda before=pictures: widget._parts.picture.updates > before)
            first_pictures_s.append(time.perf_counter() - began)
            widget.stop_button.click()
            until(lambda run=run: run.ended and widget.start_button.isEnabled())
            if run.outcome != ("stopped", "user"):
                raise SystemExit(f"start {number} ended as {run.outcome}: {run.sentence}")
            shutil.rmtree(folder)
            if number % 10 == 0:
                gc.collect()
                ours, theirs = of_process(os.getpid()), of_process(worker.pid)
                print(
                    f"{number:6d} | {ours[0]:15d} {ours[1]:5d} {ours[2]:5.0f}"
                    f" | {theirs[0]:15d} {theirs[1]:5d} {theirs[2]:5.0f}"
                    f" | {len(viewer.layers):6d} {len(window.findChildren(QTimer)):6d}"
                    f" {len(window.findChildren(QObject)):7d}",
                    flush=True,
                )
    print(
        f"first picture after Start: median {statistics.median(first_pictures_s):.2f} s, "
        f"worst {max(first_pictures_s):.2f} s"
    )
    viewer.close()
    gone = worker._child.process.poll() is not None
    print(f"worker after the window was closed: {'gone' if gone else 'THERE'}")


if __name__ == "__main__":
    main()
