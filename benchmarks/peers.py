"""Ours, trackpy and dcnum's segmenter on the same movies: cells tracked whole against CPU time a frame.

    pip install napari-rbcflow[peers]
    OMP_NUM_THREADS=1 python benchmarks/peers.py MOVIE.tif ... --score score_tracks.py [--json peers.json]
    OMP_NUM_THREADS=1 python benchmarks/peers.py --tune MOVIE.tif --score score_tracks.py

MOVIE.tif comes from compose_movie.py, with MOVIE.truth.csv beside it. Everybody gets the same background,
the median of 100 frames, made beforehand and not timed. CPU time is that of the whole process
(`time.process_time`), each in turn in this one run, from a frame in memory to its place in a track; ours
cuts and keeps the crops in that time too, the others do not. The peers' linker is trackpy's, with the mean
flow subtracted; their settings are the best of those that `--tune` tries on a movie of another seed.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_rbcflow.tracking.background import MovieBackground
from napari_rbcflow.tracking.tracker import Tracker, warm_up
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame

FRAME_MS = 1e3 / DEFAULT_FPS
Film = NDArray[np.uint8]
Row = tuple[int, int, float, float]
Detections = NDArray[np.float64]
"""Shape (n, 3): y, x, and what a cell must have enough of (trackpy's mass, a label's area)."""


@dataclass(frozen=True)
class Trackpy:
    """Settings of `trackpy.locate`, on the blurred absolute difference from the background."""

    blur_px: float = 2.0
    diameter: int = 27
    separation: float = 7.0
    least: float = 50.0


@dataclass(frozen=True)
class Dcnum:
    """Settings of dcnum's threshold segmenter, on minus the blurred absolute difference."""

    blur_px: float = 2.0
    thresh: float = -6.0
    closing_disk: int = 2
    least: float = 80.0


@dataclass(frozen=True)
class Linking:
    """Settings of `trackpy.link_iter`: how far from the mean flow a cell may be found again.

    The range is the adaptive search's first: where too many cells compete, trackpy makes it smaller.
    """

    range_y: float = 4.0
    range_x: float = 80.0
    memory: int = 3
    least_frames: int = 3


@dataclass(frozen=True)
class Peer:
    """One way to find and link."""

    name: str
    finding: Trackpy | Dcnum
    linking: Linking


TRACKPY = Peer("trackpy", Trackpy(), Linking())
DCNUM = Peer("dcnum + trackpy's linker", Dcnum(), Linking(range_y=6.0, range_x=120.0))


def difference(image: Film, background: Film, blur_px: float) -> NDArray[np.float32]:
    """Absolute difference from the background, blurred: cells out of focus are of either sign."""
    plain = cv2.absdiff(image, background).astype(np.float32)
    return cv2.GaussianBlur(plain, (0, 0), blur_px) if blur_px else plain  # type: ignore[return-value]


def trackpy_finder(settings: Trackpy) -> Callable[[Film, Film], Detections]:
    """Return what finds cells by trackpy."""
    import trackpy

    def find(image: Film, background: Film) -> Detections:
        found = trackpy.locate(
            difference(image, background, settings.blur_px),
            settings.diameter,
            minmass=settings.least,
            separation=settings.separation,
            characterize=False,
            engine="numba",
        )
        detections: Detections = found[["y", "x", "mass"]].to_numpy(np.float64)
        return detections

    return find


def dcnum_finder(settings: Dcnum) -> Callable[[Film, Film], Detections]:
    """Return what finds cells by dcnum; centres are centroids of its labels."""
    from dcnum.segm.segm_thresh import SegmentThresh

    segmenter = SegmentThresh(
        thresh=settings.thresh, kwargs_mask={"closing_disk": settings.closing_disk, "clear_border": False}
    )

    def find(image: Film, background: Film) -> Detections:
        corrected = -difference(image, background, settings.blur_px)
        labels = segmenter.segment_single_with_labeling(corrected)
        y, x = np.nonzero(labels)
        label = labels[y, x]
        area = np.bincount(label)
        keep = np.flatnonzero(area >= max(1.0, settings.least))
        sums = [np.bincount(label, y)[keep], np.bincount(label, x)[keep]]
        return np.stack([sums[0] / area[keep], sums[1] / area[keep], area[keep]], axis=1)

    return find


