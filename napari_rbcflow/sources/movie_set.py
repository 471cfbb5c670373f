"""A recording that was split into several files which do not say so, and which files are one.

Names that differ in numbers may be parts of a recording, or a day's runs. The picture tells: behind the last
frame of a part the same cells flow on in the first frame of the next, moved by a few pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
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

_NUMBERED = re.compile(r"(.*?)(?:(_X|@)|[ ._-]*)\(?(\d{1,6})\)?$")
_DIGITS = re.compile(r"\d+")
_FIRST = {"": (0, 1, 2), "@": (0, 1), "_X": (1, 2)}
"""The number of the first part, or of the second where the first has none. Andor's Solis writes ``run.tif``,
``run_X2.tif``, PCO's Camware ``run.tif``, ``run@0001.tif``, and both nothing else so."""
_SAME_RATE = 0.02  # by which rates that are measured, each in its part, may differ
_ENDS = 4  # frames of either part that are looked at
_REACH_PX, _AWRY_PX = 96, 2  # how far cells move between two frames, along the flow and across it
_LARGE_PX = 300_000  # of a picture that is looked at in half its size: five times as fast
_GOES_ON = 8.0  # standard deviations: 20 and more where the same cells flow on, 6.4 at most where they do not

Open = Callable[[Path], MovieReader]


class _Name(NamedTuple):
    prefix: str
    mark: str  # of a program that splits recordings
    number: int
    digits: str


def _name(path: Path) -> _Name:
    found = _NUMBERED.fullmatch(path.stem)
    return (
        _Name(path.stem, "", -1, "")
        if found is None
        else _Name(found[1], found[2] or "", int(found[3]), found[3])
    )


class _Part(NamedTuple):
    path: Path
    reader: MovieReader


def open_parts(path: Path, open_one: Open) -> MovieReader:
    """Return the reader of a file, with the other parts of its recording where it was split."""
    one = open_one(path)
    try:
        if not one.may_be_part or one.facts.n_frames < 2:
            return one
        files = _files_with(path)
        mark, numbered = _beside(path, files)
        if len({number for number, _ in numbered}) < len(numbered):
            return one
        parts, by_number = [_Part(path, one)], True
    except BaseException:
        one.close()
        raise
    try:
        for back in (True, False):
            while beside := _neighbour(parts[0 if back else -1].path, files, mark, back=back):
                other, surely = _another(beside[0], open_one), beside[1]
                if other is None:
                    break
                before, after = (other, parts[0]) if back else (parts[-1], other)
                if not _goes_on(before.reader, after.reader, mark, surely):
                    _close([other])
                    break
                parts = [other, *parts] if back else [*parts, other]
                by_number = by_number and not surely
        paths = [beside for _, beside in numbered]
        if by_number:
            first, last = paths.index(parts[0].path), paths.index(parts[-1].path)
            if mark and numbered[first][0] > _FIRST[mark][0]:
                start = numbered[first][0] - 1
                _refuse_missing(path, numbered[first][1], start if start > _FIRST[mark][0] else -1)
            if len(parts) > 1 or mark:
                _refuse_hole(numbered, last, parts, open_one, mark)
        return one if len(parts) == 1 else MovieSet(parts)
    except BaseException:
        _close(parts)
        raise


def open_all(files: Sequence[Path], folder: str, open_one: Open, series: int | None = None) -> MovieReader:
    """Return the reader of the recording in a folder of files; where there are several, the chosen one."""
    files = sorted(files, key=lambda path: (_name(path).prefix, _name(path).number, path.name))
    found: list[list[Path]] = []
    for _, group in groupby(files, key=lambda path: (_name(path).prefix, path.suffix.lower())):
        rest = [path for path in group if not any(path in parts for parts in found)]
        while rest:
            reader = open_parts(rest[0], open_one)
            parts = reader.paths if isinstance(reader, MovieSet) else [rest[0]]
            reader.close()
            found.append(parts)
            rest = [path for path in rest if path not in parts]
    titles = [
        one[0].name if len(one) == 1 else say("sources.title-parts", first=one[0].name, last=one[-1].name)
        for one in found
    ]
    return open_parts(found[choose_series(folder, titles, series, apart=True)][0], open_one)


