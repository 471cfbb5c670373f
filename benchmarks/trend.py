"""How often the trend calls a steady patient's run low, how often it finds a fall, and a dozen real sessions.

    python benchmarks/trend.py steady [--patients 1000]
    python benchmarks/trend.py fall [--patients 1000]
    python benchmarks/trend.py sessions FOLDER --png docs/img/trend.png [--seconds 12]

The first two draw patients: each day's true fraction is normal around the patient's mean, the run counts 120
to 280 of its cells (200 in the mean), with Wilson's interval. `steady` prints how many of a steady patient's
runs are said to lie below, `fall` how often three runs of a crisis are found, when all twelve weeks are
looked at together and when each run is judged as it comes. `sessions` makes twelve sessions through the whole
pipeline on movies of the simulated chamber, two of them from a crisis, dates them a week apart and draws
the trend.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from napari_rbcflow.estimate import wilson
from napari_rbcflow.trend.baseline import LEAST_DAYS, Baseline, Below, Day, Measured, judge, left_out

WEEKS = 12
CELLS = (120, 280)
PATIENTS = ((0.80, 0.00), (0.80, 0.02), (0.80, 0.04), (0.70, 0.06), (0.95, 0.01))
"""Mean, and standard deviation between days."""
FALLS: dict[str, Callable[[float], list[float]]] = {
    "by thirds": lambda points: [points / 3, 2 * points / 3, points],
    "three at once": lambda points: [points] * 3,
    "one alone": lambda points: [points],
}
POINTS = (0.10, 0.15, 0.20)
# Session 5 and 9 (from 0) of the dozen lie in a crisis; the others vary as a steady patient's do.
FRACTIONS = (0.82, 0.79, 0.84, 0.80, 0.83, 0.55, 0.81, 0.85, 0.80, 0.52, 0.78, 0.82)


@dataclass(frozen=True)
class Patient:
    """A mean fraction, and its standard deviation between days."""

    mean: float
    between: float

    def runs(self, rng: np.random.Generator, days: int, fall: Sequence[float] = ()) -> list[list[Measured]]:
        """Draw a run a day; the last ones lie lower by `fall`."""
        true = rng.normal(self.mean, self.between, days)
        if fall:
            true[-len(fall) :] -= fall
        return [[_count(rng, p)] for p in np.clip(true, 0.01, 0.995)]


def _count(rng: np.random.Generator, p: float) -> Measured:
    n = int(rng.integers(CELLS[0], CELLS[1] + 1))
    k = int(rng.binomial(n, p))
    return Measured(k / n, *wilson(k, n), n)


def verdicts(days: Sequence[Sequence[Measured]]) -> list[Below]:
    """Judge all days together, as `rbcflow trend` does."""
    every = set(range(len(days)))
    return [said[0].below for said in judge(days, every - left_out(days, every))]


def plain(days: Sequence[Sequence[Measured]]) -> list[bool]:
    """Judge by mean - 2 sd of all other days, none of them left out."""
    out = []
    for place, (run,) in enumerate(days):
        base = Baseline.of([Day(r.estimate, r.n) for k, (r,) in enumerate(days) if k != place])
        out.append(base is not None and run.estimate < base.low)
    return out


def as_they_came(days: Sequence[Sequence[Measured]], first: int) -> list[Below]:
    """Judge each day from `first` on by what was known on that day."""
    return [verdicts(days[: k + 1])[-1] for k in range(first, len(days))]


def steady(patients: int, seed: int) -> None:
    """Print how often steady patients are said to lie low."""
    rng = np.random.default_rng(seed)
    print(
        "| mean, sd between days | days | below | perhaps below | patients with a run below | plain rule |"
        " as they came: below, perhaps |"
    )
    print("|---|---|---|---|---|---|---|")
    for patient in (Patient(*given) for given in PATIENTS):
        for days in (5, 6, 8, 12, 26):
            said: list[list[Below]] = []
            naive: list[bool] = []
            came: list[Below] = []
            for _ in range(patients if days < 20 else patients // 4):
                runs = patient.runs(rng, days)
                said.append(verdicts(runs))
                naive += plain(runs)
                if days == WEEKS:
                    came += as_they_came(runs, LEAST_DAYS)
            flat = [verdict for one in said for verdict in one if verdict is not Below.UNKNOWN]
            anyone = np.mean([Below.YES in one for one in said])
            print(
                f"| {patient.mean:.2f}, {patient.between:.2f} | {days} | {_share(flat, Below.YES)} |"
                f" {_share(flat, Below.PERHAPS)} | {100 * anyone:.1f} % | {100 * np.mean(naive):.1f} % |"
                + (f" {_share(came, Below.YES)}, {_share(came, Below.PERHAPS)} |" if came else " |"),
                flush=True,
            )


def fall(patients: int, seed: int) -> None:
    """Print how often a crisis at the end of twelve weeks is found."""
    rng = np.random.default_rng(seed)
    print("Found: a run of the crisis lies below (in brackets: at least perhaps below).")
    print(
        "| mean, sd between days | the fall | " + " | ".join(f"{100 * p:.0f} points" for p in POINTS) + " |"
    )
    print("|---|---|---|---|---|")
    for patient in (Patient(*given) for given in PATIENTS):
        for name, falls in FALLS.items():
            for how in ("together", "as they came"):
                cells = []
                for points in POINTS:
                    steps = falls(points)
                    yes = perhaps = 0
                    for _ in range(patients // 2):
                        runs = patient.runs(rng, WEEKS, steps)
                        first = WEEKS - len(steps)
                        late = verdicts(runs)[first:] if how == "together" else as_they_came(runs, first)
                        yes += Below.YES in late
                        perhaps += Below.YES in late or Below.PERHAPS in late
                    half = patients // 2
                    cells.append(f"{100 * yes / half:.0f} ({100 * perhaps / half:.0f}) %")
                print(
                    f"| {patient.mean:.2f}, {patient.between:.2f} | {name}, {how} | {' | '.join(cells)} |",
                    flush=True,
                )


def _share(said: Sequence[Below], what: Below) -> str:
    return f"{100 * np.mean([verdict is what for verdict in said]):.2f} %"


def sessions(folder: Path, png: Path, seconds: float) -> None:
    """Make a dozen sessions from simulated movies, and draw their trend."""
    from napari_rbcflow import analyze
    from napari_rbcflow.session.report import write_report
    from napari_rbcflow.session.schema import read_run, write_run
    from napari_rbcflow.simulation import simulate_movie
    from napari_rbcflow.trend import as_csv, as_png, gather, summary, trend_of

    folder.mkdir()
    begun = time.process_time()
    truths: list[float | None] = []
    first = datetime(2026, 3, 2, 9, 40, tzinfo=timezone(timedelta(hours=1)))
    for week, fraction in enumerate(FRACTIONS):
        movie, session = folder / f"movie-{week + 1}.tif", folder / f"week-{week + 1:02d}"
        truth = simulate_movie(
            movie, seconds=seconds, seed=100 + week, tank_fraction=fraction, cells_per_frame=150
        )
        truths.append(truth.fraction)
        analyze(movie, session, device="cpu", patient="simulated patient", sample=f"week {week + 1}")
        for file in folder.glob("movie*"):
            file.unlink()
        run = read_run(session)
        started = first + timedelta(weeks=week, minutes=7 * week)
        # As if each had been measured live in its week.
        run["parameters"]["live"] = True
        run |= {"started": started.isoformat(), "ended": (started + timedelta(minutes=2)).isoformat()}
        write_run(session, run)
        write_report(session)
        shutil.rmtree(session / "frames.zarr")
        print(f"{session.name}: {100 * fraction:.0f} % set, {run['fraction']}", flush=True)
    trend = trend_of(gather(sorted(folder.iterdir())))  # named, as they are simulated
    print("| week | set | true in focus | measured | interval | cells | below |")
    print("|---|---|---|---|---|---|---|")
    for week, (run_, truth_) in enumerate(zip(trend.runs, truths, strict=True)):
        f = run_.record.figure
        said = (FRACTIONS[week], truth_ or 0.0, f.estimate or 0.0, f.low or 0.0, f.high or 0.0)
        drawn, true, measured, low, high = (f"{100 * value:.1f}" for value in said)
        print(
            f"| {week + 1} | {drawn} | {true} | {measured} | {low} to {high} | {f.n} | {run_.below or '-'} |"
        )
    print("\n".join([*summary(trend), *trend.notes]))
    print(f"CPU {time.process_time() - begun:.0f} s")
    png.write_bytes(as_png(trend))
    (folder / "trend.csv").write_bytes(as_csv(trend))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    ways = parser.add_subparsers(dest="way", required=True)
    for name in ("steady", "fall"):
        ways.add_parser(name).add_argument("--patients", type=int, default=1000)
    real = ways.add_parser("sessions")
    real.add_argument("folder", type=Path)
    real.add_argument("--png", type=Path, required=True)
    real.add_argument("--seconds", type=float, default=12)
    given = parser.parse_args()
    if given.way == "sessions":
        sessions(given.folder, given.png, given.seconds)
    else:
        {"steady": steady, "fall": fall}[given.way](given.patients, given.seed)


if __name__ == "__main__":
    main()
