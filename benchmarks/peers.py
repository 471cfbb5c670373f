"""Ours, and what else one can install, on the same movies: cells tracked whole against CPU time a frame.

    pip install napari-rbcflow[peers]
    pip install --no-deps norfair filterpy trackers supervision pyDeprecate defusedxml
    OMP_NUM_THREADS=1 python benchmarks/peers.py MOVIE.tif ... --score score_tracks.py [--json peers.json]
    OMP_NUM_THREADS=1 python benchmarks/peers.py --tune MOVIE.tif ... --score score_tracks.py
    OMP_NUM_THREADS=1 python benchmarks/peers.py BG.tif --tuned-on LJ.tif --only our --score SCORE

norfair and trackers (OC-SORT) come without their dependencies: norfair asks for numpy below 2, and trackers
for a second OpenCV. Who is not installed is left out.

MOVIE.tif comes from compose_movie.py, with MOVIE.truth.csv beside it. Everybody gets the same background,
the median of 100 frames, made beforehand and not timed. CPU time is that of the whole process
(`time.process_time`), each in turn in this one run, from a frame in memory to its place in a track; ours
cuts and keeps the crops in that time too, the others do not. trackpy and dcnum find for themselves, and are
linked by trackpy; the others link what our detector finds, so that only linking is compared. All link with
the mean flow subtracted. Their settings are the best of those that `--tune` tries, on average over some
movies; with `--tuned-on` they are looked for first, on movies of another patient.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_rbcflow.tracking.background import MovieBackground
from napari_rbcflow.tracking.detection import Detector
from napari_rbcflow.tracking.settings import TrackingSettings
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
class Ours:
    """Our detector; `least` is the energy that a cell must have, in multiples of the noise's."""

    least: float = 0.0


@dataclass(frozen=True)
class Norfair:
    """Settings of `norfair.Tracker`: the distance is Euclid's, y weighing more than x."""

    distance: float = 40.0
    weight_y: float = 4.0
    hits: int = 4
    noise: float = 4.0
    least_frames: int = 3


@dataclass(frozen=True)
class OcSort:
    """Settings of OC-SORT (`trackers`), for which each cell is a box of this size."""

    width: float = 60.0
    height: float = 16.0
    least_iou: float = 0.1
    lost_frames: int = 4
    direction: float = 0.0
    least_frames: int = 3


Finding = Trackpy | Dcnum | Ours
AnyLinking = Linking | Norfair | OcSort


@dataclass(frozen=True)
class Peer:
    """One way to find and link."""

    name: str
    finding: Finding
    linking: AnyLinking
    needs: str


PEERS = (
    Peer("trackpy", Trackpy(), Linking(), "trackpy"),
    Peer("dcnum + trackpy's linker", Dcnum(), Linking(range_y=6.0, range_x=120.0), "dcnum"),
    Peer("our detections + trackpy's linker", Ours(), Linking(), "trackpy"),
    Peer("our detections + norfair", Ours(), Norfair(), "norfair"),
    Peer("our detections + OC-SORT", Ours(), OcSort(), "trackers"),
)


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


def our_finder() -> Callable[[Film, Film], Detections]:
    """Return what finds cells as our tracker does."""
    made: list[Detector] = []  # it needs the frame's size, and smooths the noise from frame to frame

    def find(image: Film, background: Film) -> Detections:
        if not made:
            settings = TrackingSettings()
            made.append(Detector(*image.shape, pixel_size_um=DEFAULT_PIXEL_SIZE_UM, settings=settings))
        found = made[0].detect(image, background, 1.0)
        if found is None:
            return np.empty((0, 3))
        return np.stack([found.y_px, found.x_px, found.energy], axis=1).astype(np.float64)

    return find


def mean_flow(detections: list[Detections]) -> float:
    """Return the commonest step along x between level detections of successive frames, 3 to 90 px."""
    steps = np.zeros(91)
    for before, after in itertools.pairwise(detections[:60]):
        dy = after[:, None, 0] - before[None, :, 0]
        dx = after[:, None, 1] - before[None, :, 1]
        steps += np.bincount(np.rint(dx[(np.abs(dy) < 1.5) & (dx > 3) & (dx < 90)]).astype(int), minlength=91)
    return float(np.argmax(np.convolve(steps, np.ones(7), "same")))


