"""The session folder says what happened, survives what happens, and is caught when it does not fit."""

from __future__ import annotations

import contextlib
import errno
import html
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numcodecs.blosc
import numpy as np
import pytest
import zarr
from factories import MODELS, SOURCE, Pair, account_of, begin, some_pairs, swap_text, write
from sentence_keys import any_said, is_said, refused

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import RunningFraction, wilson
from napari_rbcflow.ring import disk, replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    ChangeLog,
    FractionFigure,
    SessionWriter,
    open_session,
    schema,
    tables,
    verify,
)
from napari_rbcflow.session.counting import corrected_figure, finished_labels
from napari_rbcflow.session.crops import CROPS_PER_CHUNK
from napari_rbcflow.session.recovery import close_interrupted
from napari_rbcflow.session.report import write_report
from napari_rbcflow.session.schema import plain
from napari_rbcflow.session.writer import DiskRoom, room_words
from napari_rbcflow.types import Judgement, Label


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return some_pairs(90)


def test_what_a_session_holds(whole: Path, pairs: list[Pair]) -> None:
    assert verify(whole).findings == []
    assert verify(whole).code == 0
    session = open_session(whole)
    run = session.run
    assert (run["status"], run["stop_reason"]) == ("finished", "source-ended")
    assert (run["patient"], run["sample"], run["models"]) == ("BG", "run 1", MODELS)
    assert run["frames"] == {"received": 300, "processed": 295, "dropped": {"after-stop": 5}, "missed": {}}
    assert run["latency_ms"] == {"p50": 60.0, "p95": 105.0, "p99": 109.0}
    assert {"pixel_size_um": 0.605, "fps": 60.0, "seed": "4", "stop_halfwidth": 0.05}.items() <= {
        **run["parameters"],
        **run["parameters"]["source_details"],
    }.items()
    assert (
        set(run["fraction"])
        == {"estimate", "low", "high", "level", "method", "n"}
        == set(run["fraction_corrected"])
    )
    assert run["fraction_corrected"]["estimate"] is None
    assert run["started"] <= run["ended"]
    assert set(run["versions"]) >= {"napari-rbcflow", "python", "numpy", "torch", "zarr"}
    assert "test chamber" in (whole / "run.log").read_text()
    assert not (whole / ".writing").exists()

    header, *rows = (whole / "cells.csv").read_text().splitlines()
    assert header == (
        "cell,first_frame,last_frame,frames,x_first_px,y_first_px,x_last_px,y_last_px,"
        "speed_um_per_s,p_reliable,p_tank_treading,label,reason,gap_frames"
    )
    assert (whole / "tracks.csv").read_text().splitlines()[0] == "cell,frame,y_px,x_px,seen"
    order = sorted(pairs, key=lambda p: (p[0].frames[-1], p[0].cell))
    assert session.cells["cell"].tolist() == [track.cell for track, _ in order]
    assert "-0.00" not in (whole / "tracks.csv").read_text()

    for row, (track, said) in zip(rows, order, strict=True):
        y, x, frames, fields = track.y_px, track.x_px, track.frames, row.split(",")
        speed = (x[-1] - x[0]) / max(1, frames[-1] - frames[0]) * 60 * 0.605
        assert fields[:4] == [str(v) for v in (track.cell, frames[0], frames[-1], len(track))]
        numbers = [float(field) for field in fields[4:9]]
        assert numbers == pytest.approx([x[0], y[0], x[-1], y[-1], speed], abs=0.006)
        assert fields[9:] == [
            "" if p is None else f"{p:.4f}" for p in (said.p_reliable, said.p_tank_treading)
        ] + [said.label, said.reason, str(frames[-1] - frames[0] + 1 - len(track))]

    labels = session.cells["label"].value_counts()
    k, m = labels["tank-treading"], labels["flipping"]
    assert session.fraction == FractionFigure(k / (k + m), *wilson(k, k + m), 0.95, "wilson", k + m)
    for track, _ in pairs:
        kept = session.sequence(track.cell)
        assert np.array_equal(kept.crops, track.crops)
        assert np.array_equal(kept.frame, track.frames)
        for name in ("seen", "edge", "intruded"):
            assert np.array_equal(getattr(kept, name), getattr(track, name))
    track = min((track for track, _ in pairs), key=lambda t: t.cell)
    of_first = session.tracks[: len(track)]
    assert of_first["cell"].unique().tolist() == [track.cell]
    assert of_first["frame"].tolist() == track.frames.tolist()
    assert np.allclose(of_first[["y_px", "x_px"]], np.column_stack([track.y_px, track.x_px]), atol=0.0051)
    with pytest.raises(BadInput) as error:
        session.crops(1000)
    assert str(error.value) == say("session.no-such-cell", folder=whole, cell=1000)

    assert session.ring is not None
    assert session.ring.indices.tolist() == [2, 3, 4, 5]
    assert np.all(session.ring.frame(4) == 4)
    crops = zarr.open_group(whole / "crops.zarr", mode="r")
    assert crops["crops"].shape == (sum(len(t) for t, _ in pairs), 31, 31)
    cell, offset, length, _ = crops["index"][3]
    assert np.array_equal(crops["crops"][offset : offset + length], session.crops(cell))


def test_the_same_tracks_give_the_same_bytes(whole: Path, pairs: list[Pair], tmp_path: Path) -> None:
    """However they came in batches, and in whatever order they ended."""
    other = write(tmp_path / "S", pairs[::-1], batch=31)
    for name in ("cells.csv", "tracks.csv"):
        assert (other / name).read_bytes() == (whole / name).read_bytes()


