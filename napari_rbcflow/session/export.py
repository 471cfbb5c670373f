"""Reviewed tracks as a data set in the layout in which Darrin and others published theirs.

``dataset.csv`` (`sequence_name,label,size`; 0 tank-treading, 1 flipping, 2 unreliable) and ``img/NAME.png``,
each a strip of a track's crops. A name says whose cell it is: PATIENT+DATE_SHEARsRUN_CELL, such as
``BG20231017_10s02_1207``. Frames with another cell in the crop are left out, as they were for the networks.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.session.crops import CropReader, CropSequence
from napari_rbcflow.session.review import Review
from napari_rbcflow.session.schema import read_run
from napari_rbcflow.types import CROP_SIDE, LEAST_ALONE, Label

LABELS = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
"""In the order of their numbers in ``dataset.csv``."""
COLUMNS = ("sequence_name", "label", "size")
_NOBODY = "X"


@dataclass(frozen=True)
class Exported:
    """What was written: sequences by label, in the order of `LABELS`, and cells on which persons tie."""

    labels: tuple[int, int, int]
    ties: int


def export_reviewed(folders: Sequence[Path], out: Path) -> Exported:
    """Write the reviewed tracks of sessions as a data set.

    Parameters
    ----------
    folders : sequence of Path
        Sessions, each once.
    out : Path
        Folder to create; must not exist.

    Raises
    ------
    BadInput
        For a session that goes on or is given twice, and where nobody checked a cell. Nothing is left behind.
    RunFailed
        Where a session is damaged, or the disk is full.
    """
    out = Path(out)
    given = [(Path(folder), read_run(Path(folder))) for folder in folders]
    judged: dict[int, Path] = {}
    for folder, _ in given:
        # As for a calibration: the same judgements are the same movie, whenever it was analysed.
        if (before := judged.setdefault(Review(folder).seed, folder)) is not folder:
            raise BadInput("session.export-twice", folder=folder, first=before)
    names = _acquisitions([run for _, run in given])
    rows: list[tuple[str, int, int]] = []
    ties = 0
    with new_folder(out):
        (out / "img").mkdir(parents=True)
        for (folder, run), name in zip(given, names, strict=True):
            reader = CropReader(folder / "crops.zarr")
            alone = bool(run["parameters"].get("leave_out_intruded", True))
            for cell, said in sorted(Review(folder).together.items()):
                label = _of_most(said)
                if label is None:
                    ties += 1
                    continue
                crops = _shown(_sequence(reader, folder, cell), alone)
                rows.append((f"{name}_{cell}", LABELS.index(label), len(crops)))
                strip = np.ascontiguousarray(crops.transpose(1, 0, 2)).reshape(CROP_SIDE, -1)
                Image.fromarray(strip).save(out / "img" / f"{name}_{cell}.png")
        if not rows:
            raise BadInput("session.export-of-nothing")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
        (out / "dataset.csv").write_text(text.getvalue(), encoding="utf-8")
    counts = Counter(label for _, label, _ in rows)
    return Exported((counts[0], counts[1], counts[2]), ties)


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Make a folder that must not exist; nothing is left of it where what fills it fails."""
    if out.exists():
        raise BadInput("ring.exists", path=out)
    try:
        yield
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise RunFailed("session.export-not-written", path=out, why=error.strerror or error) from error
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _of_most(said: Sequence[str]) -> Label | None:
    """Return the label that most persons gave; None where two have as many."""
    (label, most), *others = Counter(said).most_common()
    return None if others and others[0][1] == most else Label(label)


def _sequence(reader: CropReader, folder: Path, cell: int) -> CropSequence:
    try:
        return reader.sequence(cell)
    except KeyError:
        raise RunFailed("session.crops-missing", cell=cell, folder=folder) from None


def _shown(sequence: CropSequence, alone: bool) -> NDArray[np.uint8]:
    """Return the crops that the networks saw, as `Track.crops_alone` does."""
    kept = ~sequence.intruded
    return sequence.crops[kept] if alone and kept.sum() >= LEAST_ALONE else sequence.crops


def _acquisitions(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a name for each run: patient, date, shear rate and which run of that patient and day it is."""
    patients: dict[str, str] = {}
    for run in runs:
        patient = str(run.get("patient") or "")
        if patient not in patients:
            name = _letters(patient)
            while name in patients.values():  # two patients whose names have the same letters
                name += _NOBODY
            patients[patient] = name
    begin = []
    for run in runs:
        shear = round(float(run["parameters"].get("shear_rate_per_s") or 10))
        date = re.sub(r"\D", "", str(run["started"])[:10])
        begin.append(f"{patients[str(run.get('patient') or '')]}{date}_{shear}s")
    order = sorted(range(len(runs)), key=lambda at: str(runs[at]["started"]))
    seen: Counter[str] = Counter()
    names = [""] * len(runs)
    for at in order:
        seen[begin[at]] += 1
        names[at] = f"{begin[at]}{seen[begin[at]]:02d}"
    return names


def _letters(patient: str) -> str:
    """Return a name of letters only, as the date follows it: accents go, digits become letters."""
    plain = unicodedata.normalize("NFKD", patient).encode("ascii", "ignore").decode()
    spelt = "".join(chr(ord("A") + int(sign)) if sign.isdigit() else sign for sign in plain)
    return re.sub(r"[^A-Za-z]", "", spelt) or _NOBODY
