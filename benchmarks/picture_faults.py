"""How an uneven light and a turned camera change what is found: a movie spoilt more and more, analysed.

    python benchmarks/picture_faults.py MOVIE.tif

The first 150 frames of a composed movie, 400 x 1000 px of them; a row of Markdown for each fault.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_rbcflow import analyze
from napari_rbcflow.errors import RbcflowError

Frames = NDArray[np.uint8]
OURS = ("light-uneven", "flow-nowhere", "grey-stretched", "interlaced", "lossy")


def faults(m: Frames) -> Iterator[tuple[str, NDArray[np.generic], int]]:
    """Yield the faults by name, with the spoilt movie and the angle to turn it by."""
    height, width = m.shape[1:]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    r2 = (y * y + x * x) / 2
    yield "none", m, 0
    for percent in (20, 30, 40, 50, 60, 80):
        yield f"light {percent} % lower in the corners", _grey(m * (1 - percent / 100 * r2)), 0
    yield "light 60 % lower at the right", _grey(m * (1 - 0.3 * (x + 1))), 0
    down = np.ascontiguousarray(m.transpose(0, 2, 1))
    yield "camera turned, cells flow down", down, 0
    yield "the same, turned by 270 degrees", down, 270
    yield "camera turned, cells flow up", down[:, ::-1], 0
    yield "camera turned by 180 degrees", m[:, :, ::-1], 0
    yield "16 bit, 30,000 to 31,000", (30_000 + m / 255.0 * 1000).astype(np.uint16), 0
    yield "16 bit, 100 to 400", (100 + m / 255.0 * 300).astype(np.uint16), 0
    yield "16 bit, times 16, 32,768 added", m.astype(np.uint16) * 16 + 32768, 0
    hot = m.astype(np.uint16) * 16
    hot[:, 77, 33] = 65535
    yield "12 bit in 16, a hot pixel", hot, 0


def _grey(values: NDArray[np.floating]) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("movie", type=Path)
    frames = tifffile.memmap(parser.parse_args().movie)[:150, 300:700, 200:1200].copy()
    print("| fault | tracks | reliable | tank-treading | said |\n|---|---|---|---|---|")
    folder = Path(tempfile.mkdtemp())
    for name, spoilt, rotate in faults(frames):
        tifffile.imwrite(folder / "m.tif", spoilt)
        try:
            run = analyze(folder / "m.tif", folder / "s", device="cpu", rotate=rotate).run
        except RbcflowError as error:
            print(f"| {name} | | | | {error.key} |", flush=True)
            continue
        cells = run["cells"]
        counted = cells["tank_treading"] + cells["flipping"]
        share = f"{100 * cells['tank_treading'] / counted:.1f} %" if counted else ""
        said = [f"`{w['key']}` ({w['severity']})" for w in run["quality"]["warnings"] if w["key"] in OURS]
        print(f"| {name} | {cells['tracked']} | {counted} | {share} | {', '.join(said)} |", flush=True)
        shutil.rmtree(folder / "s")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