def test_what_was_kept_is_there_while_the_run_goes_on(tmp_path: Path, pairs: list[Pair]) -> None:
    writer = begin(tmp_path / "S")
    logging.getLogger("napari_rbcflow.elsewhere").warning("a word from another part")
    writer.keep(pairs[:20])
    session = open_session(tmp_path / "S")
    assert session.run["status"] == "running"
    assert session.run["stop_reason"] is None
    assert session.cells["cell"].tolist() == [track.cell for track, _ in pairs[:20]]
    for track, _ in pairs[:20]:
        assert np.array_equal(session.crops(track.cell), track.crops)
    assert session.fraction.n == sum(1 for _, said in pairs[:20] if said.reason == "stage-2")
    assert verify(tmp_path / "S").findings == [say("session.found-still-running")]
    writer.close(account_of(pairs[:20]), "stopped", "user")
    logging.getLogger("napari_rbcflow.elsewhere").warning("too late")
    assert verify(tmp_path / "S").code == 0
    said = (tmp_path / "S" / "run.log").read_text()
    assert "a word from another part" in said
    assert "too late" not in said
    with refused(RunFailed, "ring.closed"):
        writer.keep(pairs[20:])


@pytest.fixture(scope="module")
def many() -> list[Pair]:
    """Tracks whose crops fill four chunks and a part of a fifth."""
    return some_pairs(450, seed=5)


def chunks_of(folder: Path) -> list[Path]:
    return sorted((folder / "crops.zarr" / "crops").glob("c.*"), key=lambda p: int(p.name.split(".")[1]))


def in_full(path: Path) -> bytes:
    """Return the bytes of a chunk, by zarr's own codec."""
    return bytes(numcodecs.blosc.decompress(path.read_bytes()))