def mean_flow(detections: list[Detections]) -> float:
    """Return the commonest step along x between level detections of successive frames, 3 to 90 px."""
    steps = np.zeros(91)
    for before, after in itertools.pairwise(detections[:60]):
        dy = after[:, None, 0] - before[None, :, 0]
        dx = after[:, None, 1] - before[None, :, 1]
        steps += np.bincount(np.rint(dx[(np.abs(dy) < 1.5) & (dx > 3) & (dx < 90)]).astype(int), minlength=91)
    return float(np.argmax(np.convolve(steps, np.ones(7), "same")))


def link(detections: list[Detections], settings: Linking) -> list[Row]:
    """Link by trackpy, in coordinates that move with the mean flow."""
    import trackpy

    flow = mean_flow(detections)
    moving = (s[:, :2] - np.array([0.0, flow * t]) for t, s in enumerate(detections))
    linked = trackpy.link_iter(
        moving,
        search_range=(settings.range_y, settings.range_x),
        memory=settings.memory,
        adaptive_stop=1.0,
        adaptive_step=0.9,
    )
    rows = [
        (t, int(k), float(x), float(y))
        for t, ids in linked
        for k, (y, x, _) in zip(ids, detections[t], strict=True)
    ]
    length = Counter(k for _, k, _, _ in rows)
    return [row for row in rows if length[row[1]] >= settings.least_frames]


def finder(peer: Peer) -> Callable[[Film, Film], Detections]:
    """Return what finds cells."""
    return trackpy_finder(peer.finding) if isinstance(peer.finding, Trackpy) else dcnum_finder(peer.finding)


def by_peer(film: Film, background: Film, peer: Peer) -> tuple[list[Row], float]:
    """Find and link; rows, and CPU seconds."""
    find = finder(peer)
    link([find(image, background) for image in film[60:75]], peer.linking)  # compiled by now
    start = time.process_time()
    rows = link([find(image, background) for image in film], peer.linking)
    return rows, time.process_time() - start


def by_ours(film: Film, background: MovieBackground) -> tuple[list[Row], float]:
    """Track; rows, and CPU seconds."""
    warm_up()
    tracker = Tracker(
        *film.shape[1:], fps=DEFAULT_FPS, pixel_size_um=DEFAULT_PIXEL_SIZE_UM, background=background
    )
    start = time.process_time()
    tracks = [k for t, image in enumerate(film) for k in tracker.process(Frame(t, t / DEFAULT_FPS, image))]
    tracks += tracker.finish("source-ended")
    spent = time.process_time() - start
    rows = [
        (int(f), k.cell, float(x), float(y))
        for k in tracks
        for f, x, y in zip(k.frames, k.x_px, k.y_px, strict=True)
    ]
    return rows, spent


