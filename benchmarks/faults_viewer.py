"""The lane of `faults.py` with a real LiveWidget in a real napari window. Started by it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from fault_bench import Bench, Seen, children, goes, still_there, told, until, waits
from fault_cases import CASES, Case, Setting
from faults import NO_DISK, PATIENCE_S, as_row, finish, provoke
from faulty import Faulty
from qtpy.QtCore import QEvent

from napari_rbcflow.pipeline.client import Phase
from napari_rbcflow.pipeline.messages import Camera, RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.session import verify

NAMES = (
    *("unplugged", "silent", "hangs", "server-killed", "server-hangs"),
    *("disk-start", "disk-full", "disk-other", "gpu-first", "worker-killed"),
)


class Screen:
    """napari with the live widget in it, and a person's hands and eyes."""

    def __init__(self, folder: Path, pictures: Path | None) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        from napari_rbcflow.widgets.window import docked

        self.viewer = napari.Viewer()
        self.viewer.window._qt_window.resize(1500, 950)
        self.widget = docked(self.viewer)
        self.folder, self.pictures = folder, pictures
        self._app = QApplication.instance()
        self.stall_s = 0.0
        waits.append(self._live)

    def _live(self, seconds: float) -> None:
        began = time.monotonic()
        self._app.processEvents()  # type: ignore[union-attr]
        # Without a loop of events Qt keeps for ever what was to be deleted later: windows, docks, labels.
        self._app.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # type: ignore[union-attr]
        self.stall_s = max(self.stall_s, time.monotonic() - began)
        time.sleep(min(seconds, 0.005))

    def start(self, order: RunRequest) -> Any:
        """Press Start, as `rbcflow live --viewer` does."""
        return self.widget.open_with(order)

    @property
    def red(self) -> str:
        """What stands on a red ground."""
        return " ".join((*self.widget.message.grave, *self.widget.panel.warnings.grave[:1]))

    def picture(self, name: str) -> None:
        """Keep what a person saw."""
        until(lambda: False, 0.5)
        if self.pictures:
            self.viewer.screenshot(str(self.pictures / f"fault-{name}.png"), canvas_only=False, flash=False)

    def start_again(self, camera: Camera, folder: Path) -> str:
        """Press Start once more, and Stop; say how that went."""
        widget = self.widget
        # The form takes the camera; where the session goes, and the button, are a person's.
        widget.form.fill(RunRequest(camera, folder / "x", RunSettings(device="cpu", ring_seconds=0.2)))
        widget.form.folder.setText(str(folder))
        began = time.monotonic()
        widget.start_button.click()
        run = widget.run
        if run is None or run.ended:
            return f"NO: {self.red}"
        until(lambda: run.ended or (run.snapshot is not None and run.snapshot.progress.processed), PATIENCE_S)
        first_s = time.monotonic() - began
        widget.stop_button.click()
        until(lambda: not widget._going, PATIENCE_S)
        if run.outcome != ("stopped", "user") or widget.message.grave:
            return f"NO: {run.sentence or run.outcome}"
        code = verify(run.folder).code
        return f"frames after {first_s:.1f} s" + (f", verify {code}" if code else "")


def by_viewer(case: Case, setting: Setting, folder: Path, screen: Screen, bench: Bench) -> Seen:
    """Meet a fault in the window, and press Start again."""
    seen = Seen(case.what, "napari")
    widget = screen.widget
    camera: Any = setting.camera
    if setting.fault:
        assert setting.mark is not None
        camera = Faulty(camera, setting.fault, setting.mark)
        # The form shows what can be typed in; what breaks goes past it.
        widget.form.fill = lambda _: None  # type: ignore[method-assign,assignment]
    screen.stall_s = 0.0
    run = screen.start(
        RunRequest(
            camera, folder, RunSettings(device="cuda" if setting.survives else "cpu", ring_seconds=0.2)
        )
    )
    widget.form.__dict__.pop("fill", None)
    pid = widget._parts.worker.pid
    below: dict[int, str] = {}
    at = provoke(setting, folder, pid, lambda: run.ended, below)
    if setting.survives:
        until(lambda: run.ended or "graphics card (" in " ".join(widget.panel.notes.sentences), PATIENCE_S)
        when = time.time()
        line = next((s for s in widget.panel.notes.sentences if "graphics card (" in s), "")
        until(lambda: False, 1.0)
        screen.picture(case.name)
        widget.stop_button.click()
        until(lambda: not widget._going, PATIENCE_S)
    else:
        until(lambda: not widget._going, PATIENCE_S)
        when, line = time.time(), screen.red
    finish(seen, setting, folder, at, when, line)
    if not setting.survives:
        screen.picture(case.name)
    if run.phase is not Phase.REFUSED and not setting.survives and widget.start_button.isEnabled() is False:
        seen.left = "Start cannot be pressed"
    below.pop(pid, None)
    seen.left += ", ".join(still_there(below))
    seen.again = screen.start_again(setting.again or bench.camera()[0], bench.new("again"))
    return seen


