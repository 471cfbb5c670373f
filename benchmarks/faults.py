"""Provoke each fault for real, and measure what a person saw, how soon, and what was on the disk.

    OMP_NUM_THREADS=1 python benchmarks/faults.py [--json FILE] [--pictures DIR] [--only NAME] [--lane NAME]

Three lanes, two of them at a time: `command` (`rbcflow live --no-viewer`), `worker` (the process that the
widget uses, with a next Start after each fault), and `viewer` (a real LiveWidget in a real napari window,
under xvfb-run where there is no screen). Needs g++ for the replay camera, and root for the small disk; what
cannot be provoked is left out, and said. Ends with 1 where a fault did not end as it must.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from fault_bench import Bench, Seen, children, goes, made_s, still_there, until
from fault_cases import CASES, Case, Setting
from faulty import Faulty

from napari_rbcflow.pipeline.client import Worker
from napari_rbcflow.pipeline.messages import Camera, RunRequest
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.session import verify

HERE = Path(__file__).parent
LANES = ("command", "worker", "viewer")
PATIENCE_S = 40.0
WITHIN_S = 5.0
TO_LEAVE_S = 10.0
"""That a command may take to end after its last word: PyTorch goes slowly on a busy computer."""
NO_DISK = "no small disk can be mounted here"


def by_command(case: Case, setting: Setting, folder: Path) -> Seen:
    """Meet a fault as somebody at a terminal does."""
    seen = Seen(case.what, "command line")
    start = [sys.executable, "-m", "napari_rbcflow.cli"]
    if setting.fault:
        start = [sys.executable, str(HERE / "faulty.py"), setting.fault, str(setting.mark)]
    device = "cuda" if setting.survives else "cpu"
    start += ["live", "-o", str(folder), "--no-viewer", "--device", device, "--ring-seconds", "0.2"]
    start += ["--camera", setting.camera.spec, "--stop-seconds", "60"]
    for name, value in setting.camera.options.items():
        start += [f"--{name.replace('_', '-')}", str(value)]
    lines: list[tuple[float, str]] = []
    process = subprocess.Popen(
        start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )

    def listen() -> None:
        assert process.stdout is not None
        lines.extend((time.time(), line.strip()) for line in process.stdout)

    listening = threading.Thread(target=listen)
    listening.start()
    below: dict[int, str] = {}
    at = provoke(setting, folder, process.pid, lambda: process.poll() is not None, below)
    if setting.stops:
        process.send_signal(signal.SIGINT)
    if setting.survives:
        until(
            lambda: any("graphics card" in line for _, line in lines) or process.poll() is not None,
            PATIENCE_S,
        )
        until(lambda: goes(folder), PATIENCE_S)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        seen.left = "the command itself, killed by us; "
        process.kill()
    gone = time.time()
    listening.join(5)
    said = [(when, line) for when, line in lines if line.startswith("rbcflow: ") or "graphics card (" in line]
    when, line = said[0] if setting.survives and said else (said or lines or [(gone, "nothing")])[-1]
    if not said:
        line = " ".join(line for _, line in lines[-3:])
    finish(seen, setting, folder, at, when, line.removeprefix("rbcflow: "))
    seen.left += ", ".join(still_there(below))
    if (more_s := gone - (lines[-1][0] if lines else when)) > TO_LEAVE_S:
        seen.left += f"the command, for {more_s:.1f} s more"
    return seen


def by_worker(case: Case, setting: Setting, folder: Path, worker: Worker) -> Seen:
    """Meet a fault as the widget does, and start again."""
    seen = Seen(case.what, "worker")
    camera: Any = Faulty(setting.camera, setting.fault, setting.mark) if setting.fault else setting.camera  # type: ignore[arg-type]
    device = "cuda" if setting.survives else "cpu"
    run = worker.start(RunRequest(camera, folder, RunSettings(device=device, ring_seconds=0.2)))
    pid = worker.pid
    below: dict[int, str] = {}
    at = provoke(setting, folder, pid, lambda: run.ended, below)
    if setting.stops:
        run.stop()
    when = None
    if setting.survives:
        until(lambda: run.ended or (run.snapshot and _card(run.snapshot.warnings)), PATIENCE_S)
        when, line = time.time(), _card(run.snapshot.warnings if run.snapshot else ())
        until(lambda: run.ended or goes(folder), PATIENCE_S)
        time.sleep(1.0)
        run.stop()
    if not until(lambda: run.ended, PATIENCE_S):
        run.give_up("the benchmark waited in vain")
        run.wait()
    if when is None:
        when, line = time.time(), run.sentence or " ".join(run.outcome)
    finish(seen, setting, folder, at, when, line)
    below.pop(pid, None)
    seen.left = ", ".join(still_there(below))
    seen.again = start_again(worker, setting.again or BENCH[0].camera()[0], folder.parent / "again")
    return seen


def _card(warnings: Sequence[str]) -> str:
    return next((w for w in warnings if "graphics card (" in w), "")


def provoke(setting: Setting, folder: Path, pid: int, ended: Any, below: dict[int, str]) -> float | None:
    """Bring the fault about; return when it came, None where its mark tells. Collect processes meanwhile."""
    if setting.ends == "refused":
        return time.time()

    def under_way() -> bool:
        with contextlib.suppress(psutil.Error):
            below.update(children(pid))
        return bool(ended() or goes(folder))

    until(under_way, PATIENCE_S, 0.05)
    if setting.provoke is not None:
        setting.provoke(folder, pid)
        return time.time()
    if setting.stops and setting.mark is not None:
        until(lambda: ended() or (setting.mark is not None and setting.mark.exists()), PATIENCE_S)
        until(lambda: False, 0.3)
        return time.time()
    return None


def finish(seen: Seen, setting: Setting, folder: Path, at: float | None, when: float, line: str) -> None:
    """Write down what was seen, in place and in time."""
    if setting.heal is not None:
        setting.heal()
    if at is None and setting.mark is not None:
        at = made_s(setting.mark)
    seen.sentence = line.replace(str(folder), "FOLDER")
    seen.look_into(folder)
    if at is not None:
        seen.sentence_s = when - at
        closed = made_s(folder / "run.json")
        seen.closed_s = None if closed is None or setting.survives else closed - at


def start_again(worker: Worker, camera: Camera, folder: Path) -> str:
    """Start and stop once more; say how that went."""
    began = time.monotonic()
    run = worker.start(RunRequest(camera, folder, RunSettings(device="cpu", ring_seconds=0.2)))
    until(lambda: run.ended or (run.snapshot is not None and run.snapshot.progress.processed > 0), PATIENCE_S)
    frames_s = time.monotonic() - began
    run.stop()
    if not run.wait(PATIENCE_S) or run.outcome != ("stopped", "user"):
        return f"NO: {run.sentence or run.outcome}"
    code = verify(folder).code
    threads = psutil.Process(worker.pid).num_threads()
    return f"frames after {frames_s:.1f} s" + (f", verify {code}" if code else "") + f" ({threads} threads)"


BENCH: list[Bench] = []


def wrong(seen: Seen, setting: Setting) -> str:
    """Say what of a row is not as it must be; empty where all is well."""
    said = []
    if setting.ends == "refused":
        said += [] if seen.status == "nothing made" else ["something was made"]
    elif not seen.status.startswith(setting.ends):
        said.append(f"it must end as {setting.ends}")
    # A command that is refused had to be loaded first: ten seconds, on a busy computer.
    if seen.sentence_s is not None and seen.sentence_s > WITHIN_S * (1 if setting.ends != "refused" else 4):
        said.append(f"told after {seen.sentence_s:.1f} s")
    if seen.closed_s is not None and seen.closed_s > WITHIN_S:
        said.append(f"closed after {seen.closed_s:.1f} s")
    if not seen.adds_up:
        said.append("the frames do not add up")
    if seen.left:
        said.append("something was left")
    if seen.again.startswith("NO"):
        said.append("the next start failed")
    return "; ".join(said)


def as_row(name: str, seen: Seen, setting: Setting, took_s: float) -> dict[str, Any]:
    """Return a row for ``--json``, and show it to whoever waits."""
    row = {"name": name, "row": seen.row(), "wrong": wrong(seen, setting), "took_s": round(took_s, 1)}
    print(name, row["row"], row["wrong"], f"[{took_s:.0f} s]", file=sys.stderr, flush=True)
    return {**row, **seen.as_dict()}


def lane(name: str, folder: Path, only: Sequence[str]) -> list[dict[str, Any]]:
    """Go through a lane's faults; return its rows."""
    bench = Bench(folder / name)
    BENCH.append(bench)
    rows: list[dict[str, Any]] = []
    with contextlib.closing(bench), contextlib.ExitStack() as ends:
        worker = ends.enter_context(Worker()) if name == "worker" else None
        if worker is not None:
            until(lambda: worker.ready, 120)
            start_again(worker, bench.camera()[0], bench.new("first") / "session")
        for case in CASES:
            if name not in case.by or (only and case.name not in only):
                continue
            setting = case.make(bench)
            if setting is None:
                rows.append({"name": case.name, "row": "", "wrong": "", "left out": NO_DISK})
                continue
            place = (setting.parent or bench.new(case.name)) / "session"
            began = time.monotonic()
            seen = by_worker(case, setting, place, worker) if worker else by_command(case, setting, place)
            rows.append(as_row(case.name, seen, setting, time.monotonic() - began))
    return rows


