"""Whatever happens to a session's files: a sentence, never a traceback, a hang, or a file somewhere else."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("its limits of time and memory are Linux's", allow_module_level=True)

from damage import broken, make, one
from sentence_keys import is_said

from napari_rbcflow.ring import read_json


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make(tmp_path_factory.mktemp("sessions"))


def test_some_damage_of_every_kind(base: dict[str, Path], tmp_path: Path) -> None:
    """As `benchmarks/fuzz_sessions.py` does for hours."""
    finds = [find for seed in range(24) for find in one(base, tmp_path / "work", seed)]
    assert not finds, "\n".join(f"{find.key}: {find.damage}" for find in finds)


def entry(name: str, keys: str, value: Any) -> Callable[[Path], None]:
    """Falsify an entry of a JSON file."""

    def change(folder: Path) -> None:
        whole = at = json.loads((folder / name).read_text())
        *inside, last = keys.split(".")
        for key in inside:
            at = at[key]
        at[last] = value
        (folder / name).write_text(json.dumps(whole))

    return change


def swapped(name: str) -> Callable[[Path], None]:
    """Put a folder in the place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if not (folder / name).exists():  # a crashed session has none
            return
        read = (folder / name).read_text()
        assert old in read
        (folder / name).write_text(read.replace(old, new, 1))

    return change


FOUND: dict[str, Callable[[Path], None]] = {
    "a warning that is text": entry("run.json", "quality", "x"),
    "frames dropped that are a number": entry("run.json", "frames.dropped", 3),
    "warnings that are a number": entry("run.json", "warnings", 7),
    "a count without end": entry("crops.zarr/index/zarr.json", "shape", [float("inf"), 4]),
    "a count beyond all": entry("frames.zarr/zarr.json", "attributes.capacity", 10**14),
    "no networks": text("run.json", '"models"', '"x"'),
    "no frames dropped": text("run.json", '"dropped"', '"x"'),
    "a cell beyond all": text("changes.csv", ",Anna,", ",Anna," + "9" * 20),
    "no warnings": text("run.json", '\n  "warnings"', '\n  "x"'),
    "a probability beyond 1": text("cells.csv", ",tank-treading,", "e99,tank-treading,"),
    "no latencies": text("run.json", '"latency_ms"', '"x"'),
    "a folder for a table": swapped("tracks.csv"),
    "a folder for the flags": swapped("crops.zarr/seen/c.0"),
    "a folder for the ledger": swapped("frames.zarr/frame_ledger/c/0/0"),
    "a number of frames too large": text("cells.csv", "stage-2,", "stage-2," + "9" * 30),
    "nested without end": lambda folder: (folder / "review.json").write_text("[" * 10**5) and None,
}


@pytest.mark.parametrize("find", FOUND)
def test_what_was_found(
    base: dict[str, Path], find: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    for kind in ("whole", "crashed"):
        shutil.rmtree(tmp_path / "work")
        (tmp_path / "work").mkdir()
        shutil.copytree(base[kind], tmp_path / "work" / "S")
        FOUND[find](tmp_path / "work" / "S")
        monkeypatch.chdir(tmp_path / "work")
        assert [found.key for found in broken(tmp_path / "work", find)] == []


@pytest.mark.parametrize(
    "data", ["[]", "3", "[" * 10**5, '{"n": 1e999}', '{"n": NaN}', '{"n": 1' + "0" * 5000 + "}"]
)
def test_a_json_file_that_is_none_of_ours(tmp_path: Path, data: str) -> None:
    (tmp_path / "x.json").write_text(data)
    with pytest.raises(ValueError):  # noqa: PT011
        read_json(tmp_path / "x.json")


def test_the_damaged_session_among_many_is_named(
    base: dict[str, Path],
    tmp_path: Path,
    rbcflow: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, of in (("Monday", "whole"), ("Tuesday", "other")):
        shutil.copytree(base[of], tmp_path / name)
    entry("Tuesday/run.json", "frames.dropped", "x")(tmp_path)
    code, out, err = rbcflow("verify", "Monday", "Tuesday", "Sunday")
    assert code == 2
    whole, finding = out.splitlines()
    assert is_said("cli.intact", whole, folder="Monday")
    assert is_said("cli.verify-finding", finding, folder="Tuesday")
    assert is_said("session.no-such-folder", err, folder="Sunday")
    code, _, err = rbcflow("trend", ".")
    assert code == 0
    (said,) = (line for line in err.splitlines() if "Tuesday" in line)
    assert is_said("trend.session-left-out", said)
    assert rbcflow("trend", "Monday", "Tuesday")[0] == 2
