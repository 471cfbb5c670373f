"""How the instrument labels each motion of the simulated chamber, and how many cells it keeps whole.

  python benchmarks/motions.py [--seconds 30] [--seed 101] [--cells-per-frame 115] [--tank-fraction 0.8]

Plays a simulated chamber through the whole instrument, matches each track to the true cell that most of
its positions lie on, and prints a table: rows are the true motions, columns the labels. The seed is one that
nothing was trained or tuned on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.run import Run, RunSettings
from napari_rbcflow.session import Session, open_session
from napari_rbcflow.sources.chamber import ChamberSettings, SimulatedChamber

NEAR_PX = 6.0
LEAST_SHARE = 0.8
_RING_SECONDS = 0.1
TRUTHS = {0: "tank-treading", 1: "flipping", 2: "not judgeable"}


def played(settings: ChamberSettings, folder: Path) -> tuple[Session, pd.DataFrame]:
    """Play a chamber through the instrument as fast as it goes; return the session and the truth.

    Raises
    ------
    RunFailed
    """
    source = SimulatedChamber(settings, paced=False)
    run = Run(source, folder, RunSettings(device="cpu", ring_seconds=_RING_SECONDS))
    run.start()
    run.wait()
    status, reason = run.outcome
    if status == "failed":
        raise RunFailed(reason)
    return open_session(folder), source.truth


def matched(session: Session, truth: pd.DataFrame) -> pd.DataFrame:
    """Return `session.cells` with the motion, label and defocus of the cell that each track follows."""
    frames = np.concatenate([np.arange(t, t + n) for t, n in zip(truth.t0, truth.frames, strict=True)])
    rows = truth.loc[truth.index.repeat(truth.frames)]
    x = (rows.x0 + rows.v * (frames - rows.t0)).to_numpy()
    # Frames far apart, so that a neighbour in the tree is one of the same frame.
    tree = cKDTree(np.column_stack([frames * 1e4, rows.y, x]))
    seen = session.tracks[session.tracks.seen == 1]
    distance, nearest = tree.query(np.column_stack([seen.frame * 1e4, seen.y_px, seen.x_px]))
    owner = np.where(distance < NEAR_PX, rows.cell.to_numpy()[np.minimum(nearest, len(rows) - 1)], -1)
    votes = pd.DataFrame({"cell": seen.cell.to_numpy(), "owner": owner})
    best = votes.groupby("cell").owner.agg(lambda o: o.mode().iloc[0])
    share = votes.groupby("cell").owner.agg(lambda o: (o == o.mode().iloc[0]).mean())
    found = session.cells.set_index("cell")
    found["owner"] = best.where(share >= LEAST_SHARE, -1)
    found = found.join(truth.set_index("cell").add_prefix("true_"), on="owner")
    found["truth"] = found.true_label.map(TRUTHS).fillna("no single cell")
    found["motion"] = found.true_motion.fillna("mixed or none")
    return found


def main() -> None:
    """Play, match, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--cells-per-frame", type=float, default=115)
    parser.add_argument("--tank-fraction", type=float, default=0.8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session, truth = played(ChamberSettings(**vars(given)), Path(folder) / "session")
        cells = matched(session, truth)
        print(pd.crosstab([cells.truth, cells.motion], cells.label))
        f = session.run["fraction"]
        true = (truth.label == 0).sum() / (truth.label < 2).sum()
        print(f"fraction {f['estimate']:.3f} ({f['low']:.3f} to {f['high']:.3f}), true {true:.3f}")


if __name__ == "__main__":
    main()