def taken_away(how: str, screen: Screen, bench: Bench) -> Seen:
    """Close the dock, or the window, in mid run."""
    seen = Seen(f"the {how}'s x in mid run", "napari")
    folder = bench.new(how) / "session"
    run = screen.start(RunRequest(bench.camera()[0], folder, RunSettings(device="cpu", ring_seconds=0.2)))
    until(lambda: run.ended or goes(folder), PATIENCE_S)
    worker = screen.widget._parts.worker.pid
    below = {worker: "the worker", **children(worker)}
    at = time.time()
    if how == "dock":
        screen.widget.parentWidget().title.close_button.click()  # type: ignore[union-attr]
    else:
        screen.viewer.close()
    until(lambda: run.ended, PATIENCE_S)
    when = time.time()
    finish(seen, Setting(Camera(""), "stopped"), folder, at, when, "nothing: it was taken away")
    seen.left = ", ".join(still_there(below))
    return seen


def killed(bench: Bench, folder: Path) -> Seen:
    """Kill -9 the process of the window."""
    seen = Seen("napari killed (-9)", "outside")
    session = bench.new("killed") / "session"
    camera = bench.camera()[0]
    command = [sys.executable, __file__, "--to-be-killed", camera.spec, str(session)]
    command += ["--folder", str(folder), "--adapters", str(camera.options["mm_path"])]
    process = subprocess.Popen(command)
    until(lambda: process.poll() is not None or goes(session), 90)
    below = {pid: c for pid, c in children(process.pid).items() if psutil.pid_exists(pid)}
    process.kill()
    process.wait()
    at = time.time()
    until(lambda: told(session).get("status") != "running", PATIENCE_S)
    when = time.time()
    finish(seen, Setting(camera, "stopped"), session, at, when, "nothing: the window is gone")
    seen.sentence_s = None
    seen.left = ", ".join(still_there(below, 8.0))
    return seen


def to_be_killed(spec: str, session: Path, adapters: str, folder: Path) -> None:
    """Run until somebody kills this process."""
    screen = Screen(folder, None)
    screen.start(
        RunRequest(Camera(spec, {"mm_path": adapters}), session, RunSettings(device="cpu", ring_seconds=0.2))
    )
    until(lambda: False, 120)


def lane(folder: Path, only: Sequence[str], pictures: Path | None) -> list[dict[str, Any]]:
    """Go through the faults in one window, then take it away."""
    rows: list[dict[str, Any]] = []

    began = time.monotonic()

    def keep(name: str, seen: Seen, setting: Setting) -> None:
        nonlocal began
        rows.append(as_row(name, seen, setting, time.monotonic() - began))
        began = time.monotonic()

    with contextlib.closing(Bench(folder / "viewer")) as bench:
        screen = Screen(folder, pictures)
        until(lambda: screen.widget._parts.worker.ready, 120)
        for case in CASES:
            if case.name not in (only or NAMES) or case.name not in NAMES:
                continue
            if (setting := case.make(bench)) is None:
                rows.append({"name": case.name, "row": "", "wrong": "", "left out": NO_DISK})
                continue
            place = (setting.parent or bench.new(case.name)) / "session"
            seen = by_viewer(case, setting, place, screen, bench)
            keep(case.name, seen, setting)
            rows[-1]["longest_stall_s"] = round(screen.stall_s, 3)
        stopped = Setting(Camera(""), "stopped")
        if not only or "killed" in only:
            keep("killed", killed(bench, folder), stopped)
        if not only or "closed" in only:
            keep("dock-closed", taken_away("dock", screen, bench), stopped)
            from napari_rbcflow.widgets.window import docked

            screen.widget = docked(screen.viewer)
            keep("window-closed", taken_away("window", screen, bench), stopped)
    return rows


def main() -> None:
    """Run the lane, or what is to be killed in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--lane", help=argparse.SUPPRESS)
    parser.add_argument("--as-lane", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--to-be-killed", nargs=2)
    parser.add_argument("--adapters")
    given = parser.parse_args()
    os.environ["RBCFLOW_CONFIG"] = str(given.folder / "config")
    os.environ["NAPARI_CONFIG"] = ""
    if given.to_be_killed:
        to_be_killed(given.to_be_killed[0], Path(given.to_be_killed[1]), given.adapters, given.folder)
        return
    rows = lane(given.folder, given.only, given.pictures)
    (given.folder / "viewer.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