@pytest.mark.skipif(sys.platform != "linux", reason="what is synced is told by /proc")
def test_a_cell_is_counted_once_its_row_is_on_the_disk_and_its_row_written_once_its_crops_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves no cell without its sequence, no number without its cells, and no half account."""
    synced: list[tuple[str, int]] = []
    lines: list[int] = []
    fsync = os.fsync

    def told_of(handle: int) -> None:
        if threading.current_thread().name.startswith("rbcflow-pack"):  # of chunks that are full
            return fsync(handle)
        name = Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path / "s").as_posix()
        synced.append((name, os.fstat(handle).st_size))
        if "cells.csv" not in name:
            lines.append((tmp_path / "s" / "cells.csv").read_bytes().count(b"\n") - 1)
        return fsync(handle)

    writer = begin(tmp_path / "s")
    pairs = some_pairs(160)
    full = int(np.searchsorted(np.cumsum([len(track) for track, _ in pairs]), CROPS_PER_CHUNK))
    chunks = ({0}, {0, 1})  # the second batch goes over the end of the first chunk of crops
    try:
        monkeypatch.setattr(os, "fsync", told_of)
        for (first, last), numbers in zip(((0, full - 1), (full - 1, 160)), chunks, strict=True):
            synced.clear()
            lines.clear()
            writer.keep(pairs[first:last])
            assert synced[-1] == ("cells.csv", (tmp_path / "s" / "cells.csv").stat().st_size)
            assert lines
            assert set(lines) == {first}
            names = {name for name, _ in synced}
            assert "tracks.csv" in names
            assert {f"crops.zarr/crops/c.{k}.0.0" for k in numbers} <= names
            arrays = {name.split("/")[1] for name in names if name.startswith("crops.zarr/")}
            assert arrays == {"crops", "frame", "seen", "edge", "intruded", "index"}
        synced.clear()
        writer.heartbeat(account_of(pairs))
        # Beside the one that is there, whole, and only then in its place.
        assert synced == [("run.json.new", (tmp_path / "s" / "run.json").stat().st_size), (".", ANY)]
    finally:
        monkeypatch.undo()
        writer.close(account_of(pairs), "stopped", "user")


def test_a_batch_that_the_disk_did_not_take_leaves_no_trace(
    tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, folder = begin(tmp_path / "S"), tmp_path / "S"
    writer.keep(pairs[:20])
    before = {name: (folder / name).read_bytes() for name in ("cells.csv", "tracks.csv", "pieces.csv")}
    with monkeypatch.context() as full, refused(RunFailed, "ring.disk-full"):
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        writer.keep(pairs[20:40])
    assert before == {name: (folder / name).read_bytes() for name in before}
    writer.keep(pairs[20:])
    writer.close(account_of(pairs), "finished", "source-ended")
    assert verify(folder).findings == []


def test_full_chunks_are_packed_and_read_as_before(tmp_path: Path, many: list[Pair]) -> None:
    folder = tmp_path / "S"
    writer = begin(folder)
    crops = np.concatenate([track.crops for track, _ in many])
    done = 0
    for first in range(0, len(many), 50):
        writer.keep(many[first : first + 50])
        done += sum(len(track) for track, _ in many[first : first + 50])
        # Whatever is packed by now: any zarr reader, and ours, sees what was kept.
        assert np.array_equal(zarr.open_array(folder / "crops.zarr" / "crops", mode="r")[:done], crops[:done])
    session = open_session(folder)
    for track, _ in many[::20]:
        assert np.array_equal(session.crops(track.cell), track.crops)
    writer.close(account_of(many), "finished", "source-ended")
    assert verify(folder).findings == []

    *full, last = chunks_of(folder)
    plain = 2048 * 961
    assert len(full) == len(crops) // 2048 >= 3
    assert all(chunk.stat().st_size < 0.8 * plain for chunk in full)
    assert last.stat().st_size == plain + 16
    assert b"".join(map(in_full, [*full, last]))[: crops.nbytes] == crops.tobytes()
    assert {p.name for p in last.parent.iterdir()} == {"zarr.json", *(p.name for p in [*full, last])}

    # Sessions from before there was a codec have plain chunks without a header.
    for chunk in [*full, last]:
        chunk.write_bytes(in_full(chunk))
    assert verify(folder).findings == []


@pytest.mark.parametrize("kind", ["a byte", "the end", "all but the begin", "the header"])
def test_a_packed_chunk_that_is_damaged_is_found(tmp_path: Path, many: list[Pair], kind: str) -> None:
    folder = write(tmp_path / "S", many)
    chunk = chunks_of(folder)[1]
    size = chunk.stat().st_size
    if kind == "a byte":
        flip(chunk, size // 2)
    elif kind == "the header":
        flip(chunk, 5)
    else:
        os.truncate(chunk, size - 100 if kind == "the end" else 9)
    first, behind = 2048, 4096
    at = np.cumsum([len(track) for track, _ in many])
    within = [t.cell for (t, _), end in zip(many, at, strict=True) if end > first and end - len(t) < behind]
    (finding,) = verify(folder).findings
    assert is_said("session.found-crops-damaged", finding, cells=450)
    damaged = int(finding.split()[1])
    assert 0 < damaged <= len(within)  # no other chunk suffers
    session = open_session(folder)
    right = {track.cell: track.crops for track, _ in many}
    for cell in right:
        with contextlib.nullcontext() if cell not in within else contextlib.suppress(RunFailed):
            assert np.array_equal(session.crops(cell), right[cell])  # or it says that it cannot be read


def test_a_chunk_that_cannot_be_packed_stays_as_it_is(tmp_path: Path, many: list[Pair]) -> None:
    """A disk that is nearly full, or on Windows somebody who reads it."""
    writer = begin(tmp_path / "S")
    (tmp_path / "S" / "crops.zarr" / "crops" / "c.1.0.0.new").mkdir()
    writer.keep(many)
    writer.close(account_of(many), "finished", "source-ended")
    sizes = [chunk.stat().st_size for chunk in chunks_of(tmp_path / "S") if chunk.is_file()]
    assert sizes[1] == 2048 * 961 + 16 > sizes[2]
    assert verify(tmp_path / "S").findings == []
    assert is_said("session.log-not-packed", (tmp_path / "S" / "run.log").read_text())


def test_what_repeats_does_not_fill_the_log(tmp_path: Path) -> None:
    writer = begin(tmp_path / "S")
    logger = logging.getLogger("napari_rbcflow.camera")
    for frame in range(5000):
        logger.warning("frame %d is odd, 100 %%", frame)
    logger.error("another thing")
    writer.close(account_of([]), "stopped", "user")
    said = (tmp_path / "S" / "run.log").read_text()
    assert said.count("is odd, 100 %") == 21
    assert "frame 0 is odd" in said
    assert say("session.log-repeated", message="frame 4999 is odd, 100 %", times=4979) in said
    assert "another thing" in said


def test_how_long_the_disk_will_hold(tmp_path: Path) -> None:
    room = DiskRoom(tmp_path)
    gb = 10**9
    for second in range(300):
        assert room.left_s is None or second > 10
        room.poll(second * 10**6, now_s=float(second), free=100 * gb - second * 9 * 10**6)
    assert room.left_s == pytest.approx(100 * gb / 10**7, rel=0.04)  # what the close needs is reckoned with
    for second in range(300, 600):  # somebody else begins to copy something
        room.poll(now_s=float(second), free=97 * gb - (second - 300) * 10**8)
    assert room.left_s == pytest.approx(67 * gb / 10**8, rel=0.02)
    for second in range(600, 900):  # and clears up
        room.poll(now_s=float(second), free=80 * gb)
    assert room.left_s is None


@pytest.mark.parametrize(
    ("left_s", "needed_s", "key", "minutes"),
    [
        (None, 60.0, "", 0),
        (1900.0, None, "", 0),
        (1000.0, 600.0, "", 0),
        (750.0, None, "session.disk-fills", 10),
        (4000.0, 7200.0, "session.disk-fills-too-soon", 60),
        (61.0, None, "session.disk-fills", 1),
        (0.0, 5.0, "session.disk-fills-too-soon", 0),
    ],
)
def test_a_disk_that_will_be_full_is_told(
    left_s: float | None, needed_s: float | None, key: str, minutes: int
) -> None:
    time = say("session.about-minutes", minutes=minutes) if minutes else say("session.under-a-minute")
    assert room_words(left_s, needed_s) == (say(key, time=time) if key else "")


def test_a_run_without_a_cell(tmp_path: Path) -> None:
    folder = write(tmp_path / "S", [], status="stopped")
    assert verify(folder).findings == []
    run = json.loads((folder / "run.json").read_text())
    assert run["fraction"] == {
        "estimate": None,
        "low": None,
        "high": None,
        "level": 0.95,
        "method": "wilson",
        "n": 0,
    }
    assert open_session(folder).cells.empty


KILLED = """
import sys, numpy as np
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from factories import begin, some_pairs, account_of
from napari_rbcflow.types import Frame

