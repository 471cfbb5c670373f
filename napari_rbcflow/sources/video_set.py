"""A recording that was split into several videos, and which videos are one.

Names that differ in one number at their end may be parts of a recording, or a day's runs. The picture tells:
behind the last frame of a part the same cells flow on in the first frame of the next, moved by a few pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import (
    FileFacts,
    MovieReader,
    NoSuchFrame,
    RawFrame,
    choose_series,
)
from napari_rbcflow.sources.video import VideoReader

_NUMBERED = re.compile(r"(.*?)[ ._-]*\(?(\d{1,6})\)?$")
_FIRST = (0, 1, 2)  # the number of the first part, or of the second where the first has none
_ENDS = 4  # frames of either part that are looked at
_REACH_PX, _AWRY_PX = 96, 2  # how far cells move between two frames, along the flow and across it
_GOES_ON = 8.0  # standard deviations: 20 and more where the same cells flow on, 6.4 at most where they do not


class _Name(NamedTuple):
    prefix: str
    number: int
    digits: str


def _name(path: Path) -> _Name:
    found = _NUMBERED.fullmatch(path.stem)
    return _Name(path.stem, -1, "") if found is None else _Name(found[1], int(found[2]), found[2])


def open_video(path: Path, series: int | None = None) -> MovieReader:
    """Return the reader of a video, with the other parts of its recording where it was split."""
    mine = _name(path)
    beside = [
        (name.number, other)
        for other in path.parent.iterdir()
        if other.suffix.lower() == path.suffix.lower() and other.is_file() and not other.name.startswith(".")
        if (name := _name(other)).prefix == mine.prefix
    ]
    numbered = sorted(beside)
    if len(numbered) == 1 or len({number for number, _ in numbered}) < len(numbered):
        return VideoReader(path, series)
    place = next(k for k, (_, other) in enumerate(numbered) if other == path)
    parts, first, last = [VideoReader(path, series)], place, place
    try:
        while first > 0 and _follows(numbered[first - 1][0], numbered[first][0]):
            before = _another(numbered[first - 1][1], series)
            if before is None or not _goes_on(before, parts[0]):
                _close([before])
                break
            parts, first = [before, *parts], first - 1
        while last + 1 < len(numbered) and _follows(numbered[last][0], numbered[last + 1][0]):
            after = _another(numbered[last + 1][1], series)
            if after is None or not _goes_on(parts[-1], after):
                _close([after])
                break
            parts, last = [*parts, after], last + 1
        if len(parts) == 1:
            return parts[0]
        _refuse_hole(numbered, last, parts, series)
        return VideoSet(parts)
    except BaseException:
        _close(parts)
        raise


def open_videos(files: Sequence[Path], folder: str, series: int | None = None) -> MovieReader:
    """Return the reader of the recording in a folder of videos; where there are several, the chosen one."""
    files = sorted(files, key=lambda path: (_name(path).prefix, _name(path).number, path.name))
    found: list[list[Path]] = []
    for _, group in groupby(files, key=lambda path: (_name(path).prefix, path.suffix.lower())):
        rest = list(group)
        while rest:
            reader = open_video(rest[0])
            parts = reader.paths if isinstance(reader, VideoSet) else [rest[0]]
            reader.close()
            found.append(parts)
            rest = [path for path in rest if path not in parts]
    titles = [
        one[0].name if len(one) == 1 else say("sources.title-parts", first=one[0].name, last=one[-1].name)
        for one in found
    ]
    return open_video(found[choose_series(folder, titles, series)][0])


def _follows(number: int, following: int) -> bool:
    return following == number + 1 or (number < 0 and following in _FIRST)


def _another(path: Path, series: int | None) -> VideoReader | None:
    with suppress(BadInput):
        return VideoReader(path, series)
    return None


def _close(parts: Sequence[VideoReader | None]) -> None:
    for part in parts:
        if part is not None:
            part.close()


def _refuse_hole(
    numbered: Sequence[tuple[int, Path]], last: int, parts: Sequence[VideoReader], series: int | None
) -> None:
    """Refuse a recording of which a part between two others is missing."""
    if last + 1 == len(numbered) or _follows(numbered[last][0], numbered[last + 1][0]):
        return
    after = _another(numbered[last + 1][1], series)
    alike = after is not None and _alike(parts[-1], after)
    _close([after])
    if alike:
        file, digits = numbered[last][1], _name(numbered[last][1]).digits
        start, _, end = file.name.rpartition(digits)
        missing = f"{start}{numbered[last][0] + 1:0{len(digits)}d}{end}"
        raise BadInput("sources.set-file-missing", name=parts[0].path.name, missing=missing)


def _alike(one: VideoReader, other: VideoReader) -> bool:
    same = ("format", "fps", "order")
    return (
        all(getattr(one.facts, name) == getattr(other.facts, name) for name in same)
        and one.size == other.size
    )


def _goes_on(one: VideoReader, other: VideoReader) -> bool:
    """Tell whether a video goes on where another ends."""
    if not _alike(one, other):
        return False
    n = min(one.facts.n_frames, other.facts.n_frames)
    equal = one.facts.n_frames >= other.facts.n_frames
    if n < _ENDS:
        return equal
    frames = np.stack([_grey(image) for image in (*_last(one), *other.at(range(_ENDS)))])
    frames -= np.median(frames, axis=0)
    along = [_moved(*pair) for pair in list(pairwise(frames))[_ENDS - 2 : _ENDS + 1]]
    if min(along[0], along[2]) < _GOES_ON:
        # So few cells cannot tell. Then they are parts if all but the last are as long.
        return equal
    return along[1] >= _GOES_ON


def _last(reader: VideoReader) -> list[Raw]:
    places = reader.facts.places or range(reader.facts.n_frames)
    return [reader.frame(place) for place in places[-_ENDS:]]


def _grey(image: Raw) -> NDArray[np.float32]:
    return np.asarray(image if image.ndim == 2 else image[..., 1], np.float32)


def _moved(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return by how many standard deviations two pictures are alike when one is moved along the flow."""
    height, width = before.shape
    alike: NDArray[Any] = fft.irfft2(np.conj(fft.rfft2(before)) * fft.rfft2(after), s=before.shape)
    reach = min(_REACH_PX, width // 3)
    near = alike[np.r_[-_AWRY_PX : _AWRY_PX + 1]][:, np.r_[4:reach, 1 - reach : -3]]
    chance = float(alike[4 * _AWRY_PX : height - 4 * _AWRY_PX].std())
    return float(near.max()) / chance if chance > 0 else 0.0


class VideoSet(MovieReader):
    """Parts of a recording as one movie."""

    def __init__(self, parts: Sequence[VideoReader]) -> None:
        self._parts = parts
        self.paths = [part.path for part in parts]
        each = [part.facts for part in parts]
        self._rows = np.cumsum([0, *(facts.n_frames for facts in each)]).tolist()
        lengths = [facts.n_frames if facts.n_places is None else facts.n_places for facts in each]
        self._places = np.cumsum([0, *lengths]).tolist()
        first, names = each[0], [path.name for path in self.paths]
        self.facts = FileFacts(
            self._rows[-1],
            first.fps,
            first.pixel_size_um,
            first.order,
            format=first.format,
            details={**first.details, "files": ", ".join(names)},
            simulated=any(facts.simulated for facts in each),
            lossy_codec=first.lossy_codec,
            n_places=self._places[-1],
        )
        told = say("sources.video-in-parts", name=names[0], n=len(names), last=names[-1])
        self.facts.warnings = [told, *(warning for facts in each for warning in facts.warnings)]

    def frames(self) -> Iterator[RawFrame]:
        for begins, part in zip(self._places, self._parts, strict=False):
            for frame in part.frames():
                yield frame._replace(place=begins + frame.place)

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for part, (begins, ends) in zip(self._parts, pairwise(self._rows), strict=True):
            inside = [row - begins for row in places if begins <= row < ends]
            if inside:
                yield from part.at(inside)

    def frame(self, place: int) -> Raw:
        for part, (begins, ends) in zip(self._parts, pairwise(self._places), strict=True):
            if begins <= place < ends:
                return part.frame(place - begins)
        raise NoSuchFrame(place)

    def close(self) -> None:
        _close(self._parts)
