"""How a command ends: streams that are closed or full, names that cannot be, and being told to end."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sentence_keys import is_said

from napari_rbcflow.cli.process import stopped_by_signals, told_to_end
from napari_rbcflow.session import Review, verify

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="a shell, and signals that a process can hear"
)
MOVIE = Path(__file__).parents[1] / "sample_data" / "flow_chamber.tif"
COMMAND = [sys.executable, "-m", "napari_rbcflow.cli"]


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A signal that `nohup` told these tests and their children not to hear is heard."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def shell(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = f"{shlex.join(COMMAND)} {words}"
    return subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "code", "key"),
    [
        ("verify S >&- 2>&- <&-", 0, ""),
        ("verify S >&-", 0, ""),
        ("verify nothing 2>&-", 2, ""),
        ("verify nothing 2>/dev/full", 2, ""),
        ("verify S >/dev/full", 1, "cli.output-lost"),
        ("verify S | true", 0, ""),
        ("--help >/dev/full", 1, "cli.output-lost"),
    ],
)
def test_streams_that_are_closed_or_full(copied: Path, words: str, code: int, key: str) -> None:
    if "/dev/full" in words and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(words, copied.parent)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert not key or is_said(key, done.stderr)
    assert bool(key) or not done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("streams", "code"), [(">&- 2>&-", 0), (">/dev/full 2>/dev/full", 1), ("2>&-", 0)])
def test_a_run_that_nobody_listens_to_is_whole(tmp_path: Path, streams: str, code: int) -> None:
    assert shell(f"analyze '{MOVIE}' -o s --device cpu {streams}", tmp_path).returncode == code
    assert verify(tmp_path / "s").findings == []


REFUSED_WHILE_NETWORKS_LOAD = """
import sys, time, torch
from napari_rbcflow import analyze
from napari_rbcflow.cli import main
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.errors import BadInput

def load(*_, **__):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        torch.ones(99, 99) @ torch.ones(99, 99)

TwoStage.load = load
sys.argv = ["rbcflow", "analyze", "empty.tif", "-o", "x", "--device", "cpu"]
if "COMMAND":
    main()
try:
    analyze("empty.tif", "x", device="cpu")
except BadInput as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(("command", "seconds", "code"), [("command", 60, 2), ("", 1, 1)])
def test_what_is_refused_while_the_networks_load(
    tmp_path: Path, command: str, seconds: int, code: int
) -> None:
    """A thread that Python ends inside torch takes the process with it."""
    (tmp_path / "empty.tif").touch()
    script = REFUSED_WHILE_NETWORKS_LOAD.replace("SECONDS", str(seconds)).replace("COMMAND", command)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert is_said("sources.file-empty", done.stderr)


LONG = "n" * 256


