"""How aslant the light comes in: real cells beside simulated ones, tank-treading only.

  python benchmarks/aslant.py ../shared/data/darrin2023/stage1 ../shared/data/darrin2023/stage1-lj

DATASET is a folder with dataset.csv and img. A row a patient and a strength (`Optics.aslant`, lit from three
sides in turn): the correlation of a sequence's mean picture with itself turned by 180 degrees, within 10 px
(mean, median); root mean square of its odd and its even part (median); greatest less least of the median
picture within 9 px (quantiles 5, 50 and 95 %). All relative to the light around the cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.dataset import read_dataset
from napari_rbcflow.simulation import ChamberSettings, Optics, simulate_sequences

_Y, _X = np.mgrid[-15:16, -15:16]
_AWAY = np.hypot(_Y, _X)


def figures(crops: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Correlation with itself turned, odd part, even part, peak to peak of one sequence."""
    background = np.median(crops[:, _AWAY > 11], axis=1)[:, None, None]
    level = crops / background - 1.0
    mean = level.mean(0)
    here, turned = mean[_AWAY <= 10], mean[::-1, ::-1][_AWAY <= 10]
    odd, even = (float(np.sqrt((((here + sign * turned) / 2) ** 2).mean())) for sign in (-1, 1))
    peak = float(np.ptp(np.median(level, axis=0)[_AWAY < 9]))
    return float(np.corrcoef(here, turned)[0, 1]), odd, even, peak


def say(name: str, sequences: Iterable[NDArray[np.uint8]]) -> None:
    """Print a row."""
    turned, odd, even, peak = np.array([figures(crops) for crops in sequences]).T
    said = " ".join(f"{v:.2f}" for v in np.quantile(peak, (0.05, 0.5, 0.95)))
    print(
        f"| {name} | {len(turned)} | {turned.mean():.2f}, {np.median(turned):.2f} | {np.median(odd):.3f} | "
        f"{np.median(even):.3f} | {said} |",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    given = parser.parse_args()
    print("| | sequences | turned by 180 degrees | odd | even | peak to peak |\n|---|---|---|---|---|---|")
    for folder in given.datasets:
        real = [s for s in read_dataset(folder) if s.label == 0 and len(s.crops)]
        for patient in sorted({s.patient for s in real}):
            say(f"patient {patient}", [s.crops for s in real if s.patient == patient])
    for aslant in given.strengths:
        drawn: list[NDArray[np.uint8]] = []
        for side in (0.0, 90.0, 225.0):
            settings = ChamberSettings(variety=0.2, optics=Optics(aslant=aslant, lit_from_deg=side))
            some = simulate_sequences(40, seed=912 + int(side), shares=(1.0, 0.0, 0.0), settings=settings)
            drawn += [s.crops for s in some]
        say(f"chamber, {aslant:g}", drawn)


if __name__ == "__main__":
    main()