def _files_with(path: Path) -> list[Path]:
    """Return the files of a folder, hidden ones left out but for the movie itself; there may be thousands."""
    with os.scandir(path.parent) as entries:
        return [
            path.parent / entry.name
            for entry in entries
            if (entry.name == path.name or not entry.name.startswith(".")) and entry.is_file()
        ]


def _beside(path: Path, files: Sequence[Path]) -> tuple[str, list[tuple[int, Path]]]:
    """Return the mark in the names of what may be parts of one recording, and these with their numbers."""
    mine = _name(path)
    found = [
        (name, other)
        for other in files
        if other.suffix.lower() == path.suffix.lower() and (name := _name(other)).prefix == mine.prefix
    ]
    mark = mine.mark if mine.digits else max((name.mark for name, _ in found), default="")
    return mark, sorted((name.number, other) for name, other in found if name.mark == mark or not name.digits)


def _neighbour(path: Path, files: Sequence[Path], mark: str, *, back: bool) -> tuple[Path, bool] | None:
    """Return the file that may be the part before or after one, and whether only its picture can show it.

    That is the one with the next number at the end of its name; else, where no mark says how parts are named,
    of those whose names differ in numbers alone (1of3, 0-19, the time of the day).
    """
    step, numbered = -1 if back else 1, _beside(path, files)[1]
    at = [other for _, other in numbered].index(path)
    if 0 <= at + step < len(numbered):
        one, two = sorted((numbered[at][0], numbered[at + step][0]))
        if _follows(one, two, mark):
            return numbered[at + step][1], False
    if mark:
        return None
    text = _DIGITS.sub("0", path.name.lower())
    named = [other for other in files if _DIGITS.sub("0", other.name.lower()) == text]
    alike = sorted(named, key=lambda other: (*map(int, _DIGITS.findall(other.name)), other.name))
    at = alike.index(path) + step
    return (alike[at], True) if 0 <= at < len(alike) else None


def _follows(number: int, following: int, mark: str) -> bool:
    return following == number + 1 or (number < 0 and following in _FIRST[mark])


def _another(path: Path, open_one: Open) -> _Part | None:
    with suppress(BadInput):
        return _Part(path, open_one(path))
    return None


def _close(parts: Sequence[_Part | None]) -> None:
    for part in parts:
        if part is not None:
            part.reader.close()


def _refuse_hole(
    numbered: Sequence[tuple[int, Path]], last: int, parts: Sequence[_Part], open_one: Open, mark: str
) -> None:
    """Refuse a recording of which a part between two others is missing."""
    if last + 1 == len(numbered) or _follows(numbered[last][0], numbered[last + 1][0], mark):
        return
    after = _another(numbered[last + 1][1], open_one)
    alike = after is not None and _alike(parts[-1].reader, after.reader)
    _close([after])
    if alike:
        follows = numbered[last][0] + 1 if numbered[last][0] >= 0 else _FIRST[mark][-1]
        _refuse_missing(parts[0].path, numbered[last + 1][1], follows)


def _refuse_missing(path: Path, like: Path, number: int) -> None:
    """Refuse for want of the part with that number, named like another; below 0 of the one without any."""
    name = _name(like)
    start, _, end = like.name.rpartition(name.digits)
    missing = f"{start}{number:0{len(name.digits)}d}{end}" if number >= 0 else f"{name.prefix}{like.suffix}"
    raise BadInput("sources.set-file-missing", name=path.name, missing=missing)


def _alike(one: MovieReader, other: MovieReader) -> bool:
    same = ("format", "order", "inverted")
    if not other.may_be_part or any(getattr(one.facts, n) != getattr(other.facts, n) for n in same):
        return False
    if not np.isclose(one.facts.fps or 0.0, other.facts.fps or 0.0, rtol=_SAME_RATE):
        return False
    return len({(image.shape, image.dtype) for reader in (one, other) for image in reader.at([0])}) == 1


