"""How often a flipping cell is called flipping, by how long it was watched.

python benchmarks/unseen_flips.py passages PASSAGES.csv [--each 800]
    Simulated cells in focus at whatever phase of their turn, cut to set lengths, judged by the shipped
    networks. Prints what was said, and the counts that napari_rbcflow/estimate/unseen_flips.py holds.
python benchmarks/unseen_flips.py chamber CELLS.csv [--runs 111:0.8 112:0.6 113:0.8 114:0.9]
    Whole runs of 60 s of the simulated chamber (SEED:TANK-FRACTION), each track matched to its cell; the
    fractions as counted and as corrected beside the chamber's own.
python benchmarks/unseen_flips.py windows DATASET WINDOWS.csv --stage2 FILE [--only BG]
    Real labelled whole tracks, cut to shorter ones. FILE: weights that did not see them
    (`rbcflow train ... --stage 2 --without BG`).
python benchmarks/unseen_flips.py coverage [--runs 1000]
    How often the corrected interval, and the trend test, hold what they promise.
python benchmarks/unseen_flips.py picture PASSAGES.csv CELLS.csv WINDOWS.csv docs/img/unseen_flips.png
    Needs matplotlib.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from motions import matched, played
from numpy.typing import NDArray

from napari_rbcflow.classification.dataset import read_dataset
from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.estimate.intervals import wilson
from napari_rbcflow.estimate.network_rates import Rate
from napari_rbcflow.estimate.unseen_flips import (
    MEASURED,
    TURN_SHARE,
    TURNS_ONLY,
    SeenFlips,
    correct_unseen_flips,
    fraction_by_length,
    repeat_frames,
)
from napari_rbcflow.simulation import ChamberSettings, simulate_passages
from napari_rbcflow.simulation.cells import Motion
from napari_rbcflow.types import Label

LENGTHS = (8, 11, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80)
SEEDS = {Motion.TUMBLING: 201, Motion.TANK_TREADING: 202}
WIDE = 2752
"""Pixels of field: 80 frames fit."""
COUNTED = (Label.TANK_TREADING, Label.FLIPPING)


def passages(each: int) -> pd.DataFrame:
    """Judge `each` flipping cells a length, and half as many tank-treading ones."""
    two_stage = TwoStage.load("cpu")
    rows = []
    for motion, seed in SEEDS.items():
        n = each if motion is Motion.TUMBLING else each // 2
        for frames in LENGTHS:
            drawn = simulate_passages(
                motion, [frames] * n, seed=1000 * seed + frames, settings=ChamberSettings(width=WIDE)
            )
            reliable = two_stage.reliable([d.crops for d in drawn])
            flipping = two_stage.flipping([d.crops for d in drawn])
            for d, p, q in zip(drawn, reliable, flipping, strict=True):
                passed = p >= two_stage.stage1.threshold
                rows.append(
                    {
                        "motion": str(motion),
                        "frames": frames,
                        "cycle_frames": d.cell.cycle_s * 60,
                        "aspect_ratio": d.cell.aspect_ratio,
                        "orbit": d.cell.orbit,
                        "phase0": d.phase[0],
                        "p_reliable": p,
                        "p_flipping": q,
                        "label": str(two_stage.kind(float(q))[0] if passed else Label.UNRELIABLE),
                        "reason": two_stage.kind(float(q))[1] if passed else "stage-1",
                    }
                )
            print(motion, frames, flush=True)
    return pd.DataFrame(rows)


def shown(cells: pd.DataFrame) -> NDArray[np.str_]:
    """What each track shows of its own cell's turn: its ``middle``, a ``part`` without it, or ``none``."""
    repeat = cells.cycle_frames / 2
    # The turn: the axis more than 45 degrees from the line of sight, tan(phase) > 1 / aspect ratio.
    half_turn = (0.25 - np.arctan(1 / cells.aspect_ratio) / (2 * np.pi)) * 2 * repeat
    # Frames from the track's first to the middle of the next turn, at a quarter of the cycle.
    ahead = ((0.25 - cells.phase0) % 0.5) * 2 * repeat
    part = (ahead - half_turn < cells.frames) | (ahead - repeat + half_turn > 0)
    return np.where(ahead < cells.frames, "middle", np.where(part, "part", "none"))


def outcomes(judged: pd.DataFrame) -> pd.DataFrame:
    """Count what was said at each length: of a motion's cells, and c with its interval of those counted."""
    rows = []
    for frames, group in judged.groupby("frames"):
        flipping, tank = ((group.label == label).sum() for label in (Label.FLIPPING, Label.TANK_TREADING))
        low, high = wilson(int(flipping), int(flipping + tank))
        rows.append(
            {
                "frames": frames,
                "cells": len(group),
                "flipping": flipping,
                "tank-treading": tank,
                "unreliable": (group.reason == "stage-1").sum(),
                "undecided": (group.reason == "undecided").sum(),
                "called flipping": round(flipping / max(1, flipping + tank), 3),
                "low": round(low, 3),
                "high": round(high, 3),
            }
        )
    return pd.DataFrame(rows)