def link(detections: list[Detections], settings: AnyLinking) -> list[Row]:
    """Link in coordinates that move with the mean flow."""
    flow = mean_flow(detections)
    moving = [s[:, :2] - np.array([0.0, flow * t]) for t, s in enumerate(detections)]
    linkers: dict[type, Callable[..., Iterator[tuple[int, int, int]]]] = {
        Linking: _by_trackpy,
        Norfair: _by_norfair,
        OcSort: _by_oc_sort,
    }
    rows = [
        (t, track, float(detections[t][which, 1]), float(detections[t][which, 0]))
        for t, track, which in linkers[type(settings)](moving, settings)
    ]
    length = Counter(k for _, k, _, _ in rows)
    return [row for row in rows if length[row[1]] >= settings.least_frames]


def _by_trackpy(moving: list[Detections], settings: Linking) -> Iterator[tuple[int, int, int]]:
    """Yield frame, track and which of its detections."""
    import trackpy

    linked = trackpy.link_iter(
        iter(moving),
        search_range=(settings.range_y, settings.range_x),
        memory=settings.memory,
        adaptive_stop=1.0,
        adaptive_step=0.9,
    )
    for t, ids in linked:
        yield from ((t, int(track), which) for which, track in enumerate(ids))


def _by_norfair(moving: list[Detections], settings: Norfair) -> Iterator[tuple[int, int, int]]:
    """Yield the same; a track from its first detection on, which norfair keeps to itself for a while."""
    import norfair

    tracker = norfair.Tracker(
        "euclidean",
        settings.distance,
        hit_counter_max=settings.hits,
        initialization_delay=0,
        past_detections_length=0,
        filter_factory=norfair.filter.OptimizedKalmanFilterFactory(R=settings.noise),
    )
    weights = np.array([settings.weight_y, 1.0])
    for t, places in enumerate(moving):
        weighted = places * weights
        tracker.update([norfair.Detection(at[None], data=(t, k)) for k, at in enumerate(weighted)])
        for track in tracker.tracked_objects:
            if track.last_detection.data[0] == t:
                yield t, track.initializing_id, track.last_detection.data[1]


def _by_oc_sort(moving: list[Detections], settings: OcSort) -> Iterator[tuple[int, int, int]]:
    """Yield the same."""
    import supervision
    from trackers.core.ocsort.tracker import OCSORTTracker

    tracker = OCSORTTracker(
        lost_track_buffer=settings.lost_frames,
        minimum_consecutive_frames=1,
        minimum_iou_threshold=settings.least_iou,
        direction_consistency_weight=settings.direction,
    )
    half = np.array([settings.width, settings.height]) / 2
    for t, places in enumerate(moving):
        at = places[:, ::-1]
        found = supervision.Detections(
            xyxy=np.concatenate([at - half, at + half], axis=1), data={"which": np.arange(len(at))}
        )
        linked = tracker.update(found)
        for track, which in zip(linked.tracker_id, linked.data.get("which", ()), strict=True):
            if track >= 0:
                yield t, int(track), int(which)


def finder(peer: Peer) -> Callable[[Film, Film], Detections]:
    """Return what finds cells."""
    if isinstance(peer.finding, Ours):
        return our_finder()
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


