"""What missing frames do to tracks and labels.

OMP_NUM_THREADS=1 python benchmarks/gaps.py labels [--each 360]
    Simulated cells in focus, watched for 60 and for 35 frames, with a gap at a random place, beside the same
    cells watched for as many frames fewer: what the shipped networks call them.
OMP_NUM_THREADS=1 python benchmarks/gaps.py tracks [--cells-per-frame 200]
    Seven seconds of the simulated chamber with a gap every 40 frames: how many tracks go over it, and
    how many of them follow another cell behind it.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from scipy.spatial import cKDTree

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline.stages import keep_freed_memory
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber, simulate_passages
from napari_rbcflow.simulation.cells import Motion
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Track

EVERY, FIRST, FRAMES = 40, 80, 420
NEAR_PX = 9.0


def said(two_stage: TwoStage, crops: list[np.ndarray]) -> dict[str, int]:
    """Count what the networks say."""
    passed = [
        c for c, p in zip(crops, two_stage.reliable(crops), strict=True) if p >= two_stage.stage1.threshold
    ]
    kinds = [two_stage.kind(float(p)) for p in two_stage.flipping(passed)]
    counts = Counter("undecided" if why == "undecided" else str(label) for label, why in kinds)
    return {**dict(sorted(counts.items())), "unreliable": len(crops) - len(passed)}


def labels(each: int) -> None:
    """Judge cells with gaps of several lengths."""
    two_stage, rng = TwoStage.load("cpu"), np.random.default_rng(0)
    for frames in (60, 35):
        for motion, seed in ((Motion.TUMBLING, 901), (Motion.TANK_TREADING, 902)):
            settings = ChamberSettings(width=2752)
            drawn = simulate_passages(motion, [frames] * each, seed=seed, settings=settings)
            whole = [passage.crops for passage in drawn]
            print(f"{motion}, {frames} frames:", said(two_stage, whole), flush=True)
            for gap in (1, 3, 5, 10, 20):
                at = rng.integers(6, frames - gap - 5, each)
                cut = [np.concatenate([c[:a], c[a + gap :]]) for c, a in zip(whole, at, strict=True)]
                print(f"  gap of {gap}:", said(two_stage, cut), flush=True)
            for fewer in (10, 20):
                print(f"  {fewer} fewer:", said(two_stage, [c[fewer:] for c in whole]), flush=True)


def tracks(cells_per_frame: float) -> None:
    """Track through gaps."""
    settings = ChamberSettings(seconds=FRAMES / 60, seed=31, cells_per_frame=cells_per_frame)
    source = SimulatedChamber(settings, paced=False)
    with source:
        frames = list(source.frames())
        truth = source.truth
    for gap in (1, 3, 5, 7, 10, 11):
        begins = range(FIRST, FRAMES - 20, EVERY)
        lost = {frame for begin in begins for frame in range(begin, begin + gap)}
        background = SlidingBackground(settings.height, settings.width, fps=60)
        tracker = Tracker(
            settings.height,
            settings.width,
            fps=60,
            pixel_size_um=settings.pixel_size_um,
            background=background,
        )
        found = [t for frame in frames if frame.index not in lost for t in tracker.process(frame)]
        found += tracker.finish("source-ended")
        crossed = other = ended = 0
        for begin in begins:
            for track in found:
                first, last = int(track.frames[0]), int(track.frames[-1])
                if first < begin - 3 and last > begin + gap + 3:
                    crossed += 1
                    before = owner(track, range(begin - 4, begin), truth)
                    behind = owner(track, range(begin + gap, begin + gap + 4), truth)
                    other += None not in (before, behind) and before != behind
                elif first < begin - 3 and begin - 8 <= last <= begin + gap + 2:
                    ended += track.reason != "left-field"
        print(f"gap of {gap}: {crossed} go over it, {other} to another cell; {ended} end at it", flush=True)


def owner(track: Track, frames: range, truth: object) -> int | None:
    """Return the true cell that stands nearest to a track in most of some frames."""
    votes: Counter[int] = Counter()
    for frame in frames:
        at = np.flatnonzero(track.frames == frame)
        there = truth[(truth.t0 <= frame) & (frame < truth.t0 + truth.frames)]  # type: ignore[index,attr-defined]
        if len(at) and len(there):
            x = there.x0 + there.v * (frame - there.t0)
            away, k = cKDTree(np.column_stack([x, there.y])).query([track.x_px[at[0]], track.y_px[at[0]]])
            if away <= NEAR_PX:
                votes[int(there.cell.iloc[k])] += 1
    return votes.most_common(1)[0][0] if votes else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("labels", "tracks"))
    parser.add_argument("--each", type=int, default=360)
    parser.add_argument("--cells-per-frame", type=float, default=115.0)
    args = parser.parse_args()
    keep_freed_memory()
    if args.what == "labels":
        labels(args.each)
    else:
        tracks(args.cells_per_frame)


if __name__ == "__main__":
    main()