def in_lanes(
    lanes: Sequence[str], folder: Path, only: Sequence[str], pictures: Path | None
) -> list[dict[str, Any]]:
    """Run each lane in a process of its own: what one leaves is not counted as another's."""

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            str(HERE / "faults.py"),
            "--lane",
            name,
            "--folder",
            str(folder),
            "--as-lane",
        ]
        if name == "viewer":
            command[1] = str(HERE / "faults_viewer.py")
            if not os.environ.get("DISPLAY"):
                command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
            if pictures:
                command += ["--pictures", str(pictures)]
        return subprocess.Popen([*command, *(part for one in only for part in ("--only", one))])

    Bench(folder / "first").close()  # built and simulated once, before anybody waits for it
    running = [start(name) for name in lanes if name != "viewer"]
    for process in running:
        process.wait()
    if "viewer" in lanes:
        start("viewer").wait()
    rows = []
    for name in lanes:
        try:
            rows += json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            rows.append({"name": name, "row": "", "wrong": "the lane broke off, so its faults were not seen"})
    return rows


def main() -> int:
    """Run the lanes, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="of the viewer, as a person saw it")
    parser.add_argument(
        "--only", action="append", default=[], help="a fault by name; may be given more than once"
    )
    parser.add_argument("--lane", action="append", choices=LANES, help="default: all three")
    parser.add_argument("--folder", type=Path, help="for scratch; kept")
    parser.add_argument("--as-lane", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_lane:
        rows = lane(given.lane[0], given.folder, given.only)
        (given.folder / f"{given.lane[0]}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return 0
    began = time.monotonic()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="rbcflow-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    rows = in_lanes(given.lane or LANES, folder, given.only, given.pictures)
    print(Seen.HEAD)
    for row in rows:
        if row["row"]:
            print(row["row"])
    bad = [f"{row['name']} ({row.get('by')}): {row['wrong']}" for row in rows if row["wrong"]]
    left_out = [f"{row['name']}: {row['left out']}" for row in rows if "left out" in row]
    print(f"\n{len(rows)} faults in {time.monotonic() - began:.0f} s; not as they must be: {len(bad)}")
    for line in (*bad, *left_out):
        print("-", line)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if not given.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