def chamber(runs: list[str]) -> pd.DataFrame:
    """Play whole runs; return every track with its cell, and print the fractions."""
    found = []
    for run in runs:
        seed, tank = run.split(":")
        with tempfile.TemporaryDirectory() as folder:
            settings = ChamberSettings(seed=int(seed), seconds=60.0, tank_fraction=float(tank))
            session, truth = played(settings, Path(folder) / "session")
            cells = matched(session, truth).reset_index().assign(seed=int(seed))
        found.append(cells)
        own = (truth.label == 0).sum() / (truth.label < 2).sum()
        print(run, fractions(cells), f"the chamber's own {own:.3f}", flush=True)
    return pd.concat(found, ignore_index=True)


def fractions(cells: pd.DataFrame) -> str:
    """Say the fraction as counted, and corrected in each way."""
    counted = cells[cells.label.isin(COUNTED)]
    said = [f"counted {(counted.label == Label.TANK_TREADING).mean():.3f} of {len(counted)}"]
    for curve in (MEASURED, TURNS_ONLY):
        for false in (None, (8, 185)):
            c = correct_unseen_flips(cells, curve, false_flips=false)
            name = curve.name + (" and false flips" if false else "")
            said.append(
                f"{name} none ({c.reason})"
                if c.estimate is None
                else f"{name} {c.estimate:.3f} ({c.low:.3f} to {c.high:.3f})"
            )
    return "; ".join(said)


def windows(dataset: Path, stage2: Path, only: str) -> pd.DataFrame:
    """Judge every window of some lengths of real reliable tracks with stage 2 alone."""
    two_stage = TwoStage.load("cpu", stage2=stage2)
    rows = []
    for s in read_dataset(dataset):
        if s.label > 1 or s.sampled or not s.name.startswith(only):
            continue
        n = len(s.crops)
        for frames in sorted({*(length for length in LENGTHS if length < n), n}):
            starts = range(0, n - frames + 1, 2)
            p = two_stage.flipping([s.crops[a : a + frames] for a in starts])
            for a, q in zip(starts, p, strict=True):
                rows.append(
                    {
                        "name": s.name,
                        "label": s.label,
                        "whole": n,
                        "frames": frames,
                        "start": a,
                        "p_flipping": q,
                        "said": str(two_stage.kind(float(q))[0]),
                    }
                )
    return pd.DataFrame(rows)


def told_by_form(judged: pd.DataFrame, labelled_by: str, draws: int = 500) -> tuple[float, float, float]:
    """How often real flipping cells are told by windows that show nothing of their turn, with its interval.

    What a window shows is not known of a real cell. It is weighed over all places where the turn may have
    been, given that the whole track shows its middle, or a part of it (`labelled_by`), as it was labelled
    flipping; a window with a part of the turn is taken to be told as often as in the chamber.
    """
    repeat, reach = repeat_frames(), 0.5 * TURN_SHARE * repeat_frames()
    sums = []
    for _, g in judged[(judged.label == 1) & (judged.frames < judged.whole)].groupby("name"):
        whole, first = float(g.whole.iloc[0]), g.start.to_numpy()[:, None]
        beyond = reach if labelled_by == "part" else 0.0
        at = np.linspace(-beyond, whole + beyond, 400) + repeat * np.array([-1, 0, 1])[:, None, None]
        last = first + g.frames.to_numpy()[:, None]
        middle = ((at >= first) & (at < last)).any(axis=0).mean(axis=1)
        some = ((at >= first - reach) & (at < last + reach)).any(axis=0).mean(axis=1)
        told = g.said.isin(COUNTED).to_numpy()
        flips = (g.said == Label.FLIPPING) - told * (middle + (some - middle) * MEASURED.part.value)
        sums.append((flips.mean(), (told * (1 - some)).mean()))
    each, rng = np.array(sums), np.random.default_rng(0)
    drawn = [np.divide(*each[rng.integers(0, len(each), len(each))].sum(axis=0)) for _ in range(draws)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.divide(*each.sum(axis=0))), float(low), float(high)


