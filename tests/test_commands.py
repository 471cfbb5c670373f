"""The command line: exit codes, one clear line, and the main jobs through the door that users take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tifffile
from factories import progress

from napari_rbcflow.cli import cli
from napari_rbcflow.cli.group import echo
from napari_rbcflow.cli.terminal import running_line
from napari_rbcflow.quality import RunWarning, Severity
from napari_rbcflow.sentences import say


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example(name: str, rbcflow: Any) -> None:
    code, out, _ = rbcflow(name, "--help")
    assert code == 0
    assert f"Example: rbcflow {name}" in " ".join(out.split())


@pytest.mark.slow
def test_the_demo_runs_in_a_terminal_where_no_display_answers_until_its_rule_is_met(tmp_path: Path) -> None:
    def demo(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "napari_rbcflow.cli", "demo", "--stop-reliable", "10"]
        return subprocess.run(
            [*command, "--stop-seconds", "60", *options],
            cwd=tmp_path,
            env={**os.environ, "DISPLAY": ":987"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    result = demo("-o", "s")
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "s" / "run.json").read_text())
    # The verdict comes before any number.
    assert result.stdout.startswith(f"Provisional. {record['verdict_reason']}\n")
    assert "95 % interval" in result.stdout
    assert "The simulation's own fraction" in result.stdout
    assert "rbcflow review s" in result.stdout
    assert record["status"] == "finished"
    assert record["stop_reason"] == "reliable"
    assert record["fraction"]["n"] == 10
    assert (tmp_path / "s" / "report.html").read_text().startswith("<!")
    assert demo("-o", "t", "--viewer").returncode == 2
    assert not (tmp_path / "t").exists()


def test_a_person_at_a_terminal_reads_each_step_before_the_first_frame(
    tmp_path: Path, rbcflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.full((30, 96, 128), 120, np.uint8))
    live = ["live", "--camera", tmp_path / "m.tif", "--no-viewer", "-o"]
    keys = ("program", "source", "tracker", "networks")
    steps = [say(f"pipeline.step-{key}") for key in keys]
    code, _, err = rbcflow(*live, tmp_path / "in-a-log")
    assert code == 0, err
    assert not any(step in err for step in steps)
    monkeypatch.setattr("napari_rbcflow.cli.live._at_a_terminal", lambda: True)
    code, _, err = rbcflow(*live, tmp_path / "s")
    assert code == 0, err
    lines = err.splitlines()
    assert lines[:4] == steps
    assert lines[4].startswith("m.tif: 128 x 96 px")


BEFORE_THE_FIRST_FRAME = """
import sys
from pathlib import Path
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
chamber = SimulatedChamber(ChamberSettings(height=128, width=160, cells_per_frame=5, variety=0.02))
chamber.prepare()
run = Run(chamber, Path(sys.argv[1]), RunSettings(device="cpu"))
run.start()
while run.stages.newest is None:
    assert not run.wait(0.01)
