"""What an hour leaves behind: keeping tracks, closing, reading and checking the session, and the ring.

    OMP_NUM_THREADS=1 python benchmarks/hours.py [--minutes 10] [--folder DIR] [--flat] [--no-ring]

Keeps as many tracks as a run of so many minutes ends (150 a second, of 40 frames in the mean), as fast as the
disk takes them, through the same calls as a run; closes the session, opens it, checks it. Then 216,000 small
frames (an hour at 60 a second) go through the ring, a reader beside it. Ten minutes take under three and some
2 GB; an hour takes ten and 12 GB, with `--flat` (crops of one grey, which pack to nothing) some 2.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_rbcflow.estimate import StopRules
from napari_rbcflow.estimate.tally import Tally
from napari_rbcflow.pipeline.run import RECENT_LABELS
from napari_rbcflow.pipeline.status import RecentCells
from napari_rbcflow.quality.monitor import RunQuality
from napari_rbcflow.ring import FrameGone, FrameRing, open_ring
from napari_rbcflow.session import FractionFigure, RunSummary, SessionWriter, open_session, verify
from napari_rbcflow.session.counting import corrected_figure
from napari_rbcflow.session.report import write_report
from napari_rbcflow.types import Frame, Judgement, Label, SourceInfo, Track

FPS, HEIGHT, WIDTH, PIXEL_UM = 60.0, 1096, 1376, 0.605
TRACKS_PER_S = 150.0
MEDIAN_FRAMES, TOO_SHORT, RELIABLE = 33.0, 0.05, 0.034
BATCH = 32
RING_FRAMES, AN_HOUR = 300, 216_000
SMALL = 120, 160
MODELS = {"stage1": {"name": "none", "hash": "0"}, "stage2": {"name": "none", "hash": "0"}}
Pair = tuple[Track, Judgement]


class Cells:
    """Tracks as they end, their numbers those of first detection.

    Parameters
    ----------
    flat : bool
        Crops of one grey.
    """

    def __init__(self, flat: bool) -> None:
        self._rng = np.random.default_rng(7)
        noise = np.full((4096, 31, 31), 121, np.uint8)
        if not flat:
            y, x = np.mgrid[-15:16, -15:16]
            rim = 12 * np.exp(-((np.hypot(y, x) - 5.5) ** 2) / 3) - 13 * np.exp(-(y**2 + x**2) / 9)
            noise = (121 - rim + self._rng.normal(0, 1.8, noise.shape)).round().clip(0, 255).astype(np.uint8)
        self._crops = noise

    def batches(self, minutes: float) -> Iterator[tuple[float, list[Track]]]:
        """Yield tracks by batches, each with the time (s) at which the last of them ended."""
        rng, waiting, cell = self._rng, [], 0
        for second in range(round(60 * minutes)):
            begin = np.sort(rng.uniform(second * FPS, (second + 1) * FPS, rng.poisson(TRACKS_PER_S))).astype(
                int
            )
            lengths = np.exp(rng.normal(np.log(MEDIAN_FRAMES), 0.45, len(begin))).astype(int) + 6
            lengths[rng.random(len(begin)) < TOO_SHORT] = 4
            for first, length in zip(begin.tolist(), lengths.tolist(), strict=True):
                cell += 1
                waiting.append((first + length, cell, first, min(length, 2000)))
            waiting.sort()
            ended = sum(1 for end, *_ in waiting if end <= (second + 1) * FPS)
            for k in range(0, ended, BATCH):
                these = waiting[k : min(ended, k + BATCH)]
                yield these[-1][0] / FPS, [self._track(*one) for one in these]
            waiting = waiting[ended:]

    def _track(self, end: int, cell: int, first: int, length: int) -> Track:
        rng = self._rng
        at = int(rng.integers(len(self._crops) - length))
        x = np.linspace(rng.uniform(0, 60), rng.uniform(900, 1370), length, dtype=np.float32)
        return Track(
            cell=cell,
            frames=np.arange(first, first + length),
            y_px=np.full(length, rng.uniform(0, HEIGHT), np.float32)
            + rng.normal(0, 0.2, length).astype("f4"),
            x_px=x,
            seen=rng.random(length) > 0.01,
            intruded=rng.random(length) > 0.9,
            edge=x < 15,
            crops=self._crops[at : at + length],
            reason="left-field",
        )

    def judged(self, track: Track) -> Judgement:
        """Return what the networks might say."""
        if track.too_short:
            return Judgement(track.cell, Label.TOO_SHORT, None, None, "too-short")
        u, v = self._rng.random(2)
        if u > RELIABLE:
            return Judgement(track.cell, Label.UNRELIABLE, round(0.49 * v, 4), None, "stage-1")
        if v < 0.86:
            return Judgement(track.cell, Label.TANK_TREADING, 0.9, round(0.5 + v / 2, 4), "stage-2")
        return Judgement(track.cell, Label.FLIPPING, 0.9, round(0.49 * u / RELIABLE, 4), "stage-2")


def resident_mb() -> float:
    """Return the memory that this process holds now."""
    return float(psutil.Process().memory_info().rss) / 1e6


@contextmanager
def measured(name: str, told: dict[str, Any]) -> Iterator[None]:
    """Print and tell seconds by the clock and of the CPU, and how many MB more were held at most."""
    at_first, done = resident_mb(), threading.Event()
    most = [at_first]

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    told[name] = {"wall_s": wall, "cpu_s": cpu, "more_mb": max(0.0, most[0] - at_first)}
    print(f"{name:44s} {wall:8.2f} s wall {cpu:8.2f} s CPU {most[0] - at_first:8.0f} MB more", flush=True)


def open_files() -> int | None:
    """Return how many files this process has open, where the system tells."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").exists() else None