writer = begin(Path(sys.argv[1]))
pairs = some_pairs(4000, longest=60)
for i in range(0, len(pairs), 9):
    writer.ring.append(Frame(i, i / 60, np.full((40, 60), i % 256, np.uint8)))
    writer.keep(pairs[i : i + 9])
    if i % 45 == 0:
        writer.heartbeat(account_of(pairs[:i]))
    print(i + 9, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.slow
def test_killed_in_mid_run(tmp_path: Path) -> None:
    folder = tmp_path / "S"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        told = 0
        while told < 300:
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told = int(([str(told), *process.stdout.read().split()])[-1])
    session = open_session(folder)
    assert session.run["status"] == "running"
    assert session.interrupted
    pairs = some_pairs(4000, longest=60)
    n = len(session.cells)
    assert n >= told  # what was said to be kept is there, and in the order in which it was kept
    assert session.cells["cell"].tolist() == [track.cell for track, _ in pairs[:n]]
    for track, _ in pairs[:n]:
        assert np.array_equal(session.crops(track.cell), track.crops)
    assert len(session.tracks) == sum(len(track) for track, _ in pairs[:n])
    verdict = verify(folder)
    assert verdict.code == 1
    assert len(verdict.findings) == 1
    fraction = say("session.found-fraction", **fraction_values(session.fraction))
    frames = len(session.ring) if session.ring is not None else 0
    interrupted = say("session.found-interrupted", tracks=n, fraction=fraction, frames=frames)
    assert verdict.findings[0] == interrupted
    # And never without what forbids acting on that number.
    edit(folder, "frames", "missed", to={"camera": 90})
    (finding,) = verify(folder).findings
    grave = [warning.text for warning in open_session(folder).warnings if warning.key == "frames-lost"]
    assert finding.startswith(grave[0])
    assert finding.endswith(interrupted)


def fraction_values(figure: FractionFigure) -> dict[str, Any]:
    return {"estimate": figure.estimate, "low": figure.low, "high": figure.high, "cells": figure.n}


def cut_last_bytes(path: Path, n: int) -> None:
    os.truncate(path, path.stat().st_size - n)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def edit(folder: Path, *keys: str, to: Any) -> None:
    run = json.loads((folder / "run.json").read_text())
    part = run
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = to
    (folder / "run.json").write_text(json.dumps(run))


def drop_lines(path: Path, n: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-n]))


DAMAGE = {
    "a byte of a frame": (
        lambda s: flip(s / "frames.zarr/frames/c/1/0/0", 50),
        "ring.frames-found-damaged",
        {"damaged": 1, "frames": 4},
    ),
    "the ring's ledger": (
        lambda s: flip(s / "frames.zarr/frame_ledger/c/0/0", 33),
        "ring.rows-found-damaged",
        {"damaged": 1},
    ),
    "a frame deleted": (
        lambda s: (s / "frames.zarr/frames/c/1/0/0").unlink(),
        "ring.frames-found-damaged",
        {"damaged": 1, "frames": 4},
    ),
    "the ring deleted": (lambda s: shutil.rmtree(s / "frames.zarr"), "session.found-ring-missing", {}),
    "a byte of a crop": (
        lambda s: flip(s / "crops.zarr/crops/c.0.0.0", 5000),
        "session.found-crops-damaged",
        {"damaged": 1, "cells": 90},
    ),
    "a chunk of crops": (
        lambda s: (s / "crops.zarr/crops/c.0.0.0").unlink(),
        "session.found-crops-damaged",
        {"damaged": 90, "cells": 90},
    ),
    "the crops' index": (
        lambda s: (s / "crops.zarr/index/c.0.0").unlink(),
        "session.found-crops-missing",
        {"missing": 90, "cells": 90},
    ),
    "the crops deleted": (lambda s: shutil.rmtree(s / "crops.zarr"), "session.unreadable", {}),
    "cells.csv cut in a line": (
        lambda s: cut_last_bytes(s / "cells.csv", 9),
        "session.found-cut-line",
        {"name": "cells.csv"},
    ),
    "cells.csv cut at a line": (
        lambda s: drop_lines(s / "cells.csv", 3),
        "session.found-count-differs",
        {"name": "tracked", "found": 87},
    ),
    "cells.csv deleted": (lambda s: (s / "cells.csv").unlink(), "session.unreadable", {}),
    "cells.csv garbled": (lambda s: (s / "cells.csv").write_text("a,b\n1,2\n"), "session.unreadable", {}),
    "tracks.csv cut": (
        lambda s: drop_lines(s / "tracks.csv", 1),
        "session.found-tracks-differ",
        {"wrong": 1, "cells": 90},
    ),
    "a position changed": (
        lambda s: swap_text(s / "tracks.csv", "5,1\n", "6,1\n"),
        "session.found-file-changed",
        {"name": "tracks.csv"},
    ),
    "a label changed": (
        lambda s: swap_text(s / "cells.csv", "unreliable", "flipping"),
        "session.found-labels-do-not-fit",
        {"cells": 1},
    ),
    "a gap changed": (
        lambda s: swap_text(s / "cells.csv", ",stage-2,", ",stage-2,9"),
        "session.found-gaps-differ",
        {"cells": 1},
    ),
    "cells edited": (
        lambda s: edit(s, "cells", "flipping", to=1),
        "session.found-count-differs",
        {"told": 1, "name": "flipping"},
    ),
    "frames edited": (
        lambda s: edit(s, "frames", "received", to=299),
        "session.found-frames-do-not-add-up",
        {"received": 299, "processed": 295},
    ),
    "a frame that nobody accounts for": (
        lambda s: edit(s, "frames", "received", to=301),
        "session.found-frames-do-not-add-up",
        {"received": 301, "processed": 295},
    ),
    "fraction edited": (
        lambda s: edit(s, "fraction", "estimate", to=0.5),
        "session.found-fraction-differs",
        {"told": 0.5},
    ),
    "interval edited": (
        lambda s: edit(s, "fraction", "low", to=0.1),
        "session.found-end-differs",
        {"name": "low", "told": 0.1},
    ),
    "run.json robbed": (
        lambda s: edit(s, "frames", to=None),
        "session.found-run-lost",
        {"what": say("session.run-json-entry", name="frames")},
    ),
    "report deleted": (
        lambda s: (s / "report.html").unlink(),
        "session.found-file-missing",
        {"name": "report.html"},
    ),
}


