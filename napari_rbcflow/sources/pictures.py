"""Folders with one picture a frame: which of them are one movie, in what order, and which are missing.

The names tell. Names that differ in one number alone are a movie, in the order of that number. Everything
else in the folder (another series or channel, a copy, a background, an average) is another movie or an odd
picture: that is told, and never read as a frame.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, median_low
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import tiff
from napari_rbcflow.sources.base import in_a_line
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, choose_series
from napari_rbcflow.sources.movie_set import open_all
from napari_rbcflow.sources.ndtiff import INDEX, NDTiffReader
from napari_rbcflow.sources.tiff_metadata import mm_of, read_metadata, take_elapsed, take_summary

_PLAIN = (".png", ".bmp", ".jpg", ".jpeg", ".pgm")
_FEW = 0.1  # of the frames: so few pictures beside them are no movie of their own
_NAMED = 5  # at most, of the odd pictures
_UNEVEN = 0.25  # by which times in names may differ from frame to frame


class Pictures(NamedTuple):
    """Pictures that are one movie, in order; their numbers, where these count frames."""

    files: list[Path]
    numbers: list[int] | None


def open_folder(folder: Path, series: int | None = None) -> MovieReader:
    """Return a reader for the movie in a folder; where there are several, for the chosen one."""
    if (folder / INDEX).is_file():
        return NDTiffReader(folder, series)
    files = pictures_in(folder)
    if not files:
        return _open_inside(folder, series)
    if len(files) == 1:
        return tiff.TiffReader(files[0], series) if tiff.is_tiff(files[0]) else PictureReader(folder, files)
    stacks = _stacks(files)
    if stacks:
        return _open_stacks(folder, files, stacks, series)
    found = sequences(files)
    if series is None and len(found) > 1 and sum(len(one.files) for one in found[1:]) <= _FEW * len(files):
        odd = [file.name for one in found[1:] for file in one.files]
        names = ", ".join(odd[:_NAMED]) + (" ..." if len(odd) > _NAMED else "")
        first, *_, last = found[0].files
        raise BadInput(
            "sources.folder-odd-files",
            folder=folder.name, names=names, frames=len(found[0].files), first=first.name, last=last.name,
        )  # fmt: skip
    chosen = found[choose_series(folder.name, [_title(one) for one in found], series)]
    return PictureReader(folder, chosen.files, chosen.numbers)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures and stacks of a folder."""
    endings = (*tiff.SUFFIXES, *_PLAIN)
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file()
    )


