"""Which warnings healthy and spoilt runs of the simulated chamber get.

  python benchmarks/quality.py [CASE...] [--seconds SECONDS] [--movie MOVIE] [--list]

Each case is a whole run (tracking, both networks, session) with the sliding background of a live run, as
fast as this machine can. Prints a row for each: cells counted, share of the judged tracks that were reliable,
fraction, the simulation's own, and what was said. With --movie, the cases that spoil pictures are tried on a
recorded movie instead.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.quality.monitor import warnings_of_run
from napari_rbcflow.session import open_session
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.sources import FrameSource
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import Frame, SourceInfo

Image = NDArray[np.uint8]
Spoil = Callable[[Image, float], Image]
"""A frame, and which share of the run lies before it."""


def light(factor: Callable[[float, int], float]) -> Spoil:
    """Multiply the light by what `factor` says of the share of the run and the number of the frame."""
    n = 0

    def spoilt(image: Image, share: float) -> Image:
        nonlocal n
        n += 1
        out: Image = np.clip(image * np.float32(factor(share, n)), 0, 255).astype(np.uint8)
        return out

    return spoilt


def times(factor: float) -> Spoil:
    """Multiply the light."""
    return light(lambda share, n: factor)


def blurred(sigma_px: float) -> Spoil:
    """Blur every frame."""
    return lambda image, share: cv2.GaussianBlur(image, (0, 0), sigma_px)  # type: ignore[return-value]


def doublets(image: Image, share: float) -> Image:
    """Let every cell in the lower half of the field drag a second one along, 14 px ahead."""
    half = len(image) // 2
    cells = image[half:].astype(np.float32) - cv2.blur(image[half:], (61, 61))
    out = image.copy()
    out[half:, 14:] = np.clip(image[half:, 14:] + cv2.GaussianBlur(cells, (0, 0), 0.8)[:, :-14], 0, 255)
    return out


@dataclass(frozen=True)
class Case:
    """One run: a chamber (or two, one after the other), what is done to its frames, what is told of it."""

    chamber: Mapping[str, float] = field(default_factory=dict)
    then: Mapping[str, float] | None = None
    spoil: Callable[[], Spoil] | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    flow: str = "left-to-right"
    seconds: float | None = None


CASES = {
    **{
        f"healthy, seed {seed}, {tank:.0%}": Case({"seed": seed, "tank_fraction": tank}, seconds=40.0)
        for seed, tank in (
            (11, 0.8),
            (12, 0.8),
            (12, 0.9),
            (13, 0.8),
            (13, 0.7),
            (14, 0.8),
            (15, 0.6),
            (16, 0.95),
            (17, 0.6),
        )
    },
    "light x 0.5": Case(spoil=lambda: times(0.5)),
    "light x 0.15": Case(spoil=lambda: times(0.15)),
    "light x 1.7": Case(spoil=lambda: times(1.7)),
    "light x 1.9": Case(spoil=lambda: times(1.9)),
    "light x 2.1": Case(spoil=lambda: times(2.1)),
    "lamp to 0.7 half way": Case(spoil=lambda: light(lambda share, n: 0.7 if share > 0.5 else 1.0)),
    "lamp fades to 0.6": Case(spoil=lambda: light(lambda share, n: 1 - 0.4 * share)),
    "flicker +-10 %": Case(spoil=lambda: light(lambda share, n: 1 + 0.1 * float(np.sin(2.1 * n)))),
    "blur of 1.5 px, seed 31": Case({"seed": 31, "tank_fraction": 0.8}, spoil=lambda: blurred(1.5)),
    "blur of 1 px": Case(spoil=lambda: blurred(1.0)),
    "blur of 1.25 px": Case(spoil=lambda: blurred(1.25)),
    "blur of 1.5 px": Case(spoil=lambda: blurred(1.5)),
    "blur of 2 px": Case(spoil=lambda: blurred(2.0)),
    "blur of 2.5 px": Case(spoil=lambda: blurred(2.5)),
    "focus at 45 um": Case({"focus_um": 45.0}),
    "focus at 150 um": Case({"focus_um": 150.0}),
    "shear 5": Case({"shear_rate_per_s": 5.0}),
    "shear 20": Case({"shear_rate_per_s": 20.0}),
    "shear 10, then 6": Case({"tank_fraction": 0.8}, then={"shear_rate_per_s": 6.0}, seconds=40.0),
    "15 cells a frame": Case({"cells_per_frame": 15.0}),
    "230 cells a frame": Case({"cells_per_frame": 230.0}),
    "350 cells a frame": Case({"cells_per_frame": 350.0}),
    "500 cells a frame": Case({"cells_per_frame": 500.0}),
    "doublets in half the field": Case(spoil=lambda: doublets),
    "told 0.30 um a pixel": Case(told={"pixel_size_um": 0.3025}),
    "told 0.45 um a pixel": Case(told={"pixel_size_um": 0.45}),
    "told 0.80 um a pixel": Case(told={"pixel_size_um": 0.8}),
    "told 1.21 um a pixel": Case(told={"pixel_size_um": 1.21}),
    "told right-to-left": Case(flow="right-to-left"),
    "fraction 95 %, then 60 %": Case({"tank_fraction": 0.95}, then={"tank_fraction": 0.6}, seconds=40.0),
}
REAL = {name: case for name, case in CASES.items() if not case.chamber and case.then is None}
REAL = {"as it is": Case(), **{k: v for k, v in REAL.items() if "half way" not in k and "fades" not in k}}


class Spoilt(FrameSource):
    """Sources one after the other, their frames spoilt."""

    def __init__(self, sources: list[FrameSource], case: Case) -> None:
        self._sources, self._case = sources, case
        self._spoil = case.spoil() if case.spoil is not None else None
        self._frames = 0

    def open(self) -> SourceInfo:
        """Open all."""
        infos = [source.open() for source in self._sources]
        self._frames = sum(info.n_frames or 0 for info in infos)
        return replace(infos[0], n_frames=self._frames, live=False, **self._case.told)  # type: ignore[arg-type]

    def frames(self) -> Iterator[Frame]:
        """Yield all frames, numbered through."""
        index = 0
        for source in self._sources:
            for frame in source.frames():
                image = frame.image
                if self._spoil is not None:
                    image = self._spoil(image, index / self._frames)
                yield Frame(index, index / 60.0, image)
                index += 1

    def stop(self) -> None:
        """Stop all."""
        for source in self._sources:
            source.stop()

    def close(self) -> None:
        """Close all."""
        for source in self._sources:
            source.close()


def chambers(case: Case, seconds: float) -> list[FrameSource]:
    """Return the chambers of a case, unpaced."""
    parts = [case.chamber] if case.then is None else [case.chamber, {**case.chamber, **case.then}]
    return [
        SimulatedChamber(
            ChamberSettings(**{"seed": 21, **part, "seconds": seconds / len(parts)}),  # type: ignore[arg-type]
            paced=False,
        )
        for part in parts
    ]


def main() -> None:
    """Run the cases, print a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--seconds", type=float, help="of each [default: the case's own, else 20]")
    parser.add_argument("--movie", type=Path)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    known = REAL if given.movie else CASES
    if given.list:
        print("\n".join(known))
        return
    two_stage = TwoStage.load(device="cpu")
    two_stage.warm_up()
    columns = (
        "run | counted | reliable % | followed % | other speeds % | fraction | its own | warnings | notes"
    )
    print(f"| {columns} |\n" + 9 * "|---" + "|")
    for name in given.cases or known:
        case = known[name]
        sources = (
            [open_movie(given.movie)]
            if given.movie
            else chambers(case, given.seconds or case.seconds or 20.0)
        )
        with tempfile.TemporaryDirectory() as folder:
            settings = RunSettings(flow=case.flow, ring_seconds=0.1)  # type: ignore[arg-type]
            run = Run(Spoilt(sources, case), Path(folder) / "session", settings, two_stage)
            run.start()
            run.wait()
            record = open_session(run.folder).run
        said = warnings_of_run(record)
        own = "; ".join(
            f"{source.truth_summary.fraction:.2f}"
            for source in sources
            if isinstance(source, SimulatedChamber) and source.truth_summary.fraction is not None
        )
        fraction = record["fraction"]
        share = "none" if fraction["estimate"] is None else f"{fraction['estimate']:.2f}"
        grave = ", ".join(f"`{w.key}`" for w in said if w.grave) or "none"
        mild = ", ".join(f"`{w.key}`" for w in said if not w.grave) or "none"
        shares = ("reliable_share", "followed_share", "counted_at_other_speeds_share")
        found = [record["quality"].get(name) for name in shares]
        measured = " | ".join("none" if one is None else f"{100 * one:.1f}" for one in found)
        print(f"| {name} | {fraction['n']} | {measured} | {share} | {own} | {grave} | {mild} |", flush=True)
        for w in said:
            if w.key in ("told", "failed"):
                print(f"<!-- {w.sentence} -->", flush=True)


if __name__ == "__main__":
    main()