def with_rules(folder: Path, **rules: float) -> None:
    """Let ``run.json`` say under what stop rules the cells were counted."""
    run = json.loads((folder / "run.json").read_text())
    run["parameters"].pop("stop_halfwidth")
    run["parameters"] |= {"fixed_n_interval": "wilson", **{f"stop_{k}": v for k, v in rules.items()}}
    if run["status"] != "running":
        figure = FractionFigure(**run["fraction"])
        run["fraction_corrected"] = plain(asdict(corrected_figure(run["models"], run["cells"], figure)))
    (folder / "run.json").write_text(json.dumps(run))


def test_a_crashed_run_says_the_interval_that_held_at_every_look(tmp_path: Path, pairs: list[Pair]) -> None:
    """In the order of counting, which is neither that of the numbers nor that of a closed table."""
    writer = begin(tmp_path / "S")
    writer.keep(pairs)
    writer.heartbeat(account_of(pairs))
    copy = Path(shutil.copytree(tmp_path / "S", tmp_path / "crashed"))
    assert open_session(copy).run["verdict"] == "provisional"
    writer.close(account_of(pairs), "stopped", "user")
    with_rules(copy, halfwidth=0.05)
    close_interrupted(copy, "The power went.")
    fraction = RunningFraction()
    for _, judged in pairs:
        fraction.update(
            tank_treading=int(judged.label == "tank-treading"), flipping=int(judged.label == "flipping")
        )
    session = open_session(copy)
    assert (session.run["status"], session.run["verdict"]) == ("failed", "no-result")
    assert session.fraction.method == "anytime"
    assert (session.fraction.low, session.fraction.high) == fraction.anytime_interval()
    for finding in verify(copy).findings:
        assert finding in (say("session.found-cells-order"), say("session.found-tracks-order"))
    # The same cells in another order would give another interval, so the order is what is proved.
    other = RunningFraction()
    for tank in sorted(session.counted.tolist()):
        other.update(tank_treading=int(tank), flipping=int(not tank))
    edit(copy, "fraction", "low", to=other.anytime_interval()[0])
    edit(copy, "fraction", "high", to=other.anytime_interval()[1])
    assert any_said("session.found-end-differs", verify(copy).findings, method="anytime")
    # Where the order is lost, so is the proof, and nothing is said to be well.
    shutil.rmtree(copy / "crops.zarr")
    assert any_said("session.unreadable", verify(copy).findings, path=copy / "crops.zarr")


def test_another_rule_than_the_one_that_stopped_the_run_is_found(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "S"))
    with_rules(folder, seconds=60)
    assert verify(folder, only_number=True).findings == []
    with_rules_of_a_width = Path(shutil.copytree(whole, tmp_path / "T"))
    with_rules(with_rules_of_a_width, halfwidth=0.05)
    (finding,) = verify(with_rules_of_a_width, only_number=True).findings
    assert is_said("session.found-interval-of-another-end", finding, told="wilson")
    edit(folder, "parameters", "fixed_n_interval", to=None)
    assert verify(folder, only_number=True).findings == []
    edit(folder, "fraction", "method", to="fixed-width")
    (finding,) = verify(folder, only_number=True).findings
    assert is_said("session.found-interval-without-rules", finding)


def test_a_stop_that_was_none_is_found(whole: Path, tmp_path: Path) -> None:
    """The interval hangs on the reason: one that is not true is no smaller fault than a wrong number."""
    folder = Path(shutil.copytree(whole, tmp_path / "S"))
    labels = finished_labels(folder, open_session(folder).cells)
    n = sum(label in ("tank-treading", "flipping") for label in labels)
    assert 20 < n < len(labels) < 90

    def found(reason: str, **rules: float) -> list[str]:
        edit(folder, "stop_reason", to=reason)
        run = json.loads((folder / "run.json").read_text())
        run["parameters"] = {k: v for k, v in run["parameters"].items() if not k.startswith("stop_")}
        run["parameters"] |= {"fixed_n_interval": "wilson", **{f"stop_{k}": v for k, v in rules.items()}}
        (folder / "run.json").write_text(json.dumps(run))
        return verify(folder, only_number=True).findings

    assert found("seconds", seconds=60) == [say("session.found-nothing-corrected")]
    figure = FractionFigure(**json.loads((folder / "run.json").read_text())["fraction"])
    told = corrected_figure(MODELS, open_session(folder).run["cells"], figure)
    edit(folder, "fraction_corrected", to=plain(asdict(told)))
    assert found("seconds", seconds=60) == []
    # All tracks that ended are as many as were asked for; the last of them need not be one that counts.
    assert found("tracks", tracks=len(labels)) == []
    by_track, not_met = "session.found-rule-met-by-track", "session.found-rule-not-met"
    other, before = "session.found-other-rule-met", "session.found-rule-met-before"
    assert any_said(by_track, found("tracks", tracks=len(labels) - 1))
    assert any_said(not_met, found("tracks", tracks=len(labels) + 1))
    assert any_said(not_met, found("reliable", reliable=n + 1))
    assert any_said(by_track, found("reliable", reliable=n - 1))
    assert any_said(other, found("tracks", tracks=len(labels), reliable=n - 1), met="reliable")
    assert any_said(before, found("seconds", seconds=60, reliable=n), met="reliable")


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found(copied: Path, kind: str) -> None:
    damage, key, values = DAMAGE[kind]
    damage(copied)
    verdict = verify(copied)
    assert verdict.code == 1
    assert any_said(key, verdict.findings, **values), verdict.findings


