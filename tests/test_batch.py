"""Many movies: a session and a row each, bad ones alone, going on after any stop, clusters and stores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
from sentence_keys import is_said, refused

from napari_rbcflow import analyze_many, open_session
from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import busy
from napari_rbcflow.pipeline.batch_list import list_movies
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.session import RunRecord, verify

pytest.importorskip("distributed", reason="Dask is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "flow_chamber.tif"
GIVEN: dict[str, Any] = {"fps": 60.0, "pixel_size_um": 0.605, "device": "cpu"}
OPTIONS = ["--fps", "60", "--pixel-size-um", "0.605", "--device", "cpu"]


@pytest.fixture(scope="module")
def frames() -> Any:
    return tifffile.imread(SAMPLE)


def write_movies(folder: Path, frames: Any, n: int) -> list[Path]:
    """Write movies of 40 frames, each another part of the sample."""
    folder.mkdir(exist_ok=True)
    movies = [folder / f"m{k}.tif" for k in range(n)]
    for k, movie in enumerate(movies):
        tifffile.imwrite(movie, frames[20 * k : 20 * k + 40], photometric="minisblack")
    return movies


def table_of(folder: Path) -> pd.DataFrame:
    """Read the table, which is the same in both forms, by the name of the movie's file."""
    table = pd.read_csv(folder / "batch.csv", dtype={"reason": str, "patient": str}, keep_default_na=True)
    assert len(pd.read_parquet(folder / "batch.parquet")) == len(table)
    return table.set_index(table["movie"].map(lambda movie: Path(movie).name))


def started(folder: Path) -> dict[str, str]:
    """When each session of a batch was made."""
    return {run.parent.name: json.loads(run.read_text())["started"] for run in folder.glob("*/run.json")}


