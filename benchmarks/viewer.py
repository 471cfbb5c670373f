"""What the viewer costs while a run goes on: pictures, stalls, frames, latency, memory.

    OMP_NUM_THREADS=1 xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer.py
        [--seconds 30] [--widget] [--mode newest] [--picture FILE.png] [--film DIR]
        [--camera FILE.cfg --mm-path DIR]

Opens napari, plays the simulated chamber at 1376 x 1096 and 60 frames/s, or another camera, in a worker's
process and shows it: the picture alone, or with `--widget` the whole dock widget. It needs a screen, or Xvfb.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_rbcflow.estimate import StopRules
from napari_rbcflow.pipeline.client import Phase, Worker, WorkerRun
from napari_rbcflow.pipeline.messages import Camera, RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.widgets.picture import LivePicture

UPDATE_MS = 50
PROBE_MS = 5
ANSWER_MS = 100
"""Within which the interface is to answer."""
MEMORY_S = 10.0


def rss_mb(pid: int) -> float:
    """Memory of a process in MB; NaN where the system has no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(pid: int) -> float:
    """CPU time of a process so far; NaN where the system has no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Probe:
    """Measures the interface from inside: its stalls, and what each update of the picture costs."""

    def __init__(self, picture: LivePicture) -> None:
        self.gaps_ms: list[float] = []
        self.ended_s: list[float] = []
        self.update_ms: list[float] = []
        self.draw_ms: list[float] = []
        self._draws = 0
        self.first_s: float | None = None
        self._picture = picture
        self._last = time.perf_counter()
        self._inner = picture.update
        picture.update = self._measured  # type: ignore[method-assign]
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)
        self.timer.start(PROBE_MS)

    def forgive(self) -> None:
        """Leave out the gap since the last tick."""
        self._last = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._picture.budget.draws != self._draws:
            self._draws = self._picture.budget.draws
            self.draw_ms.append(self._picture.budget.draw_ms)
        self.gaps_ms.append(1000 * (now - self._last))
        self.ended_s.append(now)
        self._last = now

    def _measured(self, *given: Any) -> None:
        before, began = self._picture.updates, time.thread_time()
        self._inner(*given)
        if self._picture.updates > before:
            self.update_ms.append(1000 * (time.thread_time() - began))
            if self.first_s is None:
                self.first_s = time.perf_counter()


def watch_alone(picture: LivePicture, run: WorkerRun) -> QTimer:
    """Feed the picture from a run, as the dock widget does."""
    begun = False

    def tick() -> None:
        nonlocal begun
        if run.info is None:
            return
        if not begun:
            begun = True
            picture.begin(run.info, run.folder)
        judged, _ = run.take()
        picture.update(run.snapshot, judged)

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(UPDATE_MS)
    return timer


def watch_screen(viewer: napari.Viewer, seconds: float, film: Path) -> subprocess.Popen[str]:
    """Count the pictures in the middle of the canvas from another process."""
    canvas = viewer.window._qt_viewer.canvas.native
    at = canvas.mapToGlobal(canvas.rect().center())
    place = [at.x() - 200, at.y() - 150, 400, 300]
    command = [sys.executable, str(Path(__file__).with_name("seen.py")), *map(str, [*place, seconds])]
    return subprocess.Popen([*command, "--film", str(film)], stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Play, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of the run")
    parser.add_argument("--cells-per-frame", type=float, default=115.0)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--camera", default="simulated", help="as of `rbcflow live`")
    parser.add_argument("--mm-path", type=Path)
    parser.add_argument("--widget", action="store_true", help="the whole dock widget, not the picture alone")
    parser.add_argument("--mode", choices=("cells", "newest"), default="cells")
    parser.add_argument(
        "--film", type=Path, help="count the pictures on the screen, and save one each second here"
    )
    parser.add_argument("--size", default="1500x950", help="of the window")
    parser.add_argument("--picture", type=Path, help="save a picture of the window in mid run here")
    args = parser.parse_args()

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*map(int, args.size.split("x")))
    app = QApplication.instance()
    assert app is not None
    asked: dict[str, Any] = {"mm_path": args.mm_path} if args.mm_path else {}
    if args.camera == "simulated":
        asked = {"seed": args.seed, "cells_per_frame": args.cells_per_frame}
    order = RunRequest(
        Camera(args.camera, asked),
        Path(tempfile.mkdtemp(prefix="rbcflow-viewer-")) / "session",
        RunSettings(stop=StopRules(seconds=args.seconds)),
    )
    if args.widget:
        from napari_rbcflow.widgets.live import LiveWidget

        widget = LiveWidget(viewer)
        viewer.window.add_dock_widget(widget, area="right")
        picture, worker = widget._parts.picture, widget._parts.worker
    else:
        picture, worker = LivePicture(viewer), Worker()
    picture.mode = args.mode
    while not worker.ready:
        app.processEvents()
        time.sleep(0.01)
    probe = Probe(picture)
    started = time.perf_counter()
    if args.widget:
        run, timer = widget.open_with(order), None
    else:
        run = worker.start(order)
        timer = watch_alone(picture, run)
    memory: list[tuple[float, float, float]] = []
    n_cells: list[int] = []
    taken = args.picture is None
    opened: float | None = None
    cpu = {}
    seen: subprocess.Popen[str] | None = None

    def look() -> None:
        nonlocal taken, opened, seen
        now = time.perf_counter() - started
        if run.snapshot is not None:
            n_cells.append(len(run.snapshot.cell))
        if opened is None and run.phase is Phase.RUNNING:
            opened = now
            cpu.update({"viewer": -cpu_s(os.getpid()), "worker": -cpu_s(worker.pid)})
            probe.gaps_ms.clear()
            probe.ended_s.clear()
        if args.film is not None and seen is None and opened is not None and now > opened + 3:
            seen = watch_screen(viewer, args.seconds - 6, args.film)
        if not memory or now - memory[-1][0] >= MEMORY_S:
            memory.append((now, rss_mb(os.getpid()), rss_mb(worker.pid)))
        if not taken and now > 0.7 * args.seconds:
            taken = True
            viewer.screenshot(str(args.picture), canvas_only=False, flash=False)
            probe.forgive()
        if run.ended:
            cpu["viewer"] += cpu_s(os.getpid())
            cpu["worker"] += cpu_s(worker.pid)
            watching.stop()
            app.quit()

    watching = QTimer()
    watching.timeout.connect(look)
    watching.start(200)
    app.exec()
    probe.timer.stop()
    if timer is not None:
        timer.stop()
    lasted = time.perf_counter() - started - (opened or 0.0)

    account = json.loads((run.folder / "run.json").read_text())
    frames, latency = account["frames"], account["latency_ms"]
    gaps = np.array(probe.gaps_ms)
    own = np.array(probe.update_ms)
    print(f"canvas                 {viewer.canvas.size[1]} x {viewer.canvas.size[0]} px")
    print(f"run                    {run.outcome[0]} ({run.outcome[1]}), {lasted:.1f} s")
    print(f"frames                 received {frames['received']}, dropped {sum(frames['dropped'].values())}")
    print(f"cells in a frame       {statistics.median(n_cells):.0f} tracked (median)")
    print(f"label latency          p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms")
    print(f"pictures               {len(own) / lasted:.1f} a second")
    print(
        f"own work an update     p50 {np.percentile(own, 50):.2f} ms, p95 {np.percentile(own, 95):.2f} ms CPU"
    )
    if seen is not None:
        on_screen = json.loads(seen.communicate()[0])
        rates = on_screen["per_s"]
        print(
            f"on the screen          {statistics.mean(rates):.1f} distinct pictures a second"
            f" (least {min(rates)}), stood still for {on_screen['stood_ms']} ms at most;"
            f" looked at {on_screen['looks']} times"
        )
    draw = np.array(probe.draw_ms or [np.nan])
    print(
        f"draw and Qt after it   p50 {np.percentile(draw, 50):.0f} ms, p95 {np.percentile(draw, 95):.0f} ms"
    )
    print(
        f"event loop, gaps       p99 {np.percentile(gaps, 99):.0f} ms, longest {gaps.max():.0f} ms"
        f" (a timer of {PROBE_MS} ms)"
    )
    over = ", ".join(
        f"{gap:.0f} ms at {end - started - (opened or 0.0):.1f} s"
        for gap, end in zip(gaps, probe.ended_s, strict=True)
        if gap > ANSWER_MS
    )
    print(f"over {ANSWER_MS} ms            {over or 'none'}")
    print(
        f"CPU                    viewer {cpu['viewer'] / lasted:.2f} cores,"
        f" worker {cpu['worker'] / lasted:.2f} cores"
    )
    if opened is not None and probe.first_s is not None:
        print(f"first picture          {probe.first_s - started:.2f} s after Start ({opened:.2f} s opening)")
    print(f"picture                {picture.sentence}")
    for t, viewer_mb, worker_mb in memory:
        print(f"memory at {t:5.0f} s      viewer {viewer_mb:.0f} MB, worker {worker_mb:.0f} MB")
    if args.widget:
        widget.shut_down()
    else:
        picture.close()
        worker.close()
    shutil.rmtree(run.folder.parent)


if __name__ == "__main__":
    main()
