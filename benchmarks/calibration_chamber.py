"""One check of a calibration through the whole pipeline: simulated chambers under aslant light, a seed a day.

Runs of three seeds are reviewed by the truth, 100 tracks each, and calibrate; runs of two further seeds take
the calibration. Each has its own fraction and a slightly other light. Prints what `rbcflow calibrate` prints,
and for the two runs the verdict, the corrected interval and the raw one beside the truth. From the
repository's root::

    OMP_NUM_THREADS=1 nice python benchmarks/calibration_chamber.py FOLDER
"""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta
from pathlib import Path

from review_movie import truths

from napari_rbcflow.cli.review import print_calibration
from napari_rbcflow.estimate import StopRules
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.session import Calibration, Review, open_session, read_run
from napari_rbcflow.session.schema import write_run
from napari_rbcflow.simulation import ChamberSettings, Optics, SimulatedChamber

FRACTIONS = (0.6, 0.75, 0.9, 0.7, 0.85)
REVIEWED = 3


def run(
    folder: Path, seed: int, given: argparse.Namespace, calibration: Path | None
) -> tuple[dict[int, str], float]:
    """Run one day; return what its tracks are, and its true fraction."""
    optics = Optics(aslant=given.aslant + 0.05 * (seed % 3 - 1), lit_from_deg=90.0)
    settings = ChamberSettings(
        seconds=given.seconds, seed=40 + seed, tank_fraction=FRACTIONS[seed], optics=optics
    )
    chamber = SimulatedChamber(settings, paced=False)
    one = Run(
        chamber, folder, RunSettings(device="cpu", stop=StopRules(tracks=10**6), calibration=calibration)
    )
    one.start()
    one.wait()
    chamber.truth.to_csv(folder.with_suffix(".truth.csv"), index=False)
    day = datetime(2026, 3, 2, 10).astimezone() + timedelta(days=seed)
    write_run(folder, read_run(folder) | {"started": day.isoformat()})
    session = open_session(folder)
    return truths(session, folder.with_suffix(".truth.csv"))


def main() -> None:
    """Run, review, calibrate, run again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--aslant", type=float, default=0.75)
    parser.add_argument("--checks", type=int, default=100)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    days = [given.folder / f"day-{seed}" for seed in range(len(FRACTIONS))]
    for seed, folder in enumerate(days[:REVIEWED]):
        label, fraction = run(folder, seed, given, None)
        review = Review(folder)
        while review.reviewed < given.checks:
            review.add({cell: label[cell] for cell in review.sample(20)}, "truth")
        review.finish()
        cells, figure = read_run(folder)["cells"], review.figure
        counted = [
            c
            for c, said in zip(*open_session(folder).cells[["cell", "label"]].to_numpy().T, strict=True)
            if said in ("tank-treading", "flipping")
        ]
        wrong = sum(label[c] == "unreliable" for c in counted)
        print(
            f"{folder.name}: true {fraction:.3f}, {cells}, {wrong} counted wrongly; "
            f"review {figure.low:.3f} to {figure.high:.3f}",
            flush=True,
        )
    found = Calibration.of_sessions(days[:REVIEWED], given.folder / "calibration.json")
    found.write()
    print_calibration(found)
    for seed, folder in enumerate(days[REVIEWED:], start=REVIEWED):
        _, fraction = run(folder, seed, given, found.file)
        session = open_session(folder)
        told = session.run
        raw, corrected = told["fraction"], told["fraction_corrected"]
        print(
            f"{folder.name}: true {fraction:.3f}; raw {raw['estimate']:.3f} "
            f"({raw['low']:.3f} to {raw['high']:.3f}); "
            f"{corrected['method']} {corrected['low']} to {corrected['high']} {corrected.get('reason', '')}; "
            f"{session.conclusion.verdict}; {told['calibration']['applies']} {told['calibration']['why']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