def somebody_elses(folder: Path) -> None:
    """Names as ours, and none of it is."""
    for name in ("crops.zarr", "frames.zarr"):
        zarr.create_array(folder / name, shape=(3,), dtype="u1")
    (folder / "cells.csv").write_text("ObjectNumber,Area\n1,2\n")
    (folder / "run.json").write_text('{"status": "done"}')


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda s: (s / "run.json").unlink(), "session.no-run-json"),
        (lambda s: cut_last_bytes(s / "run.json", 30), "session.run-json-damaged"),
        (lambda s: (s / "run.json").write_bytes(b""), "session.run-json-damaged"),
    ],
)
def test_what_can_be_recovered_without_its_account(
    copied: Path, pairs: list[Pair], make: Any, key: str
) -> None:
    fraction = open_session(copied).fraction
    make(copied)
    verdict = verify(copied)
    assert verdict.code == 1
    assert len(verdict.findings) == 1
    assert is_said("session.found-tracks", verdict.findings[0], tracks=len(pairs))
    assert is_said(
        "session.found-fraction", verdict.findings[0], estimate=fraction.estimate, cells=fraction.n
    )
    for part in (say("session.found-crops", tracks=len(pairs)), say("session.found-frames", frames=4)):
        assert part in verdict.findings[0]
    assert is_said(key, verdict.findings[0])
    with pytest.raises(BadInput) as error:
        open_session(copied)
    assert error.value.key == "session.not-a-session"
    assert is_said(key, str(error.value))
    # Damage beside it is still found, and any one of the three is worth telling of.
    flip(copied / "crops.zarr/crops/c.0.0.0", 5000)
    assert any_said("session.found-crops-damaged", verify(copied).findings, damaged=1, cells=90)
    (copied / "cells.csv").unlink()
    shutil.rmtree(copied / "crops.zarr")
    verdict = verify(copied)
    assert verdict.code == 1
    frames = say("session.found-frames", frames=4)
    assert is_said("session.found-run-lost", verdict.findings[0], parts=frames)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda s: shutil.rmtree(s), "session.no-such-folder"),
        (lambda s: (shutil.rmtree(s), s.write_text("a movie")), "session.is-a-file"),
        (lambda s: (shutil.rmtree(s), s.mkdir()), "session.no-run-json"),
        (lambda s: (shutil.rmtree(s), somebody_elses(s)), "session.run-json-foreign"),
        (lambda s: edit(s, "format", to=99), "ring.newer-version"),
    ],
)
def test_what_is_no_session(copied: Path, make: Any, key: str) -> None:
    make(copied)
    verdict = verify(copied)
    assert verdict.code == 2
    assert is_said(key, verdict.findings[0])
    with pytest.raises(BadInput) as error:
        open_session(copied)
    assert str(error.value) == verdict.findings[0]


def test_where_a_session_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, key in (
        (tmp_path, "session.exists"),
        (tmp_path / "file" / "S", "session.cannot-create"),
        (tmp_path / "no" / "S", "session.no-parent-folder"),
        (tmp_path / "a\0b", "session.name-holds-nul"),
    ):
        with pytest.raises(BadInput) as error:
            begin(folder)
        assert error.value.key == key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_folder_that_takes_no_folders_is_not_said_to_be_missing() -> None:
    with pytest.raises(BadInput) as error:
        begin(Path("/proc/foo"))
    why = say("session.parent-takes-no-folders", parent="/proc")
    assert str(error.value) == say("session.cannot-create", folder="/proc/foo", why=why)


@pytest.mark.skipif(os.name == "nt", reason="rights of another user are POSIX's here")
def test_a_running_session_is_no_crashed_one_to_whom_may_only_read(tmp_path: Path) -> None:
    writers = []
    for name, rights in (("readable", 0o444), ("not even that", 0o000)):
        writers.append(begin(tmp_path / name))
        (tmp_path / name / ".writing").chmod(rights)
    asking = (
        "import os\n"
        "from napari_rbcflow.session import open_session\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "print(*(open_session(name).interrupted for name in ('readable', 'not even that')))"
    )
    tmp_path.chmod(0o755)  # whose parents are closed: but that is where the process stands
    asked = subprocess.run(
        [sys.executable, "-c", asking], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert asked.stdout.split() == ["False", "False"]
    for writer in writers:
        writer.close(account_of([]), "stopped", "user")


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path, pairs: list[Pair]) -> None:
    """A shell hands on whatever bytes were typed; a movie's name may be of another century."""
    odd = os.fsdecode(b"m\xff.tif")
    assert not odd.isprintable()
    writer = begin(
        tmp_path / "S", patient=odd, source=replace(SOURCE, name=odd, warnings=(f"{odd} is odd.",))
    )
    writer.keep(pairs)
    writer.close(account_of(pairs), "failed", f"{odd} broke")
    run = open_session(tmp_path / "S").run
    assert (run["patient"], run["parameters"]["source"], run["stop_reason"]) == (odd, odd, f"{odd} broke")
    for name in ("report.html", "run.log"):
        assert r"m\udcff.tif" in (tmp_path / "S" / name).read_text(encoding="utf-8")
    assert verify(tmp_path / "S").findings == []


def test_cells_that_cannot_be_told_are_a_row_of_their_own(tmp_path: Path, pairs: list[Pair]) -> None:
    """They passed stage 1, so the report must neither call them blurred nor count them."""
    counted = [i for i, (_, said) in enumerate(pairs) if said.reason == "stage-2"]
    some = list(pairs)
    for i in counted[:3]:
        track, said = some[i]
        some[i] = (track, Judgement(said.cell, Label.UNRELIABLE, said.p_reliable, 0.6, "undecided"))
    folder = write(tmp_path / "S", some)
    assert verify(folder).code == 0
    page = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    blurred = sum(said.reason == "stage-1" for _, said in pairs)
    assert re.search(rf"{say('report.cells-blurred')}\s+{blurred}\s", page)
    assert re.search(rf"{say('report.cells-undecided')}\s+3\s", page)
    assert f"alone enough to be judged ({len(counted)} were)" in page
    assert say("report.undecided", cells=3) in page