def size_mb(path: Path) -> float:
    """Return the bytes of a file or all below a folder, as the disk holds them where that can be asked."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return (
        sum(512 * s.st_blocks if hasattr(s, "st_blocks") else s.st_size for s in (p.stat() for p in files))
        / 1e6
    )


class Kept:
    """A run's bookkeeping behind its networks, as `run.stages` does it."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.info = SourceInfo("hours", HEIGHT, WIDTH, FPS, PIXEL_UM, live=True)
        self.rules = StopRules(seconds=60 * minutes)
        self.tally, self.quality, self.recent = Tally(self.rules), RunQuality(self.info), RecentCells()
        self.latencies_ms = array("f")
        self.frames = 0
        self.writer = SessionWriter.create(
            folder,
            source=self.info,
            parameters={"stop_seconds": 60 * minutes, "fixed_n_interval": "wilson"},
            models=MODELS,
            patient="",
            sample="hours",
            ring_frames=4,
        )

    def keep(self, tracks: list[Track], judged: list[Judgement]) -> None:
        settled = self.tally.settle(tracks, judged)
        pairs = list(zip(tracks, settled, strict=True))
        self.writer.keep(pairs)
        self.tally.count(settled)
        self.recent.add(pairs)
        self.quality.add_tracks(pairs)
        self.latencies_ms.extend([100.0] * len(pairs))

    def account(self, *, whole: bool = False) -> RunSummary:
        fraction = FractionFigure.of(self.tally.fraction)
        account = RunSummary.of(
            received=self.frames,
            processed=self.frames,
            dropped={},
            missed={},
            cells=self.tally.cells,
            fraction=fraction,
            fraction_corrected=corrected_figure(MODELS, self.tally.cells, fraction) if whole else None,
            latencies_ms=self.latencies_ms[0 if whole else -RECENT_LABELS :],
            quality=self.quality.figures(),
        )
        self.quality.look(account.as_dict(), self.tally.counted, seconds=self.frames / FPS, open_tracks=115)
        return account

    def close(self) -> None:
        self.writer.close(self.account(whole=True), "finished", "seconds")


