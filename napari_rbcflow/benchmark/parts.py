"""Each part for itself: tracking and its steps, the ring, judging."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.benchmark import machine
from napari_rbcflow.benchmark.child import Stopwatch, stepwise
from napari_rbcflow.benchmark.report import Figure, Floor
from napari_rbcflow.classification import TwoStage
from napari_rbcflow.ring import FrameRing
from napari_rbcflow.sentences import say
from napari_rbcflow.tracking import (
    CentroidFinder,
    Cropper,
    Detector,
    Light,
    Linker,
    MovieBackground,
    SlidingBackground,
    Tracker,
    TrackStore,
)
from napari_rbcflow.types import DEFAULT_FPS, Frame, Track

Film = NDArray[np.uint8]

STEPS = {
    "light": (Light, "gain"),
    "detection": (Detector, "detect"),
    "linking": (Linker, "step"),
    "centring": (CentroidFinder, "centroids"),
    "ended": (TrackStore, "end"),
    "background": (SlidingBackground, "add"),
    "crops": (Cropper, "cut"),
    "store": (TrackStore, "write"),
}
NOT_DETECTION_OR_LINKING = ("background", "crops", "store")
"""All other steps of the tracker count as detection and linking."""
RING_FRAMES = 60
TRACKS_PER_S = 200.0  # tracks that end in a second, at most (inferred from Darrin et al. 2023)
RELIABLE_SHARE = 0.034  # of the tracks that reach stage 2 in the paper's blood
AIM_TRACKS_PER_S = {"cpu": 300.0, "cuda": 20_000.0}
RING_AIM_MS = 4.0


def tracker_of(film: Film, pixel_size_um: float) -> Tracker:
    """Return a tracker as a live run has it."""
    _, height, width = film.shape
    background = SlidingBackground(height, width, fps=DEFAULT_FPS)
    return Tracker(height, width, fps=DEFAULT_FPS, pixel_size_um=pixel_size_um, background=background)


@dataclass(frozen=True, slots=True)
class Tracked:
    """What tracking a film cost, in milliseconds of CPU per frame, and the mean cells in tracks per frame."""

    total_ms: float
    steps_ms: dict[str, float]
    tracks: list[Track]
    cells: float

    @property
    def detection_and_linking_ms(self) -> float:
        return self.total_ms - sum(self.steps_ms[name] for name in NOT_DETECTION_OR_LINKING)


def track(film: Film, pixel_size_um: float, frames: int) -> Tracked:
    """Track `frames` frames of a film in a loop; its first time through does not count.

    Each time the film begins again, every cell is lost and another found: that costs time too.
    """
    tracker = tracker_of(film, pixel_size_um)
    tracks: list[Track] = []
    with stepwise(STEPS) as spent:
        for t in range(len(film) + frames):
            if t == len(film):
                tracks.clear()
                spent.update(dict.fromkeys(spent, 0.0))
                first, watch = tracker.processed, Stopwatch()
            tracks += tracker.process(Frame(t, t / DEFAULT_FPS, film[t % len(film)]))
        worked = tracker.processed - first
        # The steps' clock is not the CPU's everywhere: they share out what the CPU's says.
        scale = 1e3 * watch.cpu_s / watch.steps_s / worked
        total_ms = watch.steps_s * scale
        steps_ms = {name: seconds * scale for name, seconds in spent.items()}
    return Tracked(total_ms, steps_ms, tracks, sum(map(len, tracks)) / worked)


def tracking_figures(
    film: Film, tracked: Tracked, pixel_size_um: float, where: str, aim_ms: float
) -> list[Figure]:
    """Return the lines of one film."""
    _, height, width = film.shape
    cells, steps_ms = tracked.cells, tracked.steps_ms
    detection, linking = machine.detection(height, width), machine.linking(cells)
    background = machine.sliding_background(height, width)
    crops, refining = machine.crops_and_store(pixel_size_um, cells), machine.refining(pixel_size_um, cells)
    return [
        Figure(
            f"detection and linking, {where}",
            tracked.detection_and_linking_ms,
            aim_ms=aim_ms,
            floor=detection + linking + refining,
            note=say("benchmark.note-cells", cells=cells),
        ),
        Figure(f"... detection, {where}", steps_ms["light"] + steps_ms["detection"], floor=detection),
        Figure(f"... linking, {where}", steps_ms["linking"], floor=linking),
        Figure(f"... refining positions, {where}", steps_ms["centring"] + steps_ms["ended"], floor=refining),
        Figure(f"background, {where}", steps_ms["background"], floor=background),
        Figure(
            f"crops and store, {where}",
            steps_ms["crops"] + steps_ms["store"],
            floor=crops,
        ),
        Figure(
            f"all of tracking, {where}",
            tracked.total_ms,
            floor=detection + linking + refining + background + crops,
        ),
    ]


def movie_background_s(film: Film) -> float:
    """Return the CPU seconds of the median of 100 frames, needed once per recorded movie."""
    chosen = film[np.linspace(0, len(film) - 1, min(len(film), 100)).astype(int)]
    watch = Stopwatch()
    MovieBackground(chosen)
    return watch.cpu_s


def ring(film: Film, pixel_size_um: float, cells: int, frames: int, folder: Path) -> Figure:
    """Write frames and crops of a film to a ring on the disk."""
    n, height, width = film.shape
    crops = np.random.default_rng(0).integers(100, 140, (cells, 31, 31), np.uint8)
    names, places = np.arange(cells), np.zeros(cells, np.float32)
    kept = FrameRing.create(
        folder / "ring.zarr",
        height=height,
        width=width,
        capacity=min(RING_FRAMES, frames),
        crop_capacity=RING_FRAMES * cells,
        fps=DEFAULT_FPS,
        pixel_size_um=pixel_size_um,
    )
    try:
        watch = Stopwatch()
        for t in range(frames):
            kept.append(Frame(t, t / DEFAULT_FPS, film[t % n]))
            kept.append_crops(t, names, places, places, crops)
        ms, wall_ms = 1e3 * watch.cpu_s / frames, 1e3 * watch.wall_s / frames
    finally:
        kept.close()
    return Figure(
        "the ring of frames and crops, on the disk",
        ms,
        aim_ms=RING_AIM_MS,
        floor=machine.ring(height, width, cells),
        note=say("benchmark.note-clock", ms=wall_ms),
    )


def judging(two_stage: TwoStage, tracks: Sequence[Track], n: int) -> tuple[list[Figure], Floor | None]:
    """Judge `n` tracks that tracking found: as in the paper's blood, and all of them in both stages.

    CPU time of the judging thread on a CPU; time by the clock on a GPU, where the thread only waits. Beside
    the figures, the floor of one track of the paper's blood; None on a GPU, whose best is not measured here.
    """
    long = [t.crops for t in tracks if not t.too_short]
    crops = [long[k % len(long)] for k in range(n)]
    gpu = two_stage.device != "cpu"
    clock = time.perf_counter if gpu else time.thread_time
    stage_s = []
    for judge in (two_stage.reliable, two_stage.flipping):
        start = clock()
        judge(crops)
        stage_s.append((clock() - start) / n)
    floor = [machine.judging(two_stage, crops, stage) for stage in (1, 2)]
    a_frame = TRACKS_PER_S / DEFAULT_FPS
    aim_ms = 1e3 * a_frame / AIM_TRACKS_PER_S["cuda" if gpu else "cpu"]
    frames = float(np.mean([len(c) for c in crops]))
    figures, least = [], []
    for name, share in ((f"{100 * RELIABLE_SHARE:.1f} % reliable", RELIABLE_SHARE), ("all reliable", 1.0)):
        track_s = stage_s[0] + share * stage_s[1]
        least.append(None if gpu else floor[0] + floor[1].times(share))
        figures.append(
            Figure(
                f"judging {TRACKS_PER_S:.0f} tracks a second, {name}",
                1e3 * a_frame * track_s,
                clock="wall" if gpu else "cpu",
                aim_ms=aim_ms,
                floor=least[-1] and least[-1].times(a_frame),
                note=say("benchmark.note-judged", tracks=1 / track_s, frames=frames),
            )
        )
    return figures, least[0]
