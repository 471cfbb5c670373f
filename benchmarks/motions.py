"""How the instrument labels each motion of the simulated chamber, and how many cells it keeps whole.

  python benchmarks/motions.py [--seconds 30] [--seed 101] [--cells-per-frame 115] [--tank-fraction 0.8]

Plays a simulated chamber through the whole instrument, matches each track to the true cell that most of
its positions lie on, and prints a table: rows are the true motions, columns the labels; then the fraction as
said, the chamber's own and the true one of the counted cells, and the counted tank-treading cells by how far
they stand out of the flow. The seed is one that nothing was trained or tuned on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.session import Session, open_session
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.simulation.cells import Motion
from napari_rbcflow.simulation.library import build_library

NEAR_PX = 6.0
LEAST_SHARE = 0.8
_RING_SECONDS = 0.1
TRUTHS = {0: "tank-treading", 1: "flipping", 2: "not judgeable"}
COUNTED = ("tank-treading", "flipping")
STEEPNESS_DEG = (0, 25, 35, 40, 45, 50, 62)


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
        raise RunFailed.told(reason)
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


def steepest_deg(cells: pd.DataFrame, settings: ChamberSettings) -> pd.Series[float]:
    """Return how far each matched tank-treading cell leans out of the flow at the top of its swing.

    The truth does not tell it: the cell is looked up in the chamber's library. Missing for other motions.
    """
    steep = {
        (round(c.z_um, 2), round(c.orbit, 4), round(c.shape.diameter_um, 2)): c.aspect_ratio + c.orbit
        for c in build_library(settings).cells
        if c.motion is Motion.TANK_TREADING
    }
    keys = zip(cells.true_z_um, cells.true_orbit, cells.true_diameter_um, strict=True)
    found = pd.Series([steep.get(key, np.nan) for key in keys], index=cells.index, dtype=np.float64)
    return found.where(cells.motion == Motion.TANK_TREADING) * (180.0 / np.pi)


def counted_wrong(cells: pd.DataFrame, settings: ChamberSettings) -> pd.DataFrame:
    """Count tank-treading cells that were called flipping, by steepness.

    Returns
    -------
    DataFrame
        A row a steepness, columns ``counted``, ``called flipping`` and ``kinds``: the chamber repeats its
        cells, and one that is called wrongly is so again and again.
    """
    counted = cells[cells.label.isin(COUNTED) & (cells.motion == Motion.TANK_TREADING)]
    steep = steepest_deg(counted, settings)
    groups = counted.assign(wrong=counted.label == "flipping", kind=counted.true_z_um).groupby(
        pd.cut(steep, STEEPNESS_DEG).rename("steepest, degrees"), observed=True
    )
    return groups.agg(
        **{"counted": ("wrong", "size"), "called flipping": ("wrong", "sum"), "kinds": ("kind", "nunique")}
    )


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
        settings = ChamberSettings(**vars(given))
        session, truth = played(settings, Path(folder) / "session")
        cells = matched(session, truth)
        print(pd.crosstab([cells.truth, cells.motion], cells.label))
        f = session.run["fraction"]
        true = (truth.label == 0).sum() / (truth.label < 2).sum()
        print(f"fraction {f['estimate']:.3f} ({f['low']:.3f} to {f['high']:.3f}), true {true:.3f}")
        turning = cells[
            cells.label.isin(COUNTED) & cells.motion.isin([Motion.TANK_TREADING, Motion.TUMBLING])
        ]
        print(f"of the counted {(turning.motion == Motion.TANK_TREADING).mean():.3f} tank-tread in truth")
        print(counted_wrong(cells, settings))


if __name__ == "__main__":
    main()
