"""A scripted review of composed movies: the truth says what an expert would say of each track.

    python benchmarks/review_movie.py SESSION=MOVIE.truth.csv... [--checked 60 150] [--seeds 1]

Each SESSION is a session folder of a movie that `compose_movie.py` or `rbcflow simulate` made. It is copied,
reviewed through the command line as a person would (`rbcflow review --sample ... --csv`, then `--labels`),
and the fraction, its interval and the verdict are printed beside the truth and the machine's own. With
`--seeds N` the plan is also drawn N times with other seeds, to see how often the interval holds the truth.
A track is what the cell is that it follows for most of its frames, within 8 px; else it is unreliable.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from napari_rbcflow.estimate import ReviewPlan
from napari_rbcflow.session import Session, open_session
from napari_rbcflow.session.review import population
from napari_rbcflow.session.tables import read_links

NAMES = ("tank-treading", "flipping", "unreliable")
WITHIN_PX = 8.0


def truths(session: Session, truth: Path) -> tuple[dict[int, str], float]:
    """Return what each track really shows, and the movie's true fraction."""
    with truth.open(newline="") as file:
        cells = list(csv.DictReader(file))
    label = [int(cell["label"]) for cell in cells]
    at: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    for k, cell in enumerate(cells):
        begin, n = int(cell["t0"]), int(cell["frames"])
        for t in range(begin, begin + n):
            at[t].append((k, float(cell["x0"]) + float(cell["v"]) * (t - begin), float(cell["y"])))
    follows: dict[int, Counter[int]] = defaultdict(Counter)
    for frame, rows in session.tracks.groupby("frame"):
        if not (there := at.get(int(frame))):
            continue
        places = np.array([place[1:] for place in there])
        own = rows[["x_px", "y_px"]].to_numpy(float)
        far = np.hypot(*(own[:, None] - places[None]).transpose(2, 0, 1))
        for track, nearest, distance in zip(rows["cell"], far.argmin(1), far.min(1), strict=True):
            if distance < WITHIN_PX:
                follows[int(track)][there[nearest][0]] += 1
    found = {}
    for track, frames in zip(session.cells["cell"], session.cells["frames"], strict=True):
        most = follows[int(track)].most_common(1)
        found[int(track)] = NAMES[label[most[0][0]]] if most and most[0][1] >= frames / 2 else NAMES[2]
    reliable = [k for k in label if k < 2]
    return found, reliable.count(0) / len(reliable)


def reviewed(folder: Path, truth: dict[int, str], n: int, work: Path) -> dict[str, object]:
    """Review a copy of a session through the command line; return ``review.json``."""
    copy, sample, labels = work / f"{folder.name}-{n}", work / f"s{n}.csv", work / f"l{n}.csv"
    shutil.copytree(folder, copy, symlinks=True)
    command = [sys.executable, "-m", "napari_rbcflow.cli", "review", str(copy)]
    subprocess.run([*command, "--sample", str(n), "--csv", str(sample)], check=True, capture_output=True)
    with sample.open(newline="", encoding="utf-8-sig") as file:
        drawn = [int(row["cell"]) for row in csv.DictReader(file)]
    rows = "".join(f"{cell},{truth[cell]}\n" for cell in drawn)
    labels.write_text("cell,label\n" + rows, encoding="utf-8")
    subprocess.run([*command, "--labels", str(labels), "--by", "truth"], check=True, capture_output=True)
    found: dict[str, object] = json.loads((copy / "review.json").read_text(encoding="utf-8"))
    shutil.rmtree(copy)
    return found


def often(session: Session, truth: dict[int, str], true: float, n: int, seeds: int) -> str:
    """Draw the plan with other seeds; say how often the interval holds the truth and how wide it is."""
    cells = session.cells[population(session.cells, read_links(session.folder))]
    holds, width = 0, []
    for seed in range(seeds):
        plan = ReviewPlan(
            cells["cell"].to_numpy(),
            cells["label"].tolist(),
            cells["p_reliable"].to_numpy(),
            cells["p_tank_treading"].to_numpy(),
            seed,
        )
        got = plan.estimate({cell: [truth[cell]] for cell in plan.next(n)})
        low, high = got.low or 0.0, 1.0 if got.high is None else got.high
        holds += low <= true <= high
        width.append(100 * (high - low))
    return (
        f"; {seeds} other draws: {holds} hold, width {np.mean(width):.0f} (at most {max(width):.0f}) points"
    )


def main() -> None:
    """Review each session with each number of tracks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sessions", nargs="+", metavar="SESSION=TRUTH")
    parser.add_argument("--checked", type=int, nargs="+", default=[60, 150])
    parser.add_argument("--seeds", type=int, default=0)
    options = parser.parse_args()
    for pair in options.sessions:
        folder, truth_file = (Path(part) for part in pair.split("="))
        session = open_session(folder)
        truth, true = truths(session, truth_file)
        raw = session.fraction
        said = "nothing" if raw.estimate is None else f"{100 * raw.estimate:.1f}"
        print(f"{folder.name}: true {100 * true:.1f}, the machine {said} of {raw.n}")
        for n in options.checked:
            with tempfile.TemporaryDirectory() as work:
                found = reviewed(folder, truth, n, Path(work))
            figure = found["fraction_reviewed"]
            assert isinstance(figure, dict)
            ends = [100 * figure[name] for name in ("estimate", "low", "high")]
            holds = "holds" if ends[1] <= 100 * true <= ends[2] else "MISSES"
            more = often(session, truth, true, n, options.seeds) if options.seeds else ""
            print(
                f"  {n} checked: {ends[0]:.1f} ({ends[1]:.1f} to {ends[2]:.1f}), {holds},"
                f" {found['verdict']}{more}",
                flush=True,
            )


if __name__ == "__main__":
    main()