def test_a_report_that_fails_loses_nothing_else(tmp_path: Path, pairs: list[Pair]) -> None:
    writer = begin(tmp_path / "S")
    writer.keep(pairs)
    (tmp_path / "S" / "report.html").mkdir()
    writer.close(account_of(pairs), "finished", "source-ended")
    run = open_session(tmp_path / "S").run
    assert (run["status"], run["stop_reason"]) == ("finished", "source-ended")
    assert run["cells"]["tracked"] == len(pairs)
    assert writer.report_fault in run["warnings"]
    assert is_said("session.report-failed", str(writer.report_fault))
    assert "Traceback" in (tmp_path / "S" / "run.log").read_text()
    (tmp_path / "S" / "report.html").rmdir()
    assert verify(tmp_path / "S").findings == [say("session.found-file-missing", name="report.html")]
    write_report(tmp_path / "S")
    assert verify(tmp_path / "S").code == 0


@pytest.mark.parametrize("piece", [1, 7, 100, 4096, 1 << 20])
def test_tracks_are_sorted_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(tables, "_BLOCK_BYTES", piece)
    monkeypatch.setattr(tables, "_WINDOW_BYTES", piece)
    monkeypatch.setattr(tables, "_APART_BYTES", piece % 300)
    monkeypatch.setattr(tables, "_SYNCED_BYTES", 3 * piece)
    tracks = [track for track, _ in some_pairs(40, seed=piece)]
    path = tmp_path / "tracks.csv"
    first = tables.header(tables.TRACK_COLUMNS)
    path.write_bytes(first + tables.track_rows(tracks))
    cells, lengths = np.array([track.cell for track in tracks]), np.array([len(track) for track in tracks])
    wanted = first + tables.track_rows(sorted(tracks, key=lambda track: track.cell))
    told = tables.sort_tracks(path, cells, lengths)
    assert path.read_bytes() == wanted
    assert told == tables.fingerprint(path)
    # What does not fit the table leaves it alone.
    tables.sort_tracks(path, cells[:-1], lengths[:-1])
    tables.sort_tracks(path, cells, lengths + 1)
    assert path.read_bytes() == wanted
    path.write_bytes(b"")
    tables.sort_tracks(path, cells, lengths)
    assert [one.name for one in tmp_path.iterdir()] == ["tracks.csv"]


