"""The movies of a batch: from paths, patterns and lists to one setting each."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline.analysis import RING_SECONDS
from napari_rbcflow.pipeline.batch_folder import COLUMNS, Row, absolute, in_store, local_path
from napari_rbcflow.pipeline.settings import RunSettings
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.session import Calibration, RunRecord, spreadsheet_rows
from napari_rbcflow.sources import check_settings
from napari_rbcflow.version import __version__


@dataclass(frozen=True)
class BatchMovie:
    """One movie of a batch."""

    movie: str  # as it was given
    address: str  # by which any process finds it
    settings: RunSettings
    fps: float | None = None
    pixel_size_um: float | None = None
    series: int | None = None
    calibration: bytes = b""  # what the laboratory's file holds: a worker elsewhere may not have the file
    columns: Mapping[str, str] = field(default_factory=dict)  # of a person's list, copied into the table

    @cached_property
    def key(self) -> str:
        """What names it among the movies of a batch."""
        return hashlib.sha256(
            f"{self.address}\n{self.series}".encode("utf-8", "surrogateescape")
        ).hexdigest()[:24]

    @cached_property
    def settings_hash(self) -> str:
        """The SHA-256 of all settings that differ from the usual ones, and of what goes into the record.

        The device is not among them. As only what differs counts, a setting that a later version adds does
        not make every movie look new.
        """
        usual = RunSettings()
        told: dict[str, Any] = {
            one.name: getattr(self.settings, one.name)
            for one in fields(RunSettings)
            if getattr(self.settings, one.name) != getattr(usual, one.name)
            and one.name not in ("device", "run_record", "calibration")
        }
        told["record"] = dict(self.settings.run_record.values)
        told["calibration"] = hashlib.sha256(self.calibration).hexdigest() if self.calibration else ""
        told |= {"fps": self.fps, "pixel_size_um": self.pixel_size_um, "series": self.series}
        # What is off where it is usually on differs as well.
        told = {name: v for name, v in told.items() if v or v is False}
        text = json.dumps(told, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()

    def row(self, status: str, reason: str = "") -> Row:
        """Return its row of the table, without results."""
        return {
            "key": self.key,
            "movie": self.movie,
            "status": status,
            "reason": reason,
            "session": "",
            "patient": self.settings.patient,
            "sample": self.settings.sample,
            "record": dict(self.settings.run_record.values),
            "columns": dict(self.columns),
            "settings_hash": self.settings_hash,
            "version": __version__,
        }


def list_movies(
    movies: str | Path | Iterable[str | Path],
    *,
    fps: float | None = None,
    pixel_size_um: float | None = None,
    series: int | None = None,
    set_flow: SetFlow | None = None,
    run_record: RunRecord | None = None,
    calibration: str | Path | None = None,
    **settings: Any,
) -> list[BatchMovie]:
    """Return the movies that paths, patterns and lists (``.csv``) name, each once, in their order.

    The settings are those of `analyze`; a column of a list that has the name of a setting, or of a field of
    the run's record, goes before. BadInput names the file and the line where a list is wrong.
    """
    words = [movies] if isinstance(movies, (str, Path)) else list(movies)
    told = b""
    if calibration is not None:
        Calibration.read(calibration)
        told = Path(calibration).read_bytes()
    usual = settings | {
        "set_flow": set_flow or SetFlow(),
        "run_record": run_record or RunRecord(),
        "fps": fps,
        "pixel_size_um": pixel_size_um,
        "series": series,
    }
    found: dict[str, BatchMovie] = {}
    for word in map(str, words):
        is_list = word.lower().endswith(".csv")
        for line, text, columns in _rows(word) if is_list else [(0, word, {})]:
            try:
                given = _settings(columns, usual)
                for movie in _matching(text, word if is_list else ""):
                    one = _movie(movie if glob.has_magic(text) else text, movie, given, told)
                    same = found.setdefault(one.key, one)
                    if (same.settings_hash, same.columns) != (one.settings_hash, one.columns):
                        raise BadInput("pipeline.batch-twice", movie=movie)
            except BadInput as error:
                if not is_list:
                    raise
                raise BadInput("pipeline.batch-list-line", file=word, line=line, why=error) from None
    if not found:
        raise BadInput("pipeline.batch-nothing")
    return list(found.values())


def _movie(movie: str, at: str, given: Mapping[str, Any], calibration: bytes) -> BatchMovie:
    rest: dict[str, Any] = {"background": "movie", "ring_seconds": RING_SECONDS, **given}
    of_movie = {name: rest.pop(name) for name in ("fps", "pixel_size_um", "series", "columns")}
    check_settings(fps=of_movie["fps"], pixel_size_um=of_movie["pixel_size_um"])
    settings = RunSettings(**rest)
    return BatchMovie(movie, absolute(at), settings, calibration=calibration, **of_movie)


def _matching(text: str, of_list: str) -> list[str]:
    """Return where the movies are that a text names; in a list, paths start where the list is, else here."""
    path = local_path(text)
    if path is None:
        if not glob.has_magic(text):
            return [text]
        store, at = in_store(text)
        found = [store.unstrip_protocol(name) for name in sorted(store.glob(at))]
    else:
        home = local_path(of_list) if of_list else None
        places = [path] if home is None else [home.parent / path, path]
        found = next(filter(None, map(_glob, places)), [])
        if not found and not glob.has_magic(text):
            found = [str(places[0])]  # it fails alone
    if not found:
        raise BadInput("pipeline.batch-no-match", pattern=text)
    return found


def _glob(path: Path) -> list[str]:
    """Return what is there under a path or a pattern; a list that lies beside movies is none."""
    if path.exists():
        return [str(path)]
    found = glob.glob(str(path), recursive=True)  # noqa: PTH207
    return sorted(one for one in found if not one.lower().endswith(".csv"))


# ------------------------------------------------------------------ lists


def _rows(word: str) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Return line, movie and other columns of each row of a list: from Excel, in any order of columns."""
    try:
        path = local_path(word)
        if path is None:
            store, at = in_store(word)
            data = store.cat_file(at)
        else:
            data = path.read_bytes()
        sheet = spreadsheet_rows(data)
        names = next(sheet, (0, []))[1]
        known = [name.casefold() for name in names]
        if "movie" not in known:
            raise BadInput("pipeline.batch-list-columns", file=word)
        if twice := next((name for k, name in enumerate(known) if name and name in known[:k]), ""):
            raise BadInput("pipeline.batch-list-column-twice", file=word, column=twice)
        if ours := next((name for name in known if name in _OURS or name.startswith("record_")), ""):
            raise BadInput("pipeline.batch-list-column-ours", file=word, column=ours)
        at_movie, empty = known.index("movie"), True
        names = [low if low in _KNOWN else name for low, name in zip(known, names, strict=True)]
        for line, row in sheet:
            cells = row + [""] * len(names)
            if not cells[at_movie]:
                continue
            empty = False
            yield line, cells[at_movie], dict(zip(names, cells, strict=False))
    except (OSError, UnicodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput("pipeline.batch-list-unreadable", file=word, why=why) from None
    if empty:
        raise BadInput("pipeline.batch-list-empty", file=word)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _choice(*choices: str) -> Callable[[str], str]:
    return lambda text: choices[choices.index(text)]


def _yes_or_no(text: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text.casefold()]


_KNOWN: dict[str, Callable[[str], Any]] = {
    "patient": str,
    "sample": str,
    "fps": _number,
    "pixel_size_um": _number,
    "series": int,
    "device": _choice("auto", "cpu", "cuda"),
    "background": _choice("movie", "sliding"),
    "flow": _choice("left-to-right", "right-to-left"),
    "rotate": int,
    "leave_out_intruded": _yes_or_no,
    "least_frames": int,
    "interval": str,
    "shear_rate": _number,
    "focus_height_um": _number,
}
"""The settings that a list may hold, and how each is read."""
_OURS = set(COLUMNS) - set(_KNOWN) - {"movie", "date"}
"""Columns of the table that no list may hold: what it says of a movie would pass for what was measured."""
_FLOW = {"shear_rate": "shear_rate_per_s", "focus_height_um": "focus_height_um"}


def _settings(columns: Mapping[str, str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a row; what is none, such as a date, stays a column of the table."""
    given: dict[str, Any] = {}
    for name, text in columns.items():
        if name in _KNOWN and text:
            try:
                given[name] = _KNOWN[name](text)
            except (ValueError, KeyError):
                raise BadInput("pipeline.batch-list-value", value=text, column=name) from None
    flow = {_FLOW[name]: given.pop(name) for name in list(given) if name in _FLOW}
    record: RunRecord = usual["run_record"]
    known = {one.name for one in record.template.fields}
    own = {name.casefold(): text for name, text in columns.items() if name.casefold() in known and text}
    rest = {name: text for name, text in columns.items() if name.casefold() not in (*_KNOWN, *known, "movie")}
    return {
        **usual,
        **given,
        "set_flow": replace(usual["set_flow"], **flow),
        "run_record": record.template.record({**record.values, **own}) if own else record,
        "columns": rest,
    }
