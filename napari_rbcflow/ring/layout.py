"""How the ring lies on the disk: a zarr v3 group that any reader of zarr or OME-Zarr opens.

============== ========================= ====================================================
array          shape                     one chunk holds
============== ========================= ====================================================
frames         (capacity, height, width) one frame and its CRC-32C (zarr's own `crc32c` codec)
frame_ledger   (capacity, 4) float64     all rows: `FRAME_COLUMNS`
crops          (crop_capacity, 31, 31)   `CROPS_PER_CHUNK` crops
crop_ledger    (crop_capacity, 6) float64 all rows: `CROP_COLUMNS`
============== ========================= ====================================================

The group is an OME-Zarr image (NGFF 0.5), with one step of time a slot: the newest frame lies before the
oldest, and slots that were never written are black. `exchange` writes them in the order of time.

All chunks are created at their full size and overwritten in place, so the ring never grows and cannot run
out of disk. Only its ledger row says what a slot holds: -1 in the first column means empty, or just being
overwritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.types import CROP_SIDE, Floats, Grey

FORMAT = 1  # version of this layout: `rbcflow_ring` in the group's attributes
FRAME_COLUMNS = ("frame", "time_s", "crc32c", "row_crc32c")
"""`crc32c` covers the frame's bytes, `row_crc32c` the three columns before it."""
CROP_COLUMNS = ("sequence", "cell", "frame", "y_px", "x_px", "crc32c")
"""`sequence` counts crops from 0; `crc32c` covers the five columns before it, then the crop's bytes."""
CROPS_PER_CHUNK = 1024
CRC_BYTES = 4
EMPTY = -1.0
AXES = ("t", "y", "x")

FRAME_ROW_BYTES = 8 * len(FRAME_COLUMNS)
CROP_ROW_BYTES = 8 * len(CROP_COLUMNS)
CROP_BYTES = CROP_SIDE * CROP_SIDE


def crc32c(data: bytes | NDArray[Any], before: int = 0) -> int:
    """Return the CRC-32C (Castagnoli), which the processor computes and zarr's codec checks.

    Parameters
    ----------
    data : bytes or C-contiguous ndarray
    before : int
        CRC of the bytes that come before `data`.
    """
    return int(google_crc32c.extend(before, data))


def ome_image(array: str, fps: float, pixel_size_um: float, first_frame: int = 0) -> dict[str, Any]:
    """Return the attributes of a group that make its array (t, y, x) an OME-Zarr image (NGFF 0.5)."""
    steps: list[dict[str, Any]] = [
        {"type": "scale", "scale": [1 / fps, pixel_size_um, pixel_size_um]},
    ]
    if first_frame:
        steps.append({"type": "translation", "translation": [first_frame / fps, 0.0, 0.0]})
    time, space = {"type": "time", "unit": "second"}, {"type": "space", "unit": "micrometer"}
    axes = [{"name": name} | (time if name == "t" else space) for name in AXES]
    image = {"axes": axes, "datasets": [{"path": array, "coordinateTransformations": steps}]}
    return {"ome": {"version": "0.5", "multiscales": [image]}}


def frame_row(index: float, time_s: float, crc: float) -> Floats:
    row = np.array([index, time_s, crc, 0.0])
    row[3] = crc32c(row[:3])
    return row


def crop_crc(row: Floats, crop: Grey) -> int:
    return crc32c(crop, crc32c(row[:5]))


def frame_path(ring: Path, slot: int) -> Path:
    """Where zarr keeps the frame of a slot."""
    return ring / "frames" / "c" / str(slot) / "0" / "0"


def crop_path(ring: Path, chunk: int) -> Path:
    """Where zarr keeps a chunk of crops."""
    return ring / "crops" / "c" / str(chunk) / "0" / "0"


def ledger_path(ring: Path, name: str) -> Path:
    """Where zarr keeps the one chunk of a ledger."""
    return ring / name / "c" / "0" / "0"