def compare(
    path: Path, score: Callable[[list[Row], Path], dict[str, float]], peers: Sequence[Peer]
) -> list[dict[str, Any]]:
    """Run ours and the peers on one movie."""
    film = tifffile.imread(path)
    ours = MovieBackground(film[np.linspace(0, len(film) - 1, min(len(film), 100)).astype(int)])
    out: list[dict[str, Any]] = []
    for name, run in (
        ("napari-rbcflow", lambda: by_ours(film, ours)),
        *((peer.name, lambda peer=peer: by_peer(film, ours.image, peer)) for peer in peers),
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


def findings(peer: Peer) -> Iterator[tuple[Finding, list[float]]]:
    """Yield what `--tune` tries of finding, each with the least masses, areas or energies."""
    if isinstance(peer.finding, Trackpy):
        for blur, diameter in itertools.product((1.0, 2.0, 3.0), (21, 27, 33, 39)):
            yield Trackpy(blur, diameter, 7.0, 0.0), [50.0, 100.0, 200.0, 300.0]
    elif isinstance(peer.finding, Dcnum):
        for blur, thresh, disk in itertools.product((1.0, 2.0, 3.0), (-4.0, -5.0, -6.0, -7.0), (0, 1, 2)):
            yield Dcnum(blur, thresh, disk, 0.0), [0.0, 20.0, 40.0, 80.0]
    else:
        yield Ours(), [0.0, 2.0, 3.0, 4.0]


def linkings(peer: Peer) -> list[AnyLinking]:
    """Return what `--tune` tries of linking."""
    if isinstance(peer.linking, Norfair):
        some = itertools.product((20.0, 30.0, 45.0), (2.0, 4.0, 8.0), (3, 5), (1.0, 4.0))
        return [Norfair(*one) for one in some]
    if isinstance(peer.linking, OcSort):
        boxes = itertools.product((40.0, 70.0, 100.0), (10.0, 16.0, 24.0), (0.05, 0.2), (3, 6))
        return [OcSort(*one) for one in boxes]
    ranges = (20.0, 40.0, 60.0, 80.0, 120.0, 160.0)
    return [Linking(*one) for one in itertools.product((4.0, 6.0), ranges, (3, 5), (3,))]


def tune(
    paths: Sequence[Path], score: Callable[[list[Row], Path], dict[str, float]], n: int, peer: Peer
) -> list[tuple[float, Peer]]:
    """Return the settings of a peer, best first, by the share of cells whole in `n` frames of each movie."""
    with tempfile.TemporaryDirectory() as folder:
        films = []
        for path in paths:
            inside = Path(folder) / path.stem
            inside.mkdir()
            films.append(middle(path, n, inside))
        grounds = [MovieBackground(film).image for film, _ in films]

        def whole(seen: list[list[Detections]], linking: AnyLinking) -> float:
            shares = [
                score(link(one, linking), truth)["whole"] for one, (_, truth) in zip(seen, films, strict=True)
            ]
            return float(np.mean(shares))

        tried: list[tuple[float, Peer]] = []
        best: list[list[Detections]] = []
        for finding, leasts in findings(peer):
            seen = []
            for (film, _), ground in zip(films, grounds, strict=True):
                find = finder(replace(peer, finding=finding))
                seen.append([find(image, ground) for image in film])
            for least in leasts:
                kept = [[s[s[:, 2] >= least] for s in one] for one in seen]
                if not all(40 < np.mean([len(s) for s in one]) < 400 for one in kept):
                    continue
                share = whole(kept, peer.linking)
                if not tried or share > max(w for w, _ in tried):
                    best = kept
                tried.append((share, replace(peer, finding=replace(finding, least=least))))
        tried.sort(key=lambda t: -t[0])
        found = tried[0][1]
        tried += [(whole(best, linking), replace(found, linking=linking)) for linking in linkings(peer)]
        return sorted(tried, key=lambda t: -t[0])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("movies", nargs="+", type=Path)
    parser.add_argument("--score", type=Path, required=True, help="tools/score_tracks.py")
    parser.add_argument("--tune", action="store_true", help="look for the peers' best settings instead")
    parser.add_argument("--tune-frames", type=int, default=50)
    parser.add_argument(
        "--tuned-on", nargs="+", type=Path, help="movies to tune on before `movies` are shown"
    )
    parser.add_argument("--only", nargs="+", help="peers whose names hold one of these")
    parser.add_argument("--json", type=Path, help="write the figures here, for pictures.py to draw")
    given = parser.parse_args()
    if importlib.util.find_spec("trackpy"):
        import trackpy

        trackpy.quiet()
    score = scorer(given.score)
    peers = [
        peer
        for peer in PEERS
        if importlib.util.find_spec(peer.needs) and any(part in peer.name for part in given.only or [""])
    ]
    if given.tune or given.tuned_on:
        tried = [
            tune(given.movies if given.tune else given.tuned_on, score, given.tune_frames, peer)
            for peer in peers
        ]
        for whole, chosen in (one for some in tried for one in some[: 8 if given.tune else 1]):
            print(f"{whole:.3f} {chosen}", flush=True)
        if given.tune:
            return
        peers = [some[0][1] for some in tried]
    figures = [line for movie in given.movies for line in compare(movie, score, peers)]
    print(table(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
