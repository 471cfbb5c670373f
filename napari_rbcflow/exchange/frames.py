"""The raw frames of a session's ring as an OME-Zarr image (NGFF 0.5) in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import zarr

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.exchange.leaving import the_one
from napari_rbcflow.ring import AXES, FrameGone, ome_image
from napari_rbcflow.session import new_folder
from napari_rbcflow.types import SIMULATED_MARK

REPEATED = "rbcflow_repeated"
"""Attribute of the image: which of its frames, from 0, are a repetition of the frame before."""


def write_ome_zarr(folders: Sequence[Path], out: Path) -> int:
    """Write the last raw frames of a session as an OME-Zarr image (NGFF 0.5), axes t, y and x.

    A step of the first axis is a frame of the camera, so that time is true: where a frame was lost, the one
    before is repeated, and `REPEATED` says so. The image begins with the first frame after a gap of more
    than a second, at the time of that frame in the run.

    Parameters
    ----------
    folders : sequence of Path
        One session.
    out : Path
        Folder to create; must not exist.

    Returns
    -------
    int
        How many frames, without repetitions.

    Raises
    ------
    BadInput
        If the run goes on, or the session holds no raw frames.
    RunFailed
        If the disk is full. Nothing is left behind.
    """
    session = the_one(folders).session
    ring = session.ring
    if ring is None or not len(ring):
        raise BadInput("exchange.no-ring", folder=session.folder)
    if not (ring.fps > 0 and ring.pixel_size_um > 0):
        raise BadInput("ring.attributes-damaged", path=ring.path)
    kept = set(ring.indices.tolist())
    long_gaps = np.flatnonzero(np.diff(ring.indices) > ring.fps)
    first = int(ring.indices[long_gaps[-1] + 1] if len(long_gaps) else ring.indices[0])
    last = int(ring.indices[-1])
    repeated: list[int] = []
    with new_folder(out):
        group = zarr.create_group(out, zarr_format=3)
        frames = group.create_array(
            "0",
            shape=(last - first + 1, ring.height, ring.width),
            chunks=(1, ring.height, ring.width),
            dtype="uint8",
            dimension_names=AXES,
        )
        image = np.zeros((ring.height, ring.width), np.uint8)
        for index in range(first, last + 1):
            gone = True
            if index in kept:
                with suppress(FrameGone, RunFailed):
                    image, gone = ring.frame(index), False
            if gone:
                repeated.append(index - first)
            frames[index - first] = image
        # Last, as this makes the folder an image.
        group.attrs.update(
            {
                **ome_image("0", ring.fps, ring.pixel_size_um, first),
                REPEATED: repeated,
                SIMULATED_MARK: ring.simulated,
            }
        )
    return last - first + 1 - len(repeated)