def session(folder: Path, minutes: float, flat: bool) -> dict[str, Any]:
    """Keep the tracks of so many minutes, close, and read."""
    told: dict[str, Any] = {"minutes": minutes}
    cells, kept = Cells(flat), Kept(folder, minutes)
    spent_s, beats_ms, memory_mb, n, last_beat = 0.0, [], [], 0, 0.0
    start = time.perf_counter()
    for now_s, tracks in cells.batches(minutes):
        judged = [cells.judged(t) for t in tracks]
        kept.frames = round(now_s * FPS)
        before = time.process_time()
        kept.keep(tracks, judged)
        spent_s += time.process_time() - before
        n += len(tracks)
        if now_s - last_beat >= 1.0:
            last_beat, before = now_s, time.process_time()
            kept.writer.heartbeat(kept.account())
            beats_ms.append(1e3 * (time.process_time() - before))
            memory_mb.append(resident_mb())
    wall_s = time.perf_counter() - start
    quarter = max(1, len(beats_ms) // 4)
    told |= {
        "tracks": n,
        "keep_cpu_ms_a_track": 1e3 * spent_s / n,
        "wall_s_to_keep": wall_s,
        "heartbeat_cpu_ms": [float(np.median(beats_ms[i * quarter : (i + 1) * quarter])) for i in range(4)],
        "memory_mb": [float(np.mean(memory_mb[i * quarter : (i + 1) * quarter])) for i in range(4)],
        "open_files": open_files(),
    }
    print(f"{n} tracks kept in {wall_s:.0f} s, {1e3 * spent_s / n:.3f} ms CPU each")
    print(f"{told['open_files']} files open")
    for name in ("heartbeat_cpu_ms", "memory_mb"):
        print(f"{name}, by quarter:", " ".join(f"{value:.2f}" for value in told[name]))
    with measured("close", told):
        kept.close()
    told["mb"] = {p.name: size_mb(p) for p in sorted(folder.iterdir())}
    print("MB on the disk: " + ", ".join(f"{k} {v:.1f}" for k, v in told["mb"].items()))
    with measured("open_session", told):
        opened = open_session(folder)
    with measured("session.cells", told):
        table = opened.cells
    chosen = table["cell"].to_numpy()[:: max(1, n // 200)].tolist()
    with measured("session.crops, the first", told):
        opened.crops(chosen[0])
    with measured(f"session.crops, {len(chosen)} others", told):
        for cell in chosen:
            opened.crops(cell)
    with measured("session.tracks", told):
        rows = len(opened.tracks)
    print(f"{rows} positions")
    del opened, table
    with measured("report.html, written anew", told):
        write_report(folder)
    with measured("verify", told):
        verdict = verify(folder)
    print("verify:", verdict.code, verdict.findings[:3])
    return told


def ring(folder: Path) -> dict[str, Any]:
    """Write an hour's number of small frames, a reader beside it."""
    height, width = SMALL
    kept = FrameRing.create(
        folder / "ring.zarr", height=height, width=width, capacity=RING_FRAMES, crop_capacity=1024,
        fps=FPS, pixel_size_um=PIXEL_UM,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, SMALL, np.uint8)
    ended, torn, looks = threading.Event(), 0, 0

    def read() -> None:
        nonlocal torn, looks
        reader = open_ring(folder / "ring.zarr")
        while not ended.wait(0.05):
            reader.refresh()
            looks += 1
            if len(reader):
                index = int(reader.indices[-1])
                with suppress(FrameGone):
                    torn += int(reader.frame(index)[0, 0]) != index % 251

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    told: dict[str, Any] = {
        "frames": AN_HOUR,
        "ms_a_frame": [],
        "memory_mb": [],
        "bytes": [],
        "open_files": [],
    }
    per = AN_HOUR // 8
    for part in range(8):
        before = time.thread_time()
        for index in range(part * per, (part + 1) * per):
            image[0, 0] = index % 251
            kept.append(Frame(index, index / FPS, image))
        told["ms_a_frame"].append(1e3 * (time.thread_time() - before) / per)
        told["memory_mb"].append(resident_mb())
        files = [p for p in (folder / "ring.zarr").rglob("*") if p.is_file()]
        told["bytes"].append(sum(p.stat().st_size for p in files))
        told["open_files"].append(open_files())
    ended.set()
    reading.join()
    kept.close()
    reader = open_ring(folder / "ring.zarr")
    told |= {"looks": looks, "torn": torn, "held": [int(reader.indices[0]), int(reader.indices[-1])]}
    told["damage"] = reader.check()
    for name in ("ms_a_frame", "memory_mb", "bytes", "open_files"):
        print(
            f"ring, {name} by eighth:",
            " ".join(f"{v:.4g}" if isinstance(v, float) else f"{v}" for v in told[name]),
        )
    print(f"ring: {looks} looks beside it, {torn} torn, holds {told['held']}, damage {told['damage']}")
    return told


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--flat", action="store_true", help="crops of one grey")
    parser.add_argument("--no-ring", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.folder:
        asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        told: dict[str, Any] = {"session": session(Path(place) / "S", asked.minutes, asked.flat)}
        if not asked.no_ring:
            told["ring"] = ring(Path(place))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
