"""Movies and rings as arrays that read one frame at a time, when it is looked at."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.ring import FrameGone, RingReader, open_ring
from napari_rbcflow.sources.movie_reader import NoSuchFrame
from napari_rbcflow.sources.rotation import turn

_KEPT_BYTES = 32 << 20  # of the frames read last, so that a picture drawn twice is not read twice


class FrameArray(ABC):
    """Grey frames on disk as a read-only array, shape (frames, height, width), uint8.

    Row k is frame `first` + k of the recording's own clock, the one that tracks are numbered by. A
    frame that is not there (never recorded, or overwritten since) is black. May be read from any thread.

    Attributes
    ----------
    path : Path
    shape : (int, int, int)
    pixel_size_um : float
    first : int
        Number of the frame in row 0.
    series : int or None
        Which movie of the file, where it was chosen.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, path: Path, shape: tuple[int, int, int], pixel_size_um: float, first: int = 0) -> None:
        self.path = path
        self.shape = shape
        self.pixel_size_um = pixel_size_um
        self.first = first
        self.series: int | None = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    @property
    def size(self) -> int:
        """Pixels in all."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes in all, if it were read whole."""
        return self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = key if isinstance(key, tuple) else (key,)
        at = next((i for i, k in enumerate(key) if k is Ellipsis), None)
        if at is not None:
            key = (*key[:at], *([slice(None)] * (self.ndim - len(key) + 1)), *key[at + 1 :])
        rows, rest = (key[0], key[1:]) if key else (slice(None), ())
        wanted = np.arange(len(self))[rows]
        if wanted.ndim == 0:
            one: NDArray[np.uint8] = self.frame(int(wanted))[rest]
            return one
        frames = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for place, k in enumerate(wanted.tolist()):
            frames[place] = self.frame(k)
        many: NDArray[np.uint8] = frames[(slice(None), *rest)]
        return many

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it: only to save it or to compute over it."""
        return np.asarray(self[:], dtype=dtype)

    def __deepcopy__(self, memo: object) -> FrameArray:
        return self  # read-only: a duplicated layer reads the same file

    def frame(self, row: int) -> NDArray[np.uint8]:
        """Return one frame, shape (height, width), not to be written into.

        Raises
        ------
        RunFailed
            If its bytes are damaged.
        """
        with self._lock:
            image = self._kept.get(row)
            if image is None:
                try:
                    image = self._read(row)
                except NoSuchFrame:
                    return np.zeros(self.shape[1:], np.uint8)  # not kept: a ring may just be writing it
                self._kept[row] = image
                while len(self._kept) > 1 and len(self._kept) * image.nbytes > _KEPT_BYTES:
                    self._kept.popitem(last=False)
            return image

    @abstractmethod
    def _read(self, row: int) -> NDArray[np.uint8]:
        """Read one frame; NoSuchFrame where there is none."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._kept.clear()


class MovieFrames(FrameArray):
    """A movie file; grey as the analysis sees it."""

    def __init__(self, path: Path, series: int | None = None, rotate: int = 0) -> None:
        from napari_rbcflow.sources.movie import open_movie  # every reader of files

        self._movie = open_movie(path, series=series, only_shown=True)
        self.info = self._movie.open()
        self._rotate = rotate
        sides = (self.info.height, self.info.width)
        shape = (self._movie.n_places, *(sides if rotate in (0, 180) else sides[::-1]))
        super().__init__(path, shape, self.info.pixel_size_um)
        self.series = series

    def _read(self, row: int) -> NDArray[np.uint8]:
        return turn(self._movie.frame(row), self._rotate)

    def close(self) -> None:
        super().close()
        with self._lock:
            self._movie.close()


class RingFrames(FrameArray):
    """What a session's ring held when it was opened, of a run that goes on too.

    A frame that was overwritten since is black, never another frame.

    Parameters
    ----------
    ring : RingReader

    Raises
    ------
    BadInput
        If it holds no frames.
    """

    def __init__(self, ring: RingReader) -> None:
        if not len(ring):
            raise BadInput("sources.ring-empty", name=ring.path)
        first, last = int(ring.indices[0]), int(ring.indices[-1])
        super().__init__(ring.path, (last - first + 1, ring.height, ring.width), ring.pixel_size_um, first)
        self._ring = ring

    def _read(self, row: int) -> NDArray[np.uint8]:
        try:
            return self._ring.frame(self.first + row)
        except FrameGone as error:
            raise NoSuchFrame(str(error)) from error


def open_frames(path: Path | str, series: int | None = None, rotate: int = 0) -> FrameArray:
    """Open a movie, or the ring of a session, as an array that is read a frame at a time.

    Parameters
    ----------
    path : Path or str
        What `open_movie` takes.
    series : int or None
        Which movie of a file that holds several, as for `open_movie`.
    rotate : int
        Degrees by which every frame of a movie is turned clockwise, as an analysis may turn it.

    Raises
    ------
    BadInput
        If it cannot be read.
    RunFailed
        If a ring has lost its ledger.
    """
    from napari_rbcflow.sources.movie import ring_of

    path = Path(path)
    ring = ring_of(path) if path.is_dir() else None
    return MovieFrames(path, series, rotate) if ring is None else RingFrames(open_ring(ring))
