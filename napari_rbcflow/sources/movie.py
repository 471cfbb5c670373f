"""A recorded movie as a source, whatever its format, an earlier session's ring too."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import ndtiff, pictures, tiff, zarr_movie
from napari_rbcflow.sources.base import (
    MIN_SIDE_PX,
    STORED_TWICE,
    RecordedSource,
    check_settings,
    in_a_line,
)
from napari_rbcflow.sources.compression import repeats_pictures
from napari_rbcflow.sources.grey import GreyRule, Raw, decide_grey
from napari_rbcflow.sources.movie_reader import (
    BrokenFrame,
    FileFacts,
    MovieReader,
    NoSuchFrame,
    RawFrame,
    choose_series,
    spread,
)
from napari_rbcflow.sources.movie_set import open_all, open_parts
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, SourceInfo


def ring_of(folder: Path) -> Path | None:
    """Return the ring in this folder (a session's) or the folder itself where it is a ring; else None."""
    for place in (folder / "frames.zarr", folder):
        try:
            attributes = json.loads((place / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(attributes, dict) and "rbcflow_ring" in attributes:
            return place
    return None


class RingMovieReader(MovieReader):
    """The frames that a ring held when it was opened; places and times count from the oldest."""

    def __init__(self, folder: Path, name: str) -> None:
        from napari_rbcflow.ring import open_ring

        self._ring = ring = open_ring(folder)
        if not len(ring.indices):
            raise BadInput("sources.ring-empty", name=name)
        self.facts = facts = FileFacts(len(ring.indices), format="session ring")
        facts.n_places = int(ring.indices[-1] - ring.indices[0]) + 1
        origin = say("sources.origin-ring", name=name)
        facts.take_fps(ring.fps, origin)
        facts.take_pixel_size(ring.pixel_size_um, origin)
        run = _run_of(folder.parent)
        facts.simulated = ring.simulated or run.get("simulated") is True
        with suppress(KeyError, TypeError):  # an older session does not say
            facts.lossy_codec = str(run["parameters"]["lossy_codec"])
            facts.details["grey_stretched"] = str(run["parameters"]["source_details"]["grey_stretched"])
        facts.details["first_frame_of_session"] = str(int(ring.indices[0]))
        if ring.damaged_rows:
            facts.warnings.append(say("sources.ring-rows-damaged", name=name, rows=ring.damaged_rows))

    def frames(self) -> Iterator[RawFrame]:
        indices, times = self._ring.indices, self._ring.times_s
        for index, time_s in zip(indices.tolist(), times.tolist(), strict=True):
            yield RawFrame(index - int(indices[0]), time_s - float(times[0]), self._frame(index))

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            yield self._frame(int(self._ring.indices[place]))

    def frame(self, place: int) -> Raw:
        index = int(self._ring.indices[0]) + place
        if index not in self._ring.indices:
            raise NoSuchFrame(place)
        return self._frame(index)

    def _frame(self, index: int) -> Raw:
        from napari_rbcflow.ring import FrameGone

        try:
            return self._ring.frame(index)
        except FrameGone as error:
            raise RunFailed("sources.ring-frame-lost", path=self._ring.path, frame=index) from error


def _run_of(folder: Path) -> dict[str, Any]:
    """Return what the session about a ring says of its run."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


_ROWS_COMPARED = 16  # every so many, before all are
_SQUARE = 0.02  # by which a pixel may be wider than high: sizes are rounded
_GREY_SAMPLES = 32  # frames that decide how a deep or colour movie becomes grey
_LONGEST_SLEEP_S = 0.05  # so that `stop` is heard while a paced movie waits


def open_movie(
    path: Path | str,
    *,
    fps: float | None = None,
    pixel_size_um: float | None = None,
    series: int | None = None,
    paced: bool = False,
    only_shown: bool = False,
) -> Movie:
    """Return a recorded movie, not yet opened.

    Parameters
    ----------
    path : Path or str
        AVI or any container that FFmpeg reads; TIFF stack, OME-TIFF, or a folder of TIFF frames; Zarr array
        (t, y, x) or OME-Zarr; a session's folder or its ``frames.zarr``.
    fps, pixel_size_um : float or None
        What the user knows goes before what the file says; where neither says, the defaults.
    series : int or None
        Which movie of a file that holds several (positions, series, video streams), counted from 0.
    paced : bool
        Play at its own pace, as a live source in a camera's place.
    only_shown : bool
        Take what cannot be analysed, too: pixels that are not square.

    Raises
    ------
    BadInput
        If nothing is there, or no microscope has such a setting. `Movie.open` finds the rest.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput("sources.no-file", path=path)
    check_settings(fps=fps, pixel_size_um=pixel_size_um)
    return Movie(
        path, fps=fps, pixel_size_um=pixel_size_um, series=series, paced=paced, only_shown=only_shown
    )


class Movie(RecordedSource):
    """A movie on disk; see `open_movie`. One frame is in memory at a time (for Zarr, one chunk)."""

    def __init__(
        self,
        path: Path,
        *,
        fps: float | None,
        pixel_size_um: float | None,
        series: int | None,
        paced: bool,
        only_shown: bool,
    ) -> None:
        self.path, self.series = path, series
        self._fps, self._pixel_size_um, self._paced = fps, pixel_size_um, paced
        self._only_shown = only_shown
        self._reader: MovieReader | None = None
        self._grey = GreyRule()
        self._info: SourceInfo | None = None
        self._stopped = threading.Event()
        self._missed = {"not-recorded": 0, STORED_TWICE: 0}

    def open(self) -> SourceInfo:
        if self._info is not None:
            return self._info
        reader = _reader_of(self.path, self.series)
        try:
            self._info = self._look(reader)
        except BaseException:
            reader.close()
            raise
        self._reader = reader
        return self._info

    def frames(self) -> Iterator[Frame]:
        reader, info = self._opened()
        name, n = info.name, reader.facts.n_frames
        start, last, count = time.perf_counter(), -1, 0
        before: NDArray[np.uint8] | None = None
        raw_frames = reader.frames()
        # Of two that are equal there, the camera may have taken both.
        repeats = repeats_pictures(info.lossy_codec)
        while not self._stopped.is_set():
            try:
                raw = next(raw_frames, None)
                image = None if raw is None else self._grey.apply(raw.image)
            except RbcflowError:
                raise
            except Exception as error:  # each format's library has its own kinds
                why = in_a_line(error)
                raise RunFailed("sources.movie-broken", name=name, why=why, read=count, frames=n) from error
            if raw is None or image is None:
                if count < n:
                    raise RunFailed("sources.movie-ends-early", name=name, read=count, frames=n)
                return
            if image.shape != (info.height, info.width):
                height, width = image.shape
                raise RunFailed(
                    "sources.frame-size-changed", frame=raw.place, name=name, width=width, height=height
                )
            self._missed["not-recorded"] += raw.place - last - 1
            last, count = raw.place, count + 1
            if before is not None and not repeats and _is_same(image, before):
                self._missed[STORED_TWICE] += 1
                continue
            before = image
            time_s = raw.place / info.fps if raw.time_s is None else raw.time_s
            if self._paced and not self._wait_until(start + time_s):
                return
            yield Frame(raw.place, time_s, image)

    def sample(self, n: int) -> NDArray[np.uint8]:
        reader, info = self._opened()
        places = spread(n, reader.facts.n_frames)
        out = np.empty((len(places), info.height, info.width), np.uint8)
        k = 0
        try:
            for raw in reader.at(places):
                out[k] = self._grey.apply(raw)
                k += 1
        except RbcflowError as error:  # a frame that a running session has lost meanwhile
            raise BadInput.told(str(error), error.key) from error
        except Exception as error:
            place = error.place if isinstance(error, BrokenFrame) else places[k]
            why = in_a_line(error)
            raise BadInput("sources.frame-unreadable", frame=place, name=info.name, why=why) from error
        return out

    @property
    def n_places(self) -> int:
        """How many frames the recording's clock counted: `Frame.index` is less than this."""
        facts = self._opened()[0].facts
        return facts.n_frames if facts.n_places is None else facts.n_places

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return the frame of that `Frame.index`, grey as in `frames`; from one thread at a time."""
        reader, info = self._opened()
        try:
            return self._grey.apply(reader.frame(index))
        except (NoSuchFrame, RbcflowError):
            raise
        except Exception as error:
            why = in_a_line(error)
            raise RunFailed("sources.frame-unreadable", frame=index, name=info.name, why=why) from error

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._stopped.set()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    @property
    def missed(self) -> Mapping[str, int]:
        return {reason: n for reason, n in self._missed.items() if n}

    def _opened(self) -> tuple[MovieReader, SourceInfo]:
        if self._reader is None or self._info is None:
            raise RuntimeError("open the movie first")
        return self._reader, self._info

    def _look(self, reader: MovieReader) -> SourceInfo:
        facts, name = reader.facts, self.path.name
        if facts.n_frames == 0:
            raise BadInput("sources.no-frames", name=name)
        if facts.n_frames == 1:
            raise BadInput("sources.single-image", name=name)
        try:
            first = next(iter(reader.at([0])))
            deep = first.dtype.itemsize > 1 or first.ndim > 2
            places = spread(_GREY_SAMPLES, facts.n_frames) if deep else [0, facts.n_frames - 1]
            # The last frame is always among them: where it can be read, the file is whole.
            self._grey = decide_grey(reader.at(places), name=name, order=facts.order, inverted=facts.inverted)
        except BadInput:
            raise
        except Exception as error:
            why = in_a_line(error)
            if isinstance(error, BrokenFrame):
                raise BadInput(
                    "sources.unreadable-at-frame", name=name, frame=error.place, why=why
                ) from error
            raise BadInput("sources.unreadable", name=name, why=why) from error
        height, width = first.shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            raise BadInput(
                "sources.frames-too-small", name=name, width=width, height=height, least=MIN_SIDE_PX
            )
        is_square = abs(math.log(facts.pixel_ratio)) <= _SQUARE
        if not (is_square or self._only_shown or self._pixel_size_um is not None):
            raise BadInput("sources.pixels-not-square", name=name, ratio=facts.pixel_ratio)
        warnings = [*facts.warnings, *self._grey.warnings]
        fps = self._fps or facts.fps
        if fps is None:
            warnings.append(say("sources.fps-unknown", name=name, fps=DEFAULT_FPS))
        pixel = self._pixel_size_um or facts.pixel_size_um
        if pixel is None:
            warnings.append(say("sources.pixel-size-unknown", name=name, pixel=DEFAULT_PIXEL_SIZE_UM))
        return SourceInfo(
            name=name,
            height=height,
            width=width,
            fps=fps or DEFAULT_FPS,
            pixel_size_um=pixel or DEFAULT_PIXEL_SIZE_UM,
            fps_known=fps is not None,
            pixel_size_known=pixel is not None,
            n_frames=facts.n_frames,
            live=self._paced,
            can_wait=True,
            # Played in a camera's place, even a patient's movie is not what the microscope sees.
            simulated=self._paced or facts.simulated,
            lossy_codec=facts.lossy_codec,
            details={
                "file": str(self.path.resolve()),
                **({} if self.series is None else {"series": str(self.series)}),
                "format": facts.format,
                **({"grey_stretched": self._grey.stretched} if self._grey.stretched else {}),
                **facts.details,
            },
            warnings=tuple(warnings),
        )

    def _wait_until(self, moment: float) -> bool:
        """Sleep until then; False if stopped. Late frames come at once, so none is skipped."""
        while not self._stopped.is_set():
            left = moment - time.perf_counter()
            if left <= 0:
                return True
            time.sleep(min(left, _LONGEST_SLEEP_S))
        return False


def _is_same(image: NDArray[np.uint8], before: NDArray[np.uint8]) -> bool:
    """Tell whether a frame was stored twice: no camera takes two that are equal, unless they show nothing."""
    if not np.array_equal(image[::_ROWS_COMPARED], before[::_ROWS_COMPARED]):
        return False
    return np.array_equal(image, before) and int(image.min()) < int(image.max())


_VIDEOS = (".avi", ".mkv", ".mp4", ".mov", ".wmv", ".m4v", ".mpg", ".mpeg", ".webm", ".ts", ".mts")


def _open_folder(path: Path, series: int | None) -> MovieReader:
    """Return the movie in a folder of pictures, of videos or of Zarrs; of more than one kind, refuse it."""
    inside = sorted(one for one in path.iterdir() if not one.name.startswith("."))
    videos = [one for one in inside if one.suffix.lower() in _VIDEOS and one.is_file()]
    # A session that has lost its ring holds other Zarrs.
    zarrs = [one for one in inside if _is_zarr(one)] if not (path / "run.json").is_file() else []
    kinds = [one for one in (pictures.pictures_in(path), videos, zarrs) if one]
    if len(kinds) > 1:
        first, other = kinds[0][0].name, kinds[1][0].name
        raise BadInput("sources.folder-of-kinds", folder=path.name, first=first, other=other)
    if videos:
        from napari_rbcflow.sources.video import VideoReader

        return open_all(videos, path.name, VideoReader, series)
    if len(zarrs) == 1:
        return zarr_movie.ZarrReader(zarrs[0], series)
    if zarrs:
        return zarr_movie.ZarrReader(zarrs[choose_series(path.name, [one.name for one in zarrs], series)])
    return pictures.open_folder(path, series)


def _is_zarr(path: Path) -> bool:
    return zarr_movie.is_zarr(path) if path.is_dir() else path.name.lower().endswith((".zarr.zip", ".ozx"))


def _reader_of(path: Path, series: int | None) -> MovieReader:
    """Choose the reader by what is there; by its ending only for TIFF, which FFmpeg would take too."""
    try:
        if path.is_dir():
            ring = ring_of(path)
            if ring is not None:
                choose_series(path.name, [say("sources.title-ring")], series)
                return RingMovieReader(ring, path.name)
            if zarr_movie.is_zarr(path):
                return zarr_movie.ZarrReader(path, series)
            return _open_folder(path, series)
        if path.stat().st_size == 0:
            raise BadInput("sources.file-empty", name=path.name)
        if zarr_movie.is_zarr(path):
            return zarr_movie.ZarrReader(path, series)
        if tiff.is_tiff(path) or path.suffix.lower() in tiff.SUFFIXES:
            if ndtiff.holds(path):
                return ndtiff.NDTiffReader(path.parent, series)
            return open_parts(path, lambda file: tiff.TiffReader(file, series))
        if path.name.lower().endswith((".ome", ".ome.xml")):
            raise BadInput("sources.description-only", name=path.name)
        from napari_rbcflow.sources.video import VideoReader

        return open_parts(path, lambda file: VideoReader(file, series))
    except PermissionError as error:
        raise BadInput("sources.no-permission", path=path) from error
    except OSError as error:
        raise BadInput("sources.path-unreadable", path=path, why=error.strerror or error) from error
    except RbcflowError:
        raise
    except Exception as error:  # whatever a damaged file makes a format's library do
        raise BadInput("sources.unreadable", name=path.name, why=in_a_line(error)) from error