late = {"torch", "pandas", "jinja2", "matplotlib", "scipy.stats", "av", "tifffile", "rich", "qtpy", "napari"}
print(*sorted(late & set(sys.modules)))
run.stop()
run.wait()
"""


def test_what_only_the_end_of_a_run_needs_is_not_imported_before_its_first_frame(tmp_path: Path) -> None:
    """Together two seconds of a start."""
    command = [sys.executable, "-c", BEFORE_THE_FIRST_FRAME, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_the_running_line_gives_no_bare_number_to_act_on() -> None:
    def line(n: int, *warned: RunWarning) -> str:
        at = progress(n=n, cells=Counter(tracked=1), warned=warned)
        return running_line(at)

    grave = RunWarning("flow-slow", Severity.WARNING, "The cells flow too slowly: check the pump.")
    mild = RunWarning("cells-dense", Severity.NOTE, "Too many cells: dilute the sample further.")
    well = "60 s  1 track  so far, not checked: 80.0 % (70.0-87.0, n 30)  to go: 80 cells"
    assert line(30) == line(30, mild) == well
    assert line(30, grave, mild) == f"WARNING, read above  {well}"
    assert line(29).startswith("WARNING, too few cells  60 s")
    assert line(0, grave).startswith("60 s  1 track  no reliable cell yet")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM that a process can hear")
def test_being_told_to_end_closes_the_session(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "napari_rbcflow.cli", "live", "--camera", "simulated", "--no-viewer"]
    process = subprocess.Popen([*command, "-o", "s"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    record = tmp_path / "s" / "run.json"
    deadline = time.monotonic() + 60
    while not (record.exists() and json.loads(record.read_text())["frames"]["received"] > 60):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped (user)" in out
    assert json.loads(record.read_text())["status"] == "stopped"


def test_simulate_analyze_verify(tmp_path: Path, rbcflow: Any) -> None:
    movie, session = tmp_path / "m.avi", tmp_path / "s"
    assert rbcflow("simulate", movie, "--seconds", 2, "--cells-per-frame", 60)[0] == 0
    assert (tmp_path / "m.truth.csv").read_text().startswith("cell,t0,frames,x0,y,v,label,sequence")
    code, out, err = rbcflow("analyze", movie, "-o", session, "--device", "cpu", "--patient", "BG")
    assert code == 0, err
    assert str(session) in out
    record = json.loads((session / "run.json").read_text())
    assert record["patient"] == "BG"
    assert out.splitlines()[0].endswith(f". {record['verdict_reason']}")
    assert rbcflow("verify", session)[0] == 0
    (session / "cells.csv").write_text("cell\n")
    assert rbcflow("verify", session)[0] == 1
    assert rbcflow("verify", tmp_path)[0] == 2


def bad_inputs(folder: Path) -> dict[str, list[object]]:
    grey = np.full((30, 96, 128), 120, np.uint8)
    tifffile.imwrite(folder / "short.tif", grey[:7], photometric="minisblack")
    tifffile.imwrite(folder / "good.tif", grey, photometric="minisblack")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.avi").write_text("this is no movie")
    (folder / "taken").mkdir()
    (folder / "wrong.cfg").write_text("Device,Camera,NoSuchAdapter,NoSuchCamera\n")
    return {
        "short movie": ["analyze", folder / "short.tif", "-o", folder / "s"],
        "empty file": ["analyze", folder / "empty.tif", "-o", folder / "s"],
        "no movie": ["analyze", folder / "text.avi", "-o", folder / "s"],
        "absent": ["analyze", folder / "absent.tif", "-o", folder / "s"],
        "no cell": ["analyze", folder / "good.tif", "-o", folder / "s"],
        "folder exists": ["analyze", folder / "good.tif", "-o", folder / "taken"],
        "wrong cfg": ["live", "-o", folder / "s", "--camera", folder / "wrong.cfg", "--no-viewer"],
        "no camera": ["live", "-o", folder / "s", "--camera", "nonsense", "--no-viewer"],
        "roi": ["live", "-o", folder / "s", "--camera", "demo", "--roi", "1,2", "--no-viewer"],
        "rule": ["demo", "-o", folder / "s", "--stop-halfwidth", "2"],
        "tracks": ["demo", "-o", folder / "s", "--stop-tracks", "0"],
        "baseline": ["live", "-o", folder / "s", "--camera", "simulated", "--stop-baseline", "86"],
        "interval": ["analyze", folder / "good.tif", "-o", folder / "s", "--interval", "wald"],
        "option": ["analyze", folder / "good.tif", "-o", folder / "s", "--background", "none"],
        "ending": ["simulate", folder / "movie.mp3"],
        "dataset": ["evaluate", folder / "taken"],
        "train": ["train", folder / "taken", "-o", folder / "s", "--stage", "1"],
    }


def test_bad_input_gets_one_clear_line_and_leaves_nothing(tmp_path: Path, rbcflow: Any) -> None:
    for name, arguments in bad_inputs(tmp_path).items():
        before = sorted(tmp_path.rglob("*"))
        code, _, err = rbcflow(*arguments)
        lines = [line for line in err.splitlines() if line.strip()]
        assert code == 2, f"{name}: {err}"
        assert len(lines) == 1, f"{name}: {err}"
        assert lines[0].startswith("rbcflow: ")
        assert "unexpected" not in lines[0], f"{name}: {err}"
        assert sorted(tmp_path.rglob("*")) == before, name


def test_a_setting_is_called_as_the_option_of_the_command_that_runs(
    tmp_path: Path, rbcflow: Any, capsys: Any
) -> None:
    _, _, err = rbcflow("demo", "-o", tmp_path / "s", "--stop-halfwidth", "2")
    asked = say("estimate.stop-halfwidth-outside", value=2.0)
    assert "`stop_halfwidth`" in asked
    assert asked.replace("`stop_halfwidth`", "--stop-halfwidth") in err
    _, _, err = rbcflow("train", tmp_path, "-o", tmp_path / "s", "--stage", "1")
    assert "`" not in err
    with click.Context(cli.commands["grid"]):
        echo("Leave out `stages`, `split` and `test`.")
    assert capsys.readouterr().out == "Leave out --stage, split and --test.\n"


def test_debug_shows_the_traceback(tmp_path: Path, rbcflow: Any) -> None:
    code, _, err = rbcflow("analyze", tmp_path / "absent.tif", "-o", tmp_path / "s", "--debug")
    assert code == 2
    assert "Traceback" in err