@pytest.mark.parametrize(
    "words",
    [
        *("verify LONG", "trend LONG", "export LONG -o x", "calibrate LONG -o x", "review LONG"),
        *("analyze LONG -o x", "evaluate LONG", "train --stage 1 LONG -o x", "grid LONG -o x"),
        *("live --camera LONG.cfg -o x --no-viewer", "review S --labels LONG --by A"),
        *("export S -o LONG", "calibrate S -o LONG", "trend S --csv LONG", "trend S --png LONG"),
        *("simulate LONG.tif --seconds 0.1", "evaluate S --json LONG", "train --stage 1 S -o LONG"),
        *("review S --sample 3 --csv LONG", "benchmark --quick --json LONG", "demo --no-viewer -o LONG"),
        # With what is put behind it while it is written, it is too long too.
        *("trend S --csv LAST", "calibrate S -o LAST", "review S --sample 3 --csv LAST"),
        *("trend S --csv S/run.json/x", "export S -o S/run.json/x", "analyze S/run.json/x -o x"),
        *("demo --no-viewer -o S/run.json/x", "verify S/run.json", "trend S/cells.csv"),
    ],
)
def test_a_path_that_cannot_be(
    copied: Path, words: str, rbcflow: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    before = sorted(copied.parent.rglob("*"))
    code, _, err = rbcflow(*words.replace("LONG", LONG).replace("LAST", LONG[:254]).split())
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert sorted(copied.parent.rglob("*")) == before


def test_a_folder_that_may_not_be_written_to(
    copied: Path, tmp_path: Path, rbcflow: Callable[..., tuple[int, str, str]]
) -> None:
    """By a real mount, which not even root may write to."""
    place = tmp_path / "read only"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a read-only disk cannot be mounted here (needs root on Linux)")
    try:
        for words in (
            ["demo", "--no-viewer", "-o", place / "x"],
            ["analyze", MOVIE, "-o", place / "x", "--device", "cpu"],
            ["simulate", place / "x.tif", "--seconds", 0.1],
            ["export", copied, "-o", place / "x"],
            ["calibrate", copied, "-o", place / "x"],
            ["trend", copied, "--csv", place / "x"],
            ["review", copied, "--sample", 3, "--csv", place / "x"],
            ["train", "--stage", 1, copied, "-o", place / "x"],
        ):
            code, _, err = rbcflow(*words)
            assert (code, len(err.splitlines())) == (2, 1), err
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("small_disk", [1], indirect=True)
@pytest.mark.parametrize("name", ["x.tif", "x.avi", "x.zarr"])
def test_a_movie_for_which_there_is_no_room_leaves_nothing(
    small_disk: Path, name: str, rbcflow: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = rbcflow("simulate", small_disk / name, "--seconds", 1)
    assert (code, len(err.splitlines())) == (1, 1)
    assert is_said("cli.disk-fault", err)
    assert list(small_disk.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_told_to_end_leaves_nothing_half_made(tmp_path: Path, number: int) -> None:
    making = [*COMMAND, "simulate", "x.tif", "--seconds", "100"]
    process = subprocess.Popen(making, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not any(tmp_path.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert is_said("cli.stopped", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_in_a_finalizer_is_heard_too(number: int) -> None:
    class Freed:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def goes_on() -> None:
        Freed()
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), told_to_end():
        goes_on()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_analysis_that_is_told_to_end_closes_its_session(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [*COMMAND, "analyze", str(MOVIE), "-o", "s", "--device", "cpu"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    record = tmp_path / "s" / "run.json"
    while not record.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    told = json.loads(record.read_text())
    if told["stop_reason"] == "source-ended":
        pytest.skip("the movie was over before the signal came")
    assert process.returncode == 1
    assert is_said("cli.stopped-saved", said, folder="s")
    assert (told["status"], told["stop_reason"]) == ("stopped", "user")
    assert verify(tmp_path / "s").findings == []


ENDED_AS_IT_LOADS = """
import os, sys

class Ends:
    def find_spec(self, name, *_):
        if name == MODULE:
            os.kill(os.getpid(), NUMBER)

sys.meta_path.insert(0, Ends())
sys.argv = ["rbcflow", *WORDS]
from napari_rbcflow.cli import main
main()
"""


@pytest.mark.parametrize(
    ("words", "module", "number"),
    [
        ("demo --no-viewer -o s", "click", signal.SIGINT),
        ("demo --no-viewer -o s", "numba", signal.SIGTERM),
        ("live --camera simulated --no-viewer -o s", "napari_rbcflow.cli.terminal", signal.SIGINT),
        ("train S -o s --stage 1", "torch", signal.SIGINT),
        ("export S -o s", "napari_rbcflow.session.export", signal.SIGTERM),
        ("calibrate S -o s", "napari_rbcflow.session.calibration", signal.SIGINT),
    ],
)
def test_who_is_told_to_end_as_it_loads_ends_at_once(
    words: str, module: str, number: int, tmp_path: Path
) -> None:
    """A Ctrl-C as Python raises it was swallowed by a lock of its imports, or made Python end by a signal."""
    script = ENDED_AS_IT_LOADS.replace("MODULE", repr(module)).replace("NUMBER", str(int(number)))
    command = [sys.executable, "-c", script.replace("WORDS", repr(words.split()))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert is_said("cli.stopped", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "module", "at"),
    [
        ("export S -o s", "napari_rbcflow.session.export", "_shown"),
        ("export S -o s --as table", "napari_rbcflow.exchange.leaving", "replace_file"),
        ("calibrate S -o s", "napari_rbcflow.session.calibration", "_reviewed"),
        ("train S -o s --stage 1", "napari_rbcflow.classification.training.train", "gather"),
    ],
)
def test_who_is_told_to_end_at_work_takes_away_what_is_half_made(
    words: str,
    module: str,
    at: str,
    number: int,
    copied: Path,
    rbcflow: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    review = Review(copied)
    review.add(dict.fromkeys(review.sample(3, "Ada"), "tank-treading"), "Ada")
    monkeypatch.chdir(copied.parent)
    monkeypatch.setattr(importlib.import_module(module), at, lambda *_, **__: os.kill(os.getpid(), number))
    before = sorted(copied.parent.rglob("*"))
    code, _, err = rbcflow(*words.split())
    assert (code, is_said("cli.stopped", err)) == (1, True)
    assert sorted(copied.parent.rglob("*")) == before


def test_what_nohup_shuts_out_is_not_heard() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard: list[Any] = []
    try:
        with told_to_end(), stopped_by_signals(lambda: heard.append(1)):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [1]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_being_told_to_end_twice_ends_once() -> None:
    """A terminal that closes sends both signals, and the second must not end the clearing away."""
    cleared = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleared.append(1)

    with pytest.raises(KeyboardInterrupt), told_to_end():
        work()
    assert cleared
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