def drawn(curve: SeenFlips, repeats: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Chance at each length by rates that are themselves drawn from what their counts leave open."""
    rates = {
        name: rng.beta(rate.hits + 0.5, rate.of - rate.hits + 0.5)
        for name in ("middle", "part", "none")
        if isinstance(rate := getattr(curve, name), Rate)
    }
    return replace(curve, **rates).chance(repeats)


def coverage(runs: int) -> None:
    """Draw runs with a known share, from rates that the counts leave possible, and correct them."""
    rng = np.random.default_rng(5)
    whole = np.clip(np.rint(rng.normal(60, 4, 4000)), 6, 75)
    parts = np.clip(np.rint(rng.gamma(16, 2.4, 4000)), 6, 75)
    for name, lengths in (
        ("whole tracks, about 60", whole),
        ("parts, about 38", parts),
        ("short, about 19", parts / 2),
    ):
        lengths = np.maximum(6, np.rint(lengths))
        for curve in (MEASURED, TURNS_ONLY):
            for phi in (0.05, 0.15, 0.3, 0.5):
                for n in (100, 200, 500):
                    held = said = 0
                    for _ in range(runs):
                        frames = rng.choice(lengths, n)
                        repeats = frames / repeat_frames()
                        chance = drawn(curve, repeats, rng)
                        flips = rng.random(n) < phi
                        called = flips & (rng.random(n) < chance)
                        cells = pd.DataFrame(
                            {"frames": frames, "label": np.where(called, Label.FLIPPING, Label.TANK_TREADING)}
                        )
                        c = correct_unseen_flips(cells, curve)
                        if c.low is not None and c.high is not None:
                            said += 1
                            held += c.low <= 1 - phi <= c.high
                    share = f"{held / max(1, said):.3f} of {said}"
                    print(f"{name:24s} {curve.name:12s} phi {phi:4} n {n:3}: {share}")
            print(flush=True)
    trends(rng)


def trends(rng: np.random.Generator, runs: int = 4000) -> None:
    """Say how often the trend test finds what is there, and what is not.

    The lower cells flow more slowly, so that they take longer to cross, and flip more often. One track in
    twenty, or every second one, is cut short.
    """
    for n, cut, seen_by in (
        (500, 0.05, None),
        (500, 0.5, None),
        (500, 0.5, MEASURED),
        (500, 0.5, TURNS_ONLY),
    ):
        found = []
        for _ in range(runs):
            speed = rng.normal(22.0, 1.2, n)
            whole = 1345 / speed
            frames = np.rint(np.where(rng.random(n) < cut, rng.uniform(8, whole), whole))
            flips = rng.random(n) < 0.2 - 0.03 * (speed - 22.0)
            if seen_by is not None:
                flips &= rng.random(n) < seen_by.chance(frames / repeat_frames())
            cells = pd.DataFrame(
                {
                    "frames": frames,
                    "label": np.where(flips, Label.FLIPPING, Label.TANK_TREADING),
                    "speed_um_per_s": speed * 0.605 * 60,
                }
            )
            found.append(fraction_by_length(cells).falls)
        name = "every flip" if seen_by is None else seen_by.name
        print(
            f"{n} cells, {cut:.0%} of the tracks cut, seen: {name}: a fall is found in {np.mean(found):.3f}"
        )


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("passages")
    one.add_argument("out", type=Path)
    one.add_argument("--each", type=int, default=800)
    two = what.add_parser("chamber")
    two.add_argument("out", type=Path)
    two.add_argument("--runs", nargs="+", default=["111:0.8", "112:0.6", "113:0.8", "114:0.9"])
    three = what.add_parser("windows")
    three.add_argument("dataset", type=Path)
    three.add_argument("out", type=Path)
    three.add_argument("--stage2", type=Path, required=True)
    three.add_argument("--only", default="BG")
    four = what.add_parser("coverage")
    four.add_argument("--runs", type=int, default=1000)
    five = what.add_parser("picture")
    for name in ("passages", "cells", "windows", "out"):
        five.add_argument(name, type=Path)
    given = parser.parse_args()
    if given.what == "passages":
        judged = passages(given.each)
        judged.to_csv(given.out, index=False)
        for motion, group in judged.groupby("motion"):
            print(motion, outcomes(group).to_string(index=False), sep="\n")
        counted = judged[(judged.motion == "tumbling") & judged.label.isin(COUNTED)]
        print(pd.crosstab(shown(counted), counted.label.to_numpy()))
    elif given.what == "chamber":
        chamber(given.runs).to_csv(given.out, index=False)
    elif given.what == "windows":
        judged = windows(given.dataset, given.stage2, given.only)
        judged.to_csv(given.out, index=False)
        each = (
            judged.groupby(["label", "frames", "name"])
            .said.value_counts(normalize=True)
            .unstack(fill_value=0)
        )
        print(
            each.groupby(["label", "frames"]).agg(["mean"]).round(3), each.groupby(["label", "frames"]).size()
        )
        for labelled_by in ("middle", "part"):
            print(
                f"told by form, if labelled by the turn's {labelled_by}:", told_by_form(judged, labelled_by)
            )
    elif given.what == "coverage":
        coverage(given.runs)
    else:
        from unseen_flips_picture import draw

        draw(*(pd.read_csv(p) for p in (given.passages, given.cells, given.windows)), given.out)


if __name__ == "__main__":
    main()
