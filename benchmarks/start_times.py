"""How long a start takes, from the command or from Start to the camera and to the first picture.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/start_times.py [--times 3] [--only WAY ...]
        [--cold] [--first] [--package FOLDER]

Ways: ``live`` (in the terminal), ``viewer`` and ``demo`` (the command opens napari), ``fresh`` (Start pressed
as soon as the dock is there), ``up`` (Start pressed when the dock's process is ready). A line a step: seconds
since the command or Start, and CPU seconds that the program and all its processes took until then. `--cold`
drops the system's cache of files before each (Linux, root); `--first` gives each an empty place for what is
compiled once; `--package` measures another copy. Seconds depend on what else the computer does: its load is
printed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PICTURE, STARTED = "first picture", "start pressed"
_PATIENCE_S = 300.0


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of all that it started."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(one.cpu_times()[:4])
    return total


def told(command: list[str], env: dict[str, str], last: str) -> Iterator[tuple[float, float, str]]:
    """Run a command at a terminal until it says `last`; yield seconds, CPU seconds and line."""
    import pty

    ours, theirs = pty.openpty()
    began = time.perf_counter()
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True)
    os.close(theirs)
    seen = psutil.Process(child.pid)
    too_long = threading.Timer(_PATIENCE_S, child.kill)
    too_long.start()
    try:
        rest = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while data := os.read(ours, 4096):
                now, spent = time.perf_counter() - began, cpu_s(seen)
                *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
                for line in filter(None, (of.decode(errors="replace").strip() for of in lines)):
                    yield now, spent, line
                    if last in line:
                        return
    finally:
        too_long.cancel()
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while os.read(ours, 4096):
                pass
        child.wait(60)
        os.close(ours)


# ---------------------------------------------------------------- in the measured process


def say_first_picture() -> None:
    """Print a line once the live picture has been put on the screen; without importing anything earlier."""
    name = "napari_rbcflow.widgets.picture"
    while getattr(sys.modules.get(name), "LivePicture", None) is None:
        time.sleep(0.01)
    shown: list[Any] = []
    kind = sys.modules[name].LivePicture
    begin = kind.__init__

    def noted(self: Any, *arguments: Any, **more: Any) -> None:
        begin(self, *arguments, **more)
        shown.append(self)

    kind.__init__ = noted
    while not any(picture.updates for picture in shown):
        time.sleep(0.005)
    print(PICTURE, flush=True)


def of_command(arguments: list[str]) -> None:
    """Be ``rbcflow``, and say when the first picture is there."""
    from napari_rbcflow.cli import main

    threading.Thread(target=say_first_picture, daemon=True).start()
    main(arguments)


def of_dock(folder: Path, *, ready: bool) -> None:
    """Open napari with the dock, press Start, and say when; `ready`: once the dock's process is."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_rbcflow.pipeline import Camera, RunRequest, RunSettings
    from napari_rbcflow.widgets.window import docked

    viewer = napari.Viewer()
    QApplication.processEvents()
    widget = docked(viewer)
    worker, picture = widget._parts.worker, widget._parts.picture
    while ready and not worker.ready:
        QApplication.processEvents()
        time.sleep(0.005)
    print(STARTED, flush=True)
    widget.open_with(RunRequest(Camera("simulated"), folder, RunSettings()))
    words = ""
    while not picture.updates:
        QApplication.processEvents()
        if widget.status.text() != words:
            words = widget.status.text()
            print(f"status: {words}", flush=True)
        time.sleep(0.005)
    print(PICTURE, flush=True)
    viewer.close()


# ---------------------------------------------------------------- what measures


def measure(way: str, env: dict[str, str], folder: Path) -> None:
    """Start once in one way, and print its steps."""
    rbcflow = ["--camera", "simulated", "-o", str(folder)]
    commands = {
        "live": ["live", *rbcflow, "--no-viewer"],
        "viewer": ["live", *rbcflow, "--viewer"],
        "demo": ["demo", "--viewer", "-o", str(folder)],
        "fresh": ["fresh", str(folder)],
        "up": ["up", str(folder)],
    }
    command = [sys.executable, "-P", __file__, "--be", *commands[way]]
    if way == "live":
        command = [sys.executable, "-P", "-m", "napari_rbcflow.cli", *commands[way]]
    load = os.getloadavg()[0]
    pressed = (0.0, 0.0)
    for at, spent, line in told(command, env, "1376 x 1096" if way == "live" else PICTURE):
        if line == STARTED:
            print(f"  {way}: start pressed {at:.2f} s after the command, {spent:.2f} CPU seconds")
            pressed = (at, spent)
        else:
            print(f"  {way} {at - pressed[0]:6.2f} s, CPU {spent - pressed[1]:6.2f} s: {line[:90]}")
    print(f"  load before {load:.1f}", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--be"]:
        what = sys.argv[2]
        if what in ("fresh", "up"):
            of_dock(Path(sys.argv[3]), ready=what == "up")
        else:
            of_command(sys.argv[2:])
        return
    ways = ("live", "viewer", "demo", "fresh", "up")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ways, default=ways)
    parser.add_argument("--cold", action="store_true", help="drop the system's cache of files before each")
    parser.add_argument("--first", action="store_true", help="with nothing compiled yet")
    parser.add_argument("--package", type=Path, help="the folder that holds another napari_rbcflow")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rbcflow-starts-") as place:
        env = {**os.environ, "RBCFLOW_CONFIG": f"{place}/config"}
        env["PYTHONPATH"] = str((args.package or Path(__file__).parents[1]).resolve())
        for way in args.only:
            for n in range(args.times):
                if args.first:
                    env["NUMBA_CACHE_DIR"] = f"{place}/compiled-{way}-{n}"
                if args.cold:
                    os.sync()
                    Path("/proc/sys/vm/drop_caches").write_text("3")
                folder = Path(place) / f"{way}-{n}"
                measure(way, env, folder)
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