def scorer(tool: Path) -> Callable[[list[Row], Path], dict[str, float]]:
    """Return the shared tool's `score`."""
    spec = importlib.util.spec_from_file_location("score_tracks", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda rows, truth: dict(module.score(rows, truth)[0])


def compare(path: Path, score: Callable[[list[Row], Path], dict[str, float]]) -> list[dict[str, Any]]:
    """Run everybody on one movie."""
    film = tifffile.imread(path)
    ours = MovieBackground(film[np.linspace(0, len(film) - 1, min(len(film), 100)).astype(int)])
    out: list[dict[str, Any]] = []
    for name, run in (
        ("napari-rbcflow", lambda: by_ours(film, ours)),
        *((peer.name, lambda peer=peer: by_peer(film, ours.image, peer)) for peer in (TRACKPY, DCNUM)),
    ):
        rows, spent = run()
        ms = 1e3 * spent / len(film)
        out.append(
            {
                "movie": path.stem,
                "who": name,
                **score(rows, path.with_suffix(".truth.csv")),
                "cpu_ms_per_frame": ms,
                "ratio_to_real_time": FRAME_MS / ms,
                "times_ours": ms / (out[0]["cpu_ms_per_frame"] if out else ms),
            }
        )
    return out


def table(figures: list[dict[str, Any]]) -> str:
    """Return Markdown."""
    lines = [
        "| movie | who | found | whole | changes | spurious | CPU ms a frame | x ours | x real time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for f in figures:
        lines.append(
            f"| {f['movie']} | {f['who']} | {f['found']:.3f} | {100 * f['whole']:.1f} % | {f['switches']} | "
            f"{f['spurious']:.3f} | {f['cpu_ms_per_frame']:.1f} | {f['times_ours']:.1f} | "
            f"{f['ratio_to_real_time']:.2f} |"
        )
    return "\n".join(lines)


def middle(path: Path, n: int, folder: Path) -> tuple[Film, Path]:
    """Return `n` frames from a third of the way on, where the field is full, and the truth of those."""
    with tifffile.TiffFile(path) as tiff:
        first = len(tiff.pages) // 3
    truth = folder / "middle.truth.csv"
    with path.with_suffix(".truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with truth.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            t0 = int(row["t0"]) - first
            last = min(t0 + int(row["frames"]), n)
            x0 = float(row["x0"]) - float(row["v"]) * min(t0, 0)
            t0 = max(t0, 0)
            if last - t0 >= 5:
                writer.writerow({**row, "t0": t0, "frames": last - t0, "x0": x0})
    return tifffile.imread(path, key=range(first, first + n)), truth


def findings(peer: Peer) -> Iterator[tuple[Trackpy | Dcnum, list[float]]]:
    """Yield what `--tune` tries of finding, each with the least masses or areas."""
    if isinstance(peer.finding, Trackpy):
        for blur, diameter in itertools.product((1.0, 2.0, 3.0), (21, 27, 33, 39)):
            yield Trackpy(blur, diameter, 7.0, 0.0), [50.0, 100.0, 200.0, 300.0]
    else:
        for blur, thresh, disk in itertools.product((1.0, 2.0, 3.0), (-4.0, -5.0, -6.0, -7.0), (0, 1, 2)):
            yield Dcnum(blur, thresh, disk, 0.0), [0.0, 20.0, 40.0, 80.0]


LINKINGS = [
    Linking(*some)
    for some in itertools.product((4.0, 6.0), (20.0, 40.0, 60.0, 80.0, 120.0, 160.0), (3, 5), (3,))
]


def tune(path: Path, score: Callable[[list[Row], Path], dict[str, float]], n: int) -> None:
    """Print which settings of each peer track the most cells whole in `n` frames of a movie."""
    with tempfile.TemporaryDirectory() as folder:
        film, truth = middle(path, n, Path(folder))
        background = MovieBackground(film).image
        for peer in (TRACKPY, DCNUM):
            tried: list[tuple[float, Peer]] = []
            best: list[Detections] = []
            for finding, leasts in findings(peer):
                find = finder(replace(peer, finding=finding))
                seen = [find(image, background) for image in film]
                for least in leasts:
                    kept = [s[s[:, 2] >= least] for s in seen]
                    if not 40 < np.mean([len(s) for s in kept]) < 400:
                        continue
                    whole = score(link(kept, peer.linking), truth)["whole"]
                    if not tried or whole > max(w for w, _ in tried):
                        best = kept
                    tried.append((whole, replace(peer, finding=replace(finding, least=least))))
            tried.sort(key=lambda t: -t[0])
            tried += [
                (score(link(best, linking), truth)["whole"], replace(tried[0][1], linking=linking))
                for linking in LINKINGS
            ]
            for whole, chosen in sorted(tried, key=lambda t: -t[0])[:8]:
                print(f"{whole:.3f} {chosen}", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("movies", nargs="+", type=Path)
    parser.add_argument("--score", type=Path, required=True, help="tools/score_tracks.py")
    parser.add_argument("--tune", action="store_true", help="look for the peers' best settings instead")
    parser.add_argument("--tune-frames", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the figures here, for pictures.py to draw")
    given = parser.parse_args()
    import trackpy

    trackpy.quiet()
    score = scorer(given.score)
    if given.tune:
        for movie in given.movies:
            tune(movie, score, given.tune_frames)
        return
    figures = [line for movie in given.movies for line in compare(movie, score)]
    print(table(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