def test_a_rename_that_is_denied_for_a_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a virus scanner: in a run, at its close and in a review."""
    denied, rename = Counter[str](), os.replace

    def deny(source: Any, target: Any, **more: Any) -> None:
        denied[Path(target).name] += "partial" not in Path(source).name  # zarr's own files
        if 0 < denied[Path(target).name] <= 3:
            raise PermissionError(13, "Access is denied", str(source), 5, str(target))
        rename(source, target, **more)

    monkeypatch.setattr(os, "replace", deny)
    monkeypatch.setattr(Path, "replace", lambda self, target: deny(self, target))
    folder = write(tmp_path / "S", some_pairs(90))
    assert {"run.json", "cells.csv", "tracks.csv", "report.html", "c.0.0.0"} <= set(denied)
    assert verify(folder).findings == []
    monkeypatch.setattr(disk, "DENIED_S", 0.05)
    monkeypatch.setattr(Path, "replace", lambda *_: denied.clear() or deny("x", "y"))
    with pytest.raises(PermissionError):
        replace_file(tmp_path / "never", b"")
    assert [p.name for p in tmp_path.iterdir()] == ["S"]


@pytest.mark.parametrize("name", ["cells.csv", "tracks.csv"])
def test_a_table_that_cannot_be_replaced_ends_no_session(
    tmp_path: Path, pairs: list[Pair], name: str
) -> None:
    """As on Windows, where another program has it open."""
    writer = begin(tmp_path / "S")
    writer.keep(pairs)
    (tmp_path / "S" / f"{name}.new").mkdir()
    writer.close(account_of(pairs), "finished", "source-ended")
    session = open_session(tmp_path / "S")
    assert session.run["status"] == "finished"
    assert set(session.cells["cell"]) == {track.cell for track, _ in pairs}
    (warning,) = (w for w in session.run["warnings"] if is_said("session.unsorted", w, name=name))
    page = (tmp_path / "S" / "report.html").read_text(encoding="utf-8")
    assert warning in html.unescape(page)
    # The other table is sorted; the sums in ``run.json`` are those of what lies there.
    (finding,) = verify(tmp_path / "S").findings
    assert finding == say(f"session.found-{name.partition('.')[0]}-order")


@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_a_disk_too_small_is_known_before_the_run(small_disk: Path) -> None:
    with refused(BadInput, "ring.no-room"):
        begin(small_disk / "S", source=replace(SOURCE, height=1096, width=1376), ring_frames=40)
    assert list(small_disk.iterdir()) == []


def keep_in_dozens(writer: SessionWriter, pairs: list[Pair], kept: list[Pair]) -> None:
    for first in range(0, len(pairs), 12):
        writer.keep(pairs[first : first + 12])
        kept += pairs[first : first + 12]


@pytest.mark.parametrize("reserve", [8 * 2**20, 300_000])
@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_a_full_disk_in_mid_run(small_disk: Path, monkeypatch: pytest.MonkeyPatch, reserve: int) -> None:
    monkeypatch.setattr(schema, "RESERVE_BYTES", reserve)
    folder = small_disk / "S"
    writer = begin(folder)
    pairs = some_pairs(3000, greys=(0, 256))  # what can be packed makes room again
    kept: list[Pair] = []
    full = say("ring.disk-full", folder=folder)
    with pytest.raises(RunFailed) as error:
        keep_in_dozens(writer, pairs, kept)
    assert str(error.value) == full
    assert len(kept) > 100
    filler = (small_disk / "filler").open("wb", buffering=0)
    with filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    # As a run does with what it could not keep; that must leave neither halves nor doubles.
    with pytest.raises(RunFailed) as error:
        keep_in_dozens(writer, pairs[len(kept) :], kept)
    assert str(error.value) == full
    writer.close(account_of(kept), "failed", "The disk is full.")
    session = open_session(folder)
    assert session.run["status"] == "failed"
    assert set(session.cells["cell"]) == {track.cell for track, _ in kept}
    assert len(session.tracks) == sum(len(track) for track, _ in kept)
    for track, _ in kept[-20:]:
        assert np.array_equal(session.crops(track.cell), track.crops)
    if reserve > 10**6:
        assert verify(folder).findings == []
    else:  # no room to sort in: said, and nothing else is wrong
        assert any_said("session.unsorted-disk-full", session.run["warnings"])
        unsorted = (say("session.found-cells-order"), say("session.found-tracks-order"))
        assert all(finding in unsorted for finding in verify(folder).findings)


def test_a_session_of_an_earlier_version(tmp_path: Path) -> None:
    """Made at 3c6ce4e: `rbcflow analyze` of a simulated movie of 1.2 s, with one label changed by hand."""
    with zipfile.ZipFile(Path(__file__).with_name("old_session.zip")) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "old-session"
    assert verify(folder).findings == []
    session = open_session(folder)
    assert (session.run["status"], session.run["frames"]["processed"]) == ("finished", 72)
    assert Counter(session.cells["label"]) == {
        "unreliable": 23,
        "tank-treading": 3,
        "flipping": 1,
        "too-short": 1,
    }
    assert (session.fraction.estimate, session.fraction.n) == (0.75, 4)
    assert session.fraction_by_hand is not None
    assert session.fraction_by_hand.estimate == 0.5
    for cell, frames in zip(session.cells["cell"], session.cells["frames"], strict=True):
        assert session.crops(cell).shape == (frames, 31, 31)
    assert len(session.tracks) == session.cells["frames"].sum()
    assert session.ring is not None
    assert session.ring.frame(71).shape == (96, 640)
    ChangeLog(folder).add(1, "unreliable", "Ben")
    assert verify(folder).findings == []
    assert "Ben" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_session_from_before_gaps_were_told(whole: Path, copied: Path) -> None:
    lines = (copied / "cells.csv").read_text().splitlines()
    (copied / "cells.csv").write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in lines))
    older, newer = open_session(copied).cells, open_session(whole).cells
    assert (newer["gap_frames"] > 0).any()
    assert older.equals(newer)
    assert verify(copied).findings == [say("session.found-file-changed", name="cells.csv")]


class _Tags(HTMLParser):
    """The tags and attributes of a page, and what would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_report(tmp_path: Path, pairs: list[Pair]) -> None:
    patient = '<script>alert("x")</script>'
    page = (write(tmp_path / "S", pairs, patient=patient, warnings=["A & <b>"]) / "report.html").read_text()
    tags = _Tags(page)
    assert tags.tags["script"] == 0
    assert tags.links == []
    assert tags.tags["svg"] == 2
    assert "&lt;script&gt;" in page
    assert "A &amp; &lt;b&gt;" in page
    fraction = open_session(tmp_path / "S").fraction
    assert fraction.estimate is not None
    assert fraction.low is not None
    assert fraction.high is not None
    shown = re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])
    number = f"{100 * fraction.estimate:.1f} %"
    assert f"({100 * fraction.low:.1f} to {100 * fraction.high:.1f} %;" in shown
    assert f"from {fraction.n} cells" in shown
    # The verdict, then what is wrong, then the machine's number among the details.
    word = shown.index(f"◐ {say('session.verdict-provisional')}")
    assert word < shown.index(say("session.why-unchecked")) < shown.index("A &amp;") < shown.index(number)
    for model in MODELS.values():
        assert model["name"] in shown
        assert model["hash"] in shown
    assert 'class="grave"' not in page
    assert 'class="big"' not in page  # nothing to copy

    # A reviewed session's number is large, and the machine's is not.
    (tmp_path / "S" / "review.json").write_text(
        '{"fraction_reviewed": {"estimate": 0.78, "low": 0.7, "high": 0.85, "level": 0.95,'
        ' "method": "reviewed", "n": 60}}'
    )
    page = write_report(tmp_path / "S").read_text()
    assert '<section class="verdict result">' in page
    assert re.findall(r'class="big">([^<]*)<', page) == ["78.0 %"]
    assert "<b>70.0 to 85.0 %</b>" in page
    assert say("session.why-reviewed", cells=60) in page

    # A grave warning stands above the number, whatever it is, and is said once.
    failed = write(tmp_path / "F", pairs, status="failed", dropped={"queue-full": 5})
    shown = (failed / "report.html").read_text()
    assert '<section class="verdict no-result">' in shown
    assert shown.index("The run failed: the camera went away") < shown.index(number)
    assert shown.count("The run failed: the camera went away") == 1
    assert shown.index("5 of 300 frames (1.7 %) were lost") < shown.index(number)

    few = write(tmp_path / "W", [p for p in pairs if p[1].label != "tank-treading"])
    shown = (few / "report.html").read_text()
    assert shown.index(say("quality.warn-few-cells", cells=open_session(few).fraction.n)) < shown.index(
        "0.0 %"
    )

    # Where nothing was counted there is no number to read.
    none = write(tmp_path / "N", [p for p in pairs if p[1].reason != "stage-2"])
    shown = (none / "report.html").read_text()
    assert say("report.no-cell-counted") in shown
    assert say("quality.warn-none-counted") in shown
    assert not re.search(r'class="big">[\d.]', shown)

    before = (failed / "report.html").read_bytes()
    assert write_report(failed).read_bytes() == before  # it can be made again from the folder alone