# ------------------------------------------------------------------ one batch, looked at again and again


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory, frames: Any) -> Path:
    """A laboratory's list, as its spreadsheet writes it, beside two movies and three that are none."""
    folder = tmp_path_factory.mktemp("laboratory")
    write_movies(folder, frames, 2)
    (folder / "m1.tif").rename(folder / "ü m.tif")
    (folder / "text.tif").write_text("no movie")
    tifffile.imwrite(folder / "still.tif", np.full((30, 96, 128), 120, np.uint8), photometric="minisblack")
    rows = ["Movie;patient;sample;date;operator;fps;ward", "m0.tif;AB;arm;2026-03-02;Anna;59,5;7"]
    rows += ["ü m.tif;CD;;2.3.2026;;;", "text.tif", "still.tif;EF", "absent.tif;GH"]
    (folder / "list.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    return folder


@pytest.fixture(scope="module")
def batch(lists: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, list[str]]:
    """The batch of that list; what is returned, and the addresses at which it listened."""
    folder = tmp_path_factory.mktemp("results") / "b"
    listening: list[str] = []

    def look(*_: Any) -> None:
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            listening.extend(c.laddr.ip for c in process.net_connections() if c.status == "LISTEN")

    return folder, analyze_many(lists / "list.csv", folder, progress=look, **GIVEN), listening


def test_each_movie_gets_a_session_and_a_row_and_a_bad_one_fails_alone(
    batch: tuple[Path, pd.DataFrame, list[str]],
) -> None:
    folder, returned, listening = batch
    table = table_of(folder)
    assert list(table.index) == ["m0.tif", "ü m.tif", "text.tif", "still.tif", "absent.tif"]
    assert list(table["status"]) == ["finished", "finished", "failed", "failed", "failed"]
    assert list(returned["status"]) == list(table["status"])
    for movie, key in (("still.tif", "pipeline.no-cell-in-movie"), ("absent.tif", "sources.no-file")):
        assert is_said(key, table["reason"][movie])
    assert table["reason"]["text.tif"]
    for movie, patient, fps in (("m0.tif", "AB", 59.5), ("ü m.tif", "CD", 60.0)):
        row = table.loc[movie]
        session = open_session(folder / row["session"])
        assert verify(session.folder).code == 0
        assert (row["patient"], row["fps"], row["frames"]) == (patient, fps, 40)
        assert (session.run["patient"], session.run["parameters"]["fps"]) == (patient, fps)
        assert (row["n"], row["tracked"]) == (session.fraction.n, len(session.cells))
        assert (row["verdict"], row["verdict_reason"]) == (
            session.conclusion.verdict,
            session.conclusion.reason,
        )
        assert row["warnings"].split() == [warning.key for warning in session.warnings]
    # What is no setting stays beside the results; the record's fields go into the session.
    assert (table["date"]["m0.tif"], table["ward"]["m0.tif"]) == ("2026-03-02", 7)
    assert open_session(table["session"]["m0.tif"]).run["record"] == {"operator": "Anna"}
    assert table["record_operator"].dropna().to_dict() == {"m0.tif": "Anna"}
    assert "operator" not in table
    assert set(listening) <= {"127.0.0.1", "::1"}
    assert {path.name for path in folder.glob("*")} >= {"m0", "ü m", "batch.csv", "batch.parquet"}
    assert not list(folder.glob(".batch/work/*"))


@pytest.mark.timeout(400)
def test_called_again_it_does_only_what_is_not_finished(
    batch: tuple[Path, pd.DataFrame, list[str]], lists: Path, frames: Any, tmp_path: Path, rbcflow: Any
) -> None:
    folder = Path(shutil.copytree(batch[0], tmp_path / "b"))
    before, done = started(folder), []

    def again(*movies: Path, **changes: Any) -> pd.DataFrame:
        done.clear()
        analyze_many(movies, folder, progress=lambda row, *_: done.append(row["movie"]), **GIVEN | changes)
        return table_of(folder)

    # Too little memory: the process is ended, the movie fails, and the one before stays.
    shutil.copy(lists / "m0.tif", lists / "text.tif")
    shutil.copy(lists / "m0.tif", lists / "still.tif")
    table = again(lists / "text.tif", memory_gb=0.01)
    assert len(done) == 1
    assert is_said("pipeline.batch-memory", table["reason"]["text.tif"])
    # What failed is tried again, and what a person deleted is made again under its name.
    shutil.rmtree(folder / "m0")
    table = again(lists / "list.csv")
    assert len(done) == 4
    assert list(table["status"]) == ["finished"] * 4 + ["failed"]
    assert sorted(started(folder)) == ["m0", "still", "text", "ü m"]
    assert started(folder)["ü m"] == before["ü m"]
    # The same frames with the same settings are not analysed twice, but have a session of their own.
    shutil.copy(lists / "m0.tif", lists / "copy.tif")
    table = again(lists / "copy.tif", fps=60.0)
    assert is_said("pipeline.batch-same", table["reason"]["copy.tif"])
    assert started(folder)["copy"] == started(folder)["text"]
    assert verify(folder / "copy").code == 0
    # Only touched: nothing to do but to look. Changed: done again, and the session before stays.
    os.utime(lists / "copy.tif")
    again(lists / "copy.tif")
    assert "copy-2" not in started(folder)
    tifffile.imwrite(lists / "copy.tif", frames[60:100], photometric="minisblack")
    table = again(lists / "copy.tif")
    assert is_said("pipeline.batch-again-movie", table["reason"]["copy.tif"], session="copy")
    assert {"copy", "copy-2"} <= set(started(folder))
    # A changed setting too; changed back, what was done counts again.
    table = again(lists / "copy.tif", least_frames=8)
    assert is_said("pipeline.batch-again-settings", table["reason"]["copy.tif"], session="copy-2")
    assert Path(table["session"]["copy.tif"]).name == "copy-3"
    assert Path(again(lists / "copy.tif")["session"]["copy.tif"]).name == "copy-2"
    again(lists / "copy.tif")
    assert done == []
    # The command says the same: 1 as long as one failed.
    code, out, _ = rbcflow("batch", lists / "list.csv", "-o", folder, *OPTIONS)
    assert code == 1
    assert is_said("cli.batch-ended", out, finished=4, movies=5, failed=1)
    assert rbcflow("batch", lists / "copy.tif", "-o", folder, *OPTIONS)[0] == 0


def bad_lists(folder: Path) -> None:
    (folder / "columns.csv").write_text("film,patient\nm0.tif,A\n")
    (folder / "empty.csv").write_text("movie,patient\n")
    (folder / "value.csv").write_text("movie,fps\nm0.tif,60\nm0.tif,fast\n")
    (folder / "flow.csv").write_text("movie,flow\nm0.tif,upwards\n")
    (folder / "twice.csv").write_text("movie,patient\nm0.tif,A\nm0.tif,B\n")
    (folder / "number.csv").write_text("movie,fps\nm0.tif,-3\n")
    (folder / "same.csv").write_text("movie,patient,Patient\nm0.tif,A,B\n")
    # The table of an earlier batch: of a movie that fails, its old number would pass for a new one.
    (folder / "ours.csv").write_text("movie,patient,Verdict,fraction\nm0.tif,A,result,0.9\n")
    (folder / "record.csv").write_text("movie,record_operator\nm0.tif,Anna\n")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["absent-1.tif", "absent-2.tif"], "pipeline.batch-none-there"),
        (["absent.tif"], "sources.no-file"),
        (["absent-*.tif"], "pipeline.batch-no-match"),
        ([], "pipeline.batch-nothing"),
        (["columns.csv"], "pipeline.batch-list-columns"),
        (["empty.csv"], "pipeline.batch-list-empty"),
        (["absent.csv"], "pipeline.batch-list-unreadable"),
        (["value.csv"], "pipeline.batch-list-line"),
        (["flow.csv"], "pipeline.batch-list-line"),
        (["twice.csv"], "pipeline.batch-list-line"),
        (["number.csv"], "pipeline.batch-list-line"),
        (["same.csv"], "pipeline.batch-list-column-twice"),
        (["ours.csv"], "pipeline.batch-list-column-ours"),
        (["record.csv"], "pipeline.batch-list-column-ours"),
        (["nowhere://bucket/m0.tif"], "pipeline.batch-no-store"),
    ],
)
def test_what_is_wrong_as_a_whole_is_refused_before_anything_is_made(
    tmp_path: Path, given: list[str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m0.tif").write_bytes(b"never read")
    bad_lists(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with refused(BadInput, key):
        analyze_many(given, "b")
    assert sorted(tmp_path.iterdir()) == before


def test_a_movie_with_other_settings_is_not_finished(tmp_path: Path) -> None:
    other: list[dict[str, Any]] = [
        *({"leave_out_intruded": False}, {"least_frames": 10}, {"interval": "jeffreys"}, {"rotate": 90}),
        *({"background": "sliding"}, {"flow": "right-to-left"}, {"set_flow": SetFlow(20.0)}),
        *({"fps": 30.0}, {"pixel_size_um": 0.3}, {"patient": "A"}, {"sample": "A"}),
        {"run_record": RunRecord.parse(["control_lot=C7"])},
    ]
    hashes = [list_movies(SAMPLE, **settings)[0].settings_hash for settings in ({}, *other)]
    assert len(set(hashes)) == len(hashes)
    # A spreadsheet's own way to write a name makes a control's run no patient's.
    (tmp_path / "list.csv").write_text(f"Movie;Control_Lot\n{SAMPLE};C7\n")
    (movie,) = list_movies(tmp_path / "list.csv")
    assert (movie.settings_hash, movie.columns) == (hashes[-1], {})


def test_what_is_no_batch_s_folder_is_refused(tmp_path: Path, rbcflow: Any) -> None:
    (tmp_path / "m0.tif").write_bytes(b"never read")
    (tmp_path / "taken").mkdir()
    for folder, options in (
        (tmp_path / "taken", []),
        (tmp_path / "m0.tif", []),
        (tmp_path / "no" / "b", []),
        (tmp_path / "b", ["--workers", "0"]),
        (tmp_path / "b", ["--memory-gb", "-1"]),
        (tmp_path / "b", ["--least-frames", "2"]),
        (tmp_path / "b", ["--scheduler", "nonsense"]),
    ):
        code, _, err = rbcflow("batch", tmp_path / "m0.tif", "-o", folder, *options)
        assert code == 2
        assert len(err.strip().splitlines()) == 1
        assert "`" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m0.tif", "taken"]


def test_the_record_is_that_of_the_command_with_what_a_list_says_of_a_movie(
    lists: Path, batch: tuple[Path, pd.DataFrame, list[str]], tmp_path: Path, rbcflow: Any
) -> None:
    (tmp_path / "ours.toml").write_text("[fields.ph]\nrequired = true\nkind = 'number'\n")
    folder, movie = tmp_path / "b", lists / "m0.tif"
    (tmp_path / "list.csv").write_text(f"movie,ph,date\n{movie},7.4,today\nabsent.tif,,today\n")
    command = ["batch", tmp_path / "list.csv", "-o", folder, *OPTIONS, "--record", "medium_lot=M7"]
    command += ["--record-template", tmp_path / "ours.toml"]
    # Nothing begins without a required field, and the line of the list is named.
    code, _, err = rbcflow(*command)
    assert (code, folder.exists()) == (2, False)
    assert "list.csv, line 3" in err
    (tmp_path / "list.csv").write_text(f"movie,ph,date\n{movie},7.4,today\nabsent.tif,7.2,today\n")
    assert rbcflow(*command)[0] == 1
    table = table_of(folder)
    assert table["record_ph"].to_dict() == {"m0.tif": 7.4, "absent.tif": 7.2}
    assert set(table["record_medium_lot"]) == {"M7"}
    assert set(table["date"]) == {"today"}
    assert open_session(folder / "m0").run["record"] == {"medium_lot": "M7", "ph": 7.4}


def test_the_table_says_what_a_session_says_after_a_review(
    batch: tuple[Path, pd.DataFrame, list[str]], lists: Path, tmp_path: Path, rbcflow: Any
) -> None:
    folder = Path(shutil.copytree(batch[0], tmp_path / "b"))
    before = analyze_many([], folder).set_index("patient")
    assert (before["verdict"]["AB"], before["status"]["CD"]) == ("provisional", "finished")
    assert before["result"].isna().all()
    session = open_session(folder / "m0")
    chosen = session.review_sample(60)
    session.review(dict.fromkeys(chosen, "tank-treading"), by="Ben")
    shutil.rmtree(folder / "ü m")
    # With no movie at all, and as well before a movie is analysed.
    assert rbcflow("batch", "-o", folder)[0] == 1
    table, conclusion = table_of(folder), open_session(folder / "m0").conclusion
    row = table.loc["m0.tif"]
    assert (row["verdict"], row["verdict_reason"]) == (conclusion.verdict, conclusion.reason)
    assert row["verdict_reason"] != before["verdict_reason"]["AB"]
    assert (row["fraction"], row["n"]) == (before["fraction"]["AB"], before["n"]["AB"])
    assert conclusion.headline is not None, conclusion
    assert (row["result"], row["result_n"]) == (conclusion.headline.estimate, conclusion.headline.n)
    # A number whose session is gone is no number any more.
    gone = table.loc["ü m.tif"]
    assert gone["status"] == "failed"
    assert is_said("pipeline.batch-session-gone", gone["reason"], session="ü m")
    assert pd.isna(gone["fraction"])
    # One that is damaged neither, and what is left of it is not written over.
    (folder / "m0" / "run.json").write_text("{")
    table = analyze_many(lists / "m0.tif", folder, patient="AB", sample="arm", **GIVEN | {"fps": 59.5})
    assert Path(table["session"][0]).name == "m0-2"
    assert (folder / "m0" / "run.json").read_text() == "{"
    assert rbcflow("batch", "-o", tmp_path / "none")[0] == 2


def test_sessions_that_changed_their_names_give_no_movie_the_number_of_another(
    batch: tuple[Path, pd.DataFrame, list[str]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(batch[0], tmp_path / "b"))
    (folder / "m0").rename(folder / "kept")
    (folder / "ü m").rename(folder / "m0")
    table = analyze_many([], folder).set_index("patient")
    assert is_said("pipeline.batch-session-other", table["reason"]["AB"], session="m0")
    assert is_said("pipeline.batch-session-gone", table["reason"]["CD"], session="ü m")
    assert table["fraction"].isna().all()
    assert table["verdict"].isna().all()
    assert open_session(folder / "m0").run["patient"] == "CD"  # nothing is removed


def test_a_batch_can_be_watched_and_stopped(tmp_path: Path, frames: Any) -> None:
    movies = write_movies(tmp_path / "m", frames, 2)
    tifffile.imwrite(movies[1], np.concatenate([frames] * 20), photometric="minisblack")
    stop, seen, schedulers, between = threading.Event(), [], set(), []

    def look(rows: Any, left_s: float) -> None:
        seen.append([row["status"] for row in rows])
        schedulers.add(dask.config.get("scheduler", None))
        if rows[1].get("share", 0.0) > 0:
            assert left_s > 0
            stop.set()

    def progress(*_: Any) -> None:
        between.append(busy(movies=True))

    table = analyze_many(movies, tmp_path / "b", workers=1, progress=progress, look=look, stop=stop, **GIVEN)
    assert between == [True]  # between two movies too: a live run next to them would lose frames
    assert not busy()
    assert schedulers == {None}  # lazy layers of others still compute, meanwhile and afterwards
    assert seen[0] == ["waiting"] * 2
    assert ["finished", "running"] in seen
    assert seen[-1] == ["finished", "waiting"]
    assert list(table["status"]) == list(table_of(tmp_path / "b")["status"]) == ["finished"]
    assert list(started(tmp_path / "b")) == ["m0"]
    assert not list((tmp_path / "b").glob(".batch/work/*/*"))


# ------------------------------------------------------------------ killed, on a cluster, in a store


def rows_so_far(folder: Path) -> int:
    """How many movies are done; the table, which lags behind, can be read at any moment."""
    if (folder / "batch.csv").exists():
        pd.read_csv(folder / "batch.csv")
    return len(list((folder / ".batch" / "rows").glob("*.json")))


def wait_for_rows(folder: Path, n: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 150
    while rows_so_far(folder) < n:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path, frames: Any) -> None:
    movies = write_movies(tmp_path / "m", frames, 6)
    movies[2].write_bytes(movies[2].read_bytes()[:200_000])
    for movie in movies[4:]:  # they take a while
        tifffile.imwrite(movie, np.concatenate([frames] * 5), photometric="minisblack")
    command = [sys.executable, "-m", "napari_rbcflow.cli", "batch", "m/*.tif", "-o", "b", *OPTIONS]
    command += ["--workers", "1"]
    folder = tmp_path / "b"
    first = subprocess.Popen(command, cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    wait_for_rows(folder, 2, first)
    ours = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    assert psutil.wait_procs(ours, timeout=60)[1] == []  # no process stays behind
    so_far = rows_so_far(folder)
    assert 2 <= so_far < 6
    before = started(folder)
    second = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=200)
    assert second.returncode == 1
    assert is_said("cli.batch-ended", second.stdout, finished=5, movies=6, failed=1)
    assert started(folder).items() >= before.items()
    table = table_of(folder)
    assert list(table["status"]) == ["finished"] * 2 + ["failed"] + ["finished"] * 3
    assert sorted(started(folder)) == ["m0", "m1", "m3", "m4", "m5"]
    assert all(verify(folder / name).code == 0 for name in started(folder))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A scheduler and two workers, each a process of its own, on this computer's loopback."""
    python = [sys.executable, "-m"]
    file = tmp_path / "scheduler.json"
    loopback = ["--host", "127.0.0.1", "--scheduler-file", str(file), "--dashboard-address", "127.0.0.1:0"]
    started = [subprocess.Popen([*python, "distributed.cli.dask_scheduler", "--port", "0", *loopback])]
    try:
        until = time.monotonic() + 90
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < until
            time.sleep(0.05)
        worker = [*python, "distributed.cli.dask_worker", "--nthreads", "1", "--memory-limit", "2GB"]
        started += [
            subprocess.Popen([*worker, "--local-directory", str(tmp_path / name), *loopback])
            for name in ("one", "two")
        ]
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_another_cluster_does_the_same(tmp_path: Path, frames: Any, cluster: str) -> None:
    movies = write_movies(tmp_path / "m", frames, 4)
    movies[1].write_text("no movie")
    analyze_many(tmp_path / "m" / "m*.tif", tmp_path / "b", scheduler=cluster, **GIVEN)
    table = table_of(tmp_path / "b")
    assert list(table["status"]) == ["finished", "failed", "finished", "finished"]
    assert all(verify(tmp_path / "b" / name).code == 0 for name in started(tmp_path / "b"))
    log = [(tmp_path / "b" / name / "run.log").stat().st_size for name in started(tmp_path / "b")]
    assert len(log) == 3


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An object store on this computer."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("lab")
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


def test_movies_and_results_in_an_object_store(tmp_path: Path, frames: Any, store: Any, rbcflow: Any) -> None:
    movies = write_movies(tmp_path, frames, 2)
    store.put(str(movies[0]), "lab/in/m0.tif")
    folder = tmp_path / "set"  # a movie that is a folder
    folder.mkdir()
    for k, frame in enumerate(frames[:40]):
        tifffile.imwrite(folder / f"{k:03}.tif", frame, photometric="minisblack")
    store.put(str(folder), "lab/in/set", recursive=True)
    store.pipe_file("lab/in/bad.tif", b"no movie")
    arguments = ["batch", "s3://lab/in/*.tif", "s3://lab/in/set", "-o", "s3://lab/out", *OPTIONS]
    code, _, err = rbcflow(*arguments)
    assert code == 1, err
    with store.open("lab/out/batch.csv") as file:
        table = pd.read_csv(file).set_index("movie")
    assert table["status"].to_dict() == {
        "s3://lab/in/bad.tif": "failed",
        "s3://lab/in/m0.tif": "finished",
        "s3://lab/in/set": "finished",
    }
    assert table["session"]["s3://lab/in/set"] == "s3://lab/out/set"
    for name in ("m0", "set"):
        store.get(f"lab/out/{name}", str(tmp_path / "back" / name), recursive=True)
        assert verify(tmp_path / "back" / name).code == 0
    assert open_session(tmp_path / "back" / "m0").run["parameters"]["source_details"]["file"] == (
        "s3://lab/in/m0.tif"
    )
    # Again: nothing but the bad one, also where the movies are taken from a disk into the store.
    store.rm("lab/in/bad.tif")
    assert rbcflow("batch", "s3://lab/in/m0.tif", "-o", "s3://lab/out", *OPTIONS)[0] == 0
    code, _, err = rbcflow("batch", movies[0], "-o", "s3://lab/out", *OPTIONS)
    assert code == 0
    assert is_said("pipeline.batch-same", err, movie="s3://lab/in/m0.tif")
    assert rbcflow("batch", "s3://lab/nothing/*.tif", "-o", "s3://lab/other")[0] == 2
    assert rbcflow("batch", movies[0], "-o", "s3://lab/in")[0] == 2