def _open_inside(folder: Path, series: int | None) -> MovieReader:
    """Return the movie in the one folder inside that holds any, as Micro-Manager's ``Pos0``."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    inside = [path for path in inside if (path / INDEX).is_file() or pictures_in(path)]
    if not inside:
        raise BadInput("sources.folder-empty", name=folder.name)
    inside = [path for _, path in sorted((_natural(path.name), path) for path in inside)]
    if len(inside) == 1:
        return open_folder(inside[0], series)
    chosen = choose_series(folder.name, [path.name for path in inside], series, apart=True)
    return open_folder(inside[chosen])


def _stacks(files: Sequence[Path]) -> list[Path]:
    """Return the files with several frames each."""
    found = []
    for file in files:
        if tiff.is_tiff(file):
            with tiff.open_tiff(file) as tif, tiff.quiet():
                if len(tif.pages) > 1:
                    found.append(file)
    return found


def _open_stacks(
    folder: Path, files: Sequence[Path], stacks: Sequence[Path], series: int | None
) -> MovieReader:
    """Return the movie in a folder of TIFF stacks: the only one, or the set that all of them are."""
    if len(stacks) < len(files):
        odd = next(file for file in files if file not in stacks)
        raise BadInput("sources.folder-of-both", folder=folder.name, stack=stacks[0].name, picture=odd.name)
    stacks = [path for _, path in sorted((_natural(path.name), path) for path in stacks)]
    if tiff.files_of_set(stacks[0]) >= {path.name for path in stacks}:
        return tiff.TiffReader(stacks[0], series, file_chooses=False)
    return open_all(stacks, folder.name, tiff.TiffReader, series)


def _title(one: Pictures) -> str:
    if len(one.files) == 1:
        return one.files[0].name
    return say("sources.title-pictures", first=one.files[0].name, last=one.files[-1].name, n=len(one.files))


# ------------------------------------------------------------------ names

_DIGITS = re.compile(r"(\d+)")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in _DIGITS.split(name.lower())]


def sequences(files: Sequence[Path]) -> list[Pictures]:
    """Return the movies that the names of some pictures tell apart, the longest first."""
    texts: dict[tuple[str, ...], list[tuple[tuple[str, ...], Path]]] = {}
    for file in files:
        parts = _DIGITS.split(file.name.lower())
        texts.setdefault(tuple(parts[0::2]), []).append((tuple(parts[1::2]), file))
    clocks = [
        pictures
        for text, named in texts.items()
        if (pictures := _by_clock(text, named) or _by_clock(*_parted(text, named)))
    ]
    timed = {file for one in clocks for file in one.files}
    named = {
        text: [(tuple(map(int, digits)), file) for digits, file in those if file not in timed]
        for text, those in texts.items()
    }
    found = [*clocks, *(one for those in _signed(named).values() if those for one in _split(sorted(those)))]
    found.sort(key=lambda one: (-len(one.files), _natural(one.files[0].name)))
    if len(found) > 1 and len(found[0].files) == 1:
        raise BadInput("sources.folder-unnumbered", folder=files[0].parent.name, names=_some(files))
    return found


_Named = list[tuple[tuple[int, ...], Path]]


def _by_clock(text: tuple[str, ...], named: Sequence[tuple[tuple[str, ...], Path]]) -> Pictures | None:
    """Return the movie of which the names tell the time of the day, or the seconds with their decimals.

    Where the minute or the second is full, the time goes on by as much as elsewhere; a run would begin anew.
    """
    columns = list(zip(*(digits for digits, _ in named), strict=True))
    wide = [len(set(map(len, column))) == 1 for column in columns]
    for first in range(len(columns)):
        times = columns[first : first + 3]
        is_time = len(times) == 3 and text[first + 1] == text[first + 2] and len(text[first + 1]) < 2
        is_time = is_time and all(
            wide[first + k] and len(column[0]) == 2 and int(max(column)) < (24, 60, 60)[k]
            for k, column in enumerate(times)
        )
        last = first + 2 if is_time else first
        fraction = last + 1 < len(columns) and wide[last + 1] and len(text[last + 1]) < 2
        fraction = fraction and (is_time or text[last + 1] == ".")
        others = [column for k, column in enumerate(columns) if not first <= k <= last + fraction]
        if not (is_time or fraction) or any(len(set(column)) > 1 for column in others):
            continue
        parts = sorted((tuple(map(int, digits[first : last + fraction + 1])), file) for digits, file in named)
        full = 10 ** len(columns[last + 1][0]) if fraction else 1
        seconds = (
            [(h * 60 + m) * 60 + s for (h, m, s, *_), _ in parts] if is_time else [p[0] for p, _ in parts]
        )
        numbers = [s * full + (p[-1] if fraction else 0) for s, (p, _) in zip(seconds, parts, strict=True)]
        steps = [b - a for a, b in pairwise(numbers)]
        carries = [
            step for step, (a, b) in zip(steps, pairwise(parts), strict=True) if a[0][:-1] != b[0][:-1]
        ]
        if carries and min(steps) > 0 and median_low(carries) <= 2 * median(steps):
            return Pictures([file for _, file in parts], numbers)
    return None


_COMPACT = re.compile(r"((?:19|20)\d{6})?([01]\d|2[0-3])([0-5]\d)([0-5]\d)(\d{3}|\d{6})?")


def _parted(
    text: tuple[str, ...], named: Sequence[tuple[tuple[str, ...], Path]]
) -> tuple[tuple[str, ...], list[tuple[tuple[str, ...], Path]]]:
    """Part a time of the day that is written without signs, as 20261130100059983, into its numbers."""
    columns = zip(*(digits for digits, _ in named), strict=True)
    found = [[_COMPACT.fullmatch(digits) for digits in column] for column in columns]
    times = [
        k for k, column in enumerate(found) if all(column) and len({one[0] for one in column if one}) > 1
    ]
    if len(times) != 1:
        return text, list(named)
    (k,) = times
    parts = [tuple(part for part in one.groups() if part) for one in found[k] if one]
    parted = [
        ((*digits[:k], *part, *digits[k + 1 :]), file)
        for (digits, file), part in zip(named, parts, strict=True)
    ]
    if len(set(map(len, parts))) > 1:
        return text, list(named)
    return (*text[: k + 1], *[""] * (len(parts[0]) - 1), *text[k + 1 :]), parted


def _signed(texts: Mapping[tuple[str, ...], _Named]) -> dict[tuple[str, ...], _Named]:
    """Join names that differ in the sign before a number: run-1, run0, run1; a dash in all is no sign."""
    bare = Counter((field, _without(text, field)) for text in texts for field in range(len(text) - 1))
    joined: dict[tuple[str, ...], _Named] = {}
    for text, named in texts.items():
        signs = []
        now = text
        for field in range(len(text) - 1):
            is_sign = bare[field, _without(text, field)] > 1
            signs.append(-1 if is_sign and text[field][-1:] in ("-", "−") else 1)
            now = _without(now, field) if is_sign else now
        joined.setdefault(now, []).extend(
            (tuple(sign * n for sign, n in zip(signs, numbers, strict=True)), file) for numbers, file in named
        )
    return joined


def _without(text: tuple[str, ...], field: int) -> tuple[str, ...]:
    """Return the text of a name without the sign before one of its numbers."""
    return (
        *text[:field],
        text[field].rstrip("+-−") if text[field][-1:] in "+-−" else text[field],
        *text[field + 1 :],
    )


def _split(named: _Named) -> Iterator[Pictures]:
    """Yield the movies among names that differ in numbers alone."""
    again = [k for k in range(1, len(named)) if named[k][0] == named[k - 1][0]]  # as 1 and 01
    yield from (Pictures([named[k][1]], None) for k in again)
    named = [one for k, one in enumerate(named) if k not in again]
    columns = list(zip(*(numbers for numbers, _ in named), strict=True))
    varying = [k for k, column in enumerate(columns) if len(set(column)) > 1]
    if not varying:
        yield Pictures([file for _, file in named], None)
        return
    counter = max(varying, key=lambda k: (len(set(columns[k])), k))
    if len(varying) == 1:
        yield from _lone(named, counter)
        return
    if len(set(columns[counter])) == len(named):
        by_counter = sorted(named, key=lambda one: one[0][counter])
        dense = max(columns[counter]) - min(columns[counter]) < 2 * len(named)
        if dense or by_counter == named:
            yield from _lone(by_counter, counter)
        else:
            yield Pictures([file for _, file in named], None)
        return
    groups: dict[tuple[int, ...], _Named] = {}
    for numbers, file in named:
        groups.setdefault((*numbers[:counter], *numbers[counter + 1 :]), []).append((numbers, file))
    if any(_is_even([numbers[counter] for numbers, _ in group]) for group in groups.values()):
        for group in groups.values():
            yield from _lone(group, counter)
    else:  # parts of a time of the day: they order the frames, and count none
        yield Pictures([file for _, file in named], None)


def _is_even(numbers: Sequence[int]) -> bool:
    """Tell whether numbers count something: all are as many steps apart, or a multiple of that."""
    steps = [b - a for a, b in pairwise(numbers)]
    return not steps or all(step % min(steps) == 0 for step in steps)


def _lone(named: _Named, counter: int) -> Iterator[Pictures]:
    """Yield a movie, and apart from it a picture whose number is far from all others."""
    while len(named) > 2:
        numbers = [one[0][counter] for one in named]
        if numbers[-1] - numbers[-2] > numbers[-2] - numbers[0] + len(named):
            yield Pictures([named.pop()[1]], None)
        elif numbers[1] - numbers[0] > numbers[-1] - numbers[1] + len(named):
            yield Pictures([named.pop(0)[1]], None)
        else:
            break
    yield Pictures([file for _, file in named], [numbers[counter] for numbers, _ in named])


def _some(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:2])


# ------------------------------------------------------------------ reading


class PictureReader(MovieReader):
    """Pictures in their order, one a frame."""

    def __init__(self, folder: Path, files: Sequence[Path], numbers: Sequence[int] | None = None) -> None:
        self._files = files
        self.facts = facts = FileFacts(
            len(files), format=say("sources.format-folder", kind=files[0].suffix[1:])
        )
        first: tuple[Any, ...] | None = None
        told: list[Mapping[str, Any] | None] = []
        for file in files:
            kind, mm = self._look(folder, file, first is None)
            told.append(mm)
            first = kind if first is None else first
            if kind != first:
                raise BadInput(
                    "sources.folder-frames-differ",
                    folder=folder.name,
                    first=files[0].name,
                    first_kind=_kind_text(*first),
                    other=file.name,
                    other_kind=_kind_text(*kind),
                )
        steps = _steps(numbers) if numbers else None
        if steps is not None:
            facts.take_places(np.cumsum([0, *steps]).tolist())
        summary, of_files = _metadata_txt(folder, facts)
        if of_files:
            told = [of_files.get(file.name) for file in files]
        take_elapsed(told, facts, folder.name, facts.places)
        take_summary(summary, facts, folder.name)

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            yield _read(self._files[place])

    def _look(
        self, folder: Path, file: Path, is_first: bool
    ) -> tuple[tuple[Any, ...], Mapping[str, Any] | None]:
        """Return shape and type of a picture, and what Micro-Manager says of it."""
        if not tiff.is_tiff(file):
            try:
                with warnings.catch_warnings(action="ignore"), Image.open(file) as picture:
                    if picture.format in ("JPEG", "MPO"):
                        self.facts.lossy_codec = "jpeg"
                    tiff.check_shape(file.name, (picture.height, picture.width))
                    return (picture.height, picture.width, _MODES.get(picture.mode, picture.mode)), None
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
                why = in_a_line(error)
                raise BadInput(
                    "sources.picture-unreadable", folder=folder.name, name=file.name, why=why
                ) from error
        with tiff.open_tiff(file) as tif, tiff.quiet():
            page = tif.pages.first
            ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
            if max(ends, default=0) > tif.filehandle.size:
                raise BadInput("sources.folder-file-cut", folder=folder.name, name=file.name)
            tiff.check_shape(file.name, page.shape)
            tiff.check_samples(file.name, page)
            inverted = page.photometric == 0
            self.facts.lossy_codec = self.facts.lossy_codec or tiff.lossy_in(page)
            if is_first:
                self.facts.inverted = inverted
                read_metadata(tif, self.facts, file.name)
                self.facts.places = self.facts.n_places = None  # of one frame
            kind = f"{page.dtype}, {say('sources.inverted')}" if inverted else str(page.dtype)
            return (*page.shape, kind), mm_of(page)


_MODES = {"L": "uint8", "P": "uint8", "1": "bool", "I;16": "uint16", "I;16B": "uint16", "I": "int32"}


def _read(file: Path) -> Raw:
    if tiff.is_tiff(file):
        return tiff.read_page(file)
    with Image.open(file) as picture:
        if picture.mode not in ("L", "LA", "RGB", "RGBA", "1", "F", "I", "I;16", "I;16B"):
            return np.asarray(picture.convert("RGB"))
        return np.asarray(picture)


def _steps(numbers: Sequence[int]) -> list[int]:
    """Return how many frames each picture is after the one before it, by their numbers."""
    apart = [b - a for a, b in pairwise(numbers)]
    usual = median(apart) if apart else 1
    # Milliseconds are rounded: 16, 17, 17.
    usual = fmean([step for step in apart if abs(step / usual - 1) <= _UNEVEN] or [usual])
    return [max(1, round(step / usual)) for step in apart]


def _metadata_txt(folder: Path, facts: FileFacts) -> tuple[object, dict[str, Mapping[str, Any]]]:
    """Return the summary, and what is said of each file, in Micro-Manager's ``metadata.txt``."""
    path = folder / "metadata.txt"
    if not path.is_file():
        return None, {}
    text = path.read_text("utf-8", "replace")
    for end in ("", "}", "}}"):  # it was stopped before its end
        try:
            told = json.loads(text.rstrip().rstrip(",") + end)
            break
        except (ValueError, RecursionError):
            continue
    else:
        facts.warnings.append(say("sources.metadata-unreadable", name=path.name))
        return None, {}
    if not isinstance(told, dict):
        return None, {}
    of_files: dict[str, Mapping[str, Any]] = {
        Path(str(one.get("FileName", key))).name: one
        for key, one in told.items()
        if isinstance(one, dict) and "ElapsedTime-ms" in one
    }
    return told.get("Summary"), of_files


def _kind_text(*kind: Any) -> str:
    return f"{' x '.join(map(str, kind[:-1]))} {kind[-1]}"
