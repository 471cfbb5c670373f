"""An open Image layer as a movie that can be analysed: the file it came from, or a copy of its frames."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.sources.lazy import FrameArray, open_frames
from napari_rbcflow.widgets.movies.result_layers import is_of_live_picture

_BIG_TIFF_BYTES = 3_500_000_000
_ROOM_LEFT = 200 << 20
"""Bytes that a copy leaves free on its disk."""
_PLACES_COMPARED = 3


class Cancelled(Exception):
    """A person wants the copy no longer."""


@dataclass(frozen=True, eq=False)
class LayerFrames:
    """What of a layer the analysis needs, taken in the interface's thread; no thread touches the layer.

    Attributes
    ----------
    name : str
    data : array-like, shape (n, height, width) or (n, height, width, 3 or 4)
    path : Path or None
        The file that the layer says it came from.
    scale, translate : tuple of float, length 3
        Of the layer, for what is drawn upon it.
    """

    name: str
    data: Any
    path: Path | None
    scale: tuple[float, ...]
    translate: tuple[float, ...]


def may_be_movie(layer: Any) -> bool:
    """Tell whether a layer is worth offering: an image of several pictures, and not a live picture's."""
    from napari.layers import Image

    # `ndim` leaves colour out.
    return isinstance(layer, Image) and layer.ndim > 2 and not is_of_live_picture(layer)


def frames_of_layer(layer: Any) -> LayerFrames:
    """Look at a layer, in the interface's thread; reads no frame.

    Raises
    ------
    BadInput
        If it is no movie in grey or colour.
    """
    from napari.layers import Image

    name = layer.name
    if not isinstance(layer, Image):
        kind = type(layer).__name__
        raise BadInput(f"The layer {name!r} is a {kind} layer: choose an Image layer that holds a movie.")
    data = layer.data[0] if layer.multiscale else layer.data
    shape, dtype = tuple(data.shape), np.dtype(data.dtype)
    own = shape[:-1] if layer.rgb else shape
    if len(own) == 2:
        raise BadInput(
            f"The layer {name!r} is a single image: choose a movie, with frames along its first axis."
        )
    if len(own) != 3:
        said = " x ".join(map(str, own))
        raise BadInput(
            f"The layer {name!r} has {len(own)} axes ({said}): choose a movie of one channel and one plane, "
            "with the axes frame, y, x."
        )
    if own[0] < 2:
        raise BadInput(f"The layer {name!r} holds a single frame: choose a movie.")
    if dtype.kind not in "ui":
        raise BadInput(
            f"The layer {name!r} holds {dtype.name} values: convert it to 8- or 16-bit grey first."
        )
    path = layer.source.path
    if isinstance(data, FrameArray):
        path = data.path
    spatial = slice(-3, None)
    return LayerFrames(
        name,
        data,
        Path(path) if path else None,
        tuple(float(s) for s in layer.scale[spatial]),
        tuple(float(t) for t in layer.translate[spatial]),
    )


def file_of(frames: LayerFrames) -> Path | None:
    """Return the file whose frames the layer shows; None where there is none, or it shows something else.

    The shape must agree, and so must some frames, pixel by pixel: a layer may have been worked on.
    """
    if frames.path is None or not frames.path.exists():
        return None
    if isinstance(frames.data, FrameArray):
        return frames.path
    try:
        movie = open_frames(frames.path)
    except (RbcflowError, OSError):
        return None
    try:
        n = len(movie)
        if tuple(frames.data.shape[:3]) != movie.shape:
            return None
        for place in np.linspace(0, n - 1, _PLACES_COMPARED).astype(int).tolist():
            if not _same(np.asarray(frames.data[place]), movie.frame(place)):
                return None
    except RbcflowError:
        return None
    finally:
        movie.close()
    return frames.path


def copy_frames(
    frames: LayerFrames, folder: Path, *, cancelled: threading.Event, progress: Callable[[int, int], None]
) -> Path:
    """Write a layer's frames into a TIFF, one after the other; may run in any thread.

    Parameters
    ----------
    frames : LayerFrames
    folder : Path
        Where to write; see `new_copy_folder`.
    cancelled : Event
        Asked before each frame.
    progress : callable
        Called with (frames written, frames in all), in this thread.

    Raises
    ------
    Cancelled
    BadInput
        For values beyond 16 bits, or a disk without room.
    """
    data, n = frames.data, int(frames.data.shape[0])
    wide = np.dtype(data.dtype) != np.uint8
    shape = (n, *(int(k) for k in data.shape[1:]))
    bytes_ = int(np.prod(shape)) * (2 if wide else 1)
    free = shutil.disk_usage(folder).free
    if bytes_ + _ROOM_LEFT > free:
        raise BadInput(
            f"The frames of the layer {frames.name!r} need {bytes_ / 1e9:.1f} GB in {folder}, which has "
            f"{free / 1e9:.1f} GB free: save the layer as a file on another disk, and give that file."
        )

    def images() -> Iterator[NDArray[Any]]:
        for k in range(n):
            if cancelled.is_set():
                raise Cancelled
            yield _as_stored(np.asarray(data[k]), wide, frames.name)
            progress(k + 1, n)

    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in frames.name)[:60].strip(".-") or "layer"
    path = folder / f"{safe}.tif"
    try:
        tifffile.imwrite(
            path,
            images(),
            shape=shape,
            dtype=np.uint16 if wide else np.uint8,
            bigtiff=bytes_ > _BIG_TIFF_BYTES,
            photometric="rgb" if len(shape) == 4 else "minisblack",
            metadata={"axes": "TYX" if len(shape) == 3 else "TYXS"},
        )
    except OSError as error:
        raise BadInput(
            f"The frames of the layer {frames.name!r} cannot be written to {folder} "
            f"({error.strerror or error}): save the layer as a file, and give that file."
        ) from error
    return path


def new_copy_folder() -> Path:
    """Make a folder for one copy."""
    return Path(tempfile.mkdtemp(prefix="rbcflow-layer-"))


def _as_stored(image: NDArray[Any], wide: bool, name: str) -> NDArray[Any]:
    if not wide:
        return np.ascontiguousarray(image, dtype=np.uint8)
    if image.dtype != np.uint16 and (int(image.min()) < 0 or int(image.max()) > 65535):
        raise BadInput(
            f"The layer {name!r} holds values beyond 16-bit grey: convert it to 8- or 16-bit first."
        )
    return np.ascontiguousarray(image, dtype=np.uint16)


def _same(shown: NDArray[Any], grey: NDArray[np.uint8]) -> bool:
    """Tell whether a layer's frame is the file's, up to how the file's depth or colour became grey."""
    if shown.ndim == 3:
        if not (
            np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 0], shown[..., 2])
        ):
            return False
        shown = shown[..., 0]
    if shown.dtype.itemsize == 1:
        return np.array_equal(shown, grey)
    return any(np.array_equal(np.minimum(shown >> bits, 255), grey) for bits in (0, 2, 4, 6, 8))
