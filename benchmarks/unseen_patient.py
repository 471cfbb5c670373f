"""What the whole pipeline says of composed movies of real cells, beside the truth.

  python benchmarks/unseen_patient.py MOVIE.tif... [--stage1 FILE --stage2 FILE] [--tools DIR] [--json FILE]

Each movie was made by `compose_movie.py` and has its truth beside it. Weights that have not seen the
movie's patient are made by `rbcflow train ... --folds patient --keep-folds`. Printed for each movie: the
fraction said with its interval and corrected, the true one, the share counted of either kind of the cells
that were tracked whole, how many of these were told right, and what was counted that is no reliable cell.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline.run import Run
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.session.reader import open_session
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM

KINDS = ("tank-treading", "flipping")


def analysed(movie: Path, folder: Path, two_stage: TwoStage) -> None:
    """Analyse a movie as `rbcflow analyze` does, with any weights."""
    source = open_movie(movie, fps=DEFAULT_FPS, pixel_size_um=DEFAULT_PIXEL_SIZE_UM)
    run = Run(source, folder, RunSettings(background="movie", ring_seconds=1.0, device="cpu"), two_stage)
    run.start()
    run.wait()


def scored(movie: Path, folder: Path, score: Any) -> dict[str, Any]:
    """Compare a session with its movie's truth."""
    session = open_session(folder)
    truth = movie.with_suffix(".truth.csv")
    with truth.open(newline="") as file:
        label_of = {int(row["cell"]): int(row["label"]) for row in csv.DictReader(file)}
    tracks = session.tracks
    rows = list(zip(tracks["frame"], tracks["cell"], tracks["x_px"], tracks["y_px"], strict=True))
    figures, owner = score(rows, truth)
    said_of = dict(zip(session.cells["cell"], session.cells["label"], strict=True))
    labels = np.asarray(list(label_of.values()))
    out: dict[str, Any] = {
        "movie": movie.stem,
        "true": float((labels == 0).sum() / (labels < 2).sum()),
        "said": session.run["fraction"],
        "corrected": session.run["fraction_corrected"],
        "focus_speed": session.run.get("focus_speed"),
        "whole": figures["whole"],
    }
    for number, kind in enumerate(KINDS):
        said = [said_of[track] for track, cell in owner.items() if label_of[cell] == number]
        counted = [label for label in said if label in KINDS]
        out[kind] = {
            "whole": len(said),
            "counted": len(counted) / max(1, len(said)),
            "right": sum(label == kind for label in counted) / max(1, len(counted)),
        }
    others = [said_of[track] for track, cell in owner.items() if label_of[cell] == 2]
    out["let through"] = [others.count(KINDS[0]), others.count(KINDS[1]), len(others)]
    return out


def between(fraction: dict[str, Any], true: float) -> str:
    """A fraction with its interval, and whether that holds the truth."""
    low, high = fraction["low"], fraction["high"]
    verdict = "holds" if low <= true <= high else "MISSES"
    return f"{fraction['estimate']:.1%} ({low:.1%} to {high:.1%}, {verdict})"


def line(found: dict[str, Any]) -> str:
    """Say it in a line."""
    said, corrected, true = found["said"], found["corrected"], found["true"]
    more = "no corrected number"
    if corrected and corrected.get("estimate") is not None:
        more = "corrected " + between(corrected, true)
    kinds = ", ".join(
        f"{kind} {found[kind]['counted']:.2f} of {found[kind]['whole']} (right {found[kind]['right']:.2f})"
        for kind in KINDS
    )
    tank, flip, of = found["let through"]
    return (
        f"{found['movie']:12s} said {between(said, true)} of {said['n']}, true {true:.1%}; {more};"
        f" counted {kinds}; let through {tank} + {flip} of {of}"
    )


def main() -> None:
    """Analyse and score each movie."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("movies", nargs="+", type=Path)
    parser.add_argument("--stage1", type=Path)
    parser.add_argument("--stage2", type=Path)
    parser.add_argument("--tools", type=Path, default=Path("../shared/tools"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(options.tools))
    from score_tracks import score  # type: ignore[import-not-found]

    two_stage = TwoStage.load("cpu", options.stage1, options.stage2)
    two_stage.warm_up()
    every = []
    with tempfile.TemporaryDirectory() as folder:
        for movie in options.movies:
            session = Path(folder) / movie.stem
            analysed(movie, session, two_stage)
            every.append(scored(movie, session, score))
            print(line(every[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