def _goes_on(one: MovieReader, other: MovieReader, mark: str, surely: bool) -> bool:
    """Tell whether a file goes on where another ends; `surely` only where the picture shows it."""
    if not _alike(one, other):
        return False
    # Where so few cells are seen that they cannot tell, parts are as long as each other but for the last.
    unsure = not surely and (bool(mark) or one.facts.n_frames >= other.facts.n_frames > 1)
    if min(one.facts.n_frames, other.facts.n_frames) < _ENDS:
        return unsure
    images = [*_last(one), *other.at(range(_ENDS))]
    step = 2 if images[0].shape[0] * images[0].shape[1] > _LARGE_PX else 1
    frames = [_grey(image, step) for image in images]
    still = _median(frames)
    frames = [frame - still for frame in frames]
    before, between, after = list(pairwise(frames))[_ENDS - 2 : _ENDS + 1]
    if _moved(*between, step) >= _GOES_ON:
        return True
    return unsure and min(_moved(*before, step), _moved(*after, step)) < _GOES_ON


def _last(reader: MovieReader) -> list[Raw]:
    places = reader.facts.places or range(reader.facts.n_frames)
    return [reader.frame(place) for place in places[-_ENDS:]]


def _grey(image: Raw, step: int) -> NDArray[np.float32]:
    """Return the picture, `step` by `step` pixels in one."""
    grey = np.asarray(image if image.ndim == 2 else image[..., 1], np.float32)
    size = (grey.shape[1] // step, grey.shape[0] // step)
    return grey if step == 1 else np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))


def _median(frames: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the median of a few frames, by exchanging neighbours: ten times as fast as NumPy's."""
    rows = list(frames)
    for at in range(len(rows)):
        for k in range(at % 2, len(rows) - 1, 2):
            rows[k : k + 2] = [np.minimum(*rows[k : k + 2]), np.maximum(*rows[k : k + 2])]
    half = len(rows) // 2
    return np.asarray((rows[half - 1] + rows[half]) / 2, np.float32)


def _moved(before: NDArray[np.float32], after: NDArray[np.float32], step: int) -> float:
    """Return by how many standard deviations two pictures are alike when one is moved along the flow."""
    height, width = before.shape
    alike: NDArray[Any] = fft.irfft2(np.conj(fft.rfft2(before)) * fft.rfft2(after), s=before.shape)
    reach, awry, least = min(_REACH_PX // step, width // 3), _AWRY_PX // step, 4 // step
    near = alike[np.r_[-awry : awry + 1]][:, np.r_[least:reach, 1 - reach : 1 - least]]
    chance = float(alike[4 * awry : height - 4 * awry].std())
    return float(near.max()) / chance if chance > 0 else 0.0


class MovieSet(MovieReader):
    """Parts of a recording as one movie."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = [part.reader for part in parts]
        self.paths = [part.path for part in parts]
        each = [reader.facts for reader in self._parts]
        self._rows = np.cumsum([0, *(facts.n_frames for facts in each)]).tolist()
        lengths = [facts.n_frames if facts.n_places is None else facts.n_places for facts in each]
        self._places = np.cumsum([0, *lengths]).tolist()
        first, names = each[0], [path.name for path in self.paths]
        self.facts = FileFacts(
            self._rows[-1],
            first.fps,
            first.pixel_size_um,
            first.order,
            first.inverted,
            first.format,
            details={**first.details, "files": ", ".join(names)},
            simulated=any(facts.simulated for facts in each),
            lossy_codec=first.lossy_codec,
            n_places=self._places[-1],
            pixel_ratio=first.pixel_ratio,
        )
        told = say("sources.movie-in-parts", name=names[0], n=len(names), last=names[-1])
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
        for part in self._parts:
            part.close()
