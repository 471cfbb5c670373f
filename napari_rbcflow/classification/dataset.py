"""Labelled sequences in the layout in which Darrin et al. published theirs.

``dataset.csv`` (`sequence_name,label,size`; 0 tank-treading, 1 flipping, 2 unreliable) beside
``img/NAME.png``, each a strip of 31 x 31 crops; a folder of such folders (``train``, ``validation``,
``test``); or ``TankTreading`` and ``Flipping`` with one strip a sequence, already sampled to 20 frames.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import CROP_SIDE

TANK_TREADING, FLIPPING, UNRELIABLE = 0, 1, 2
LABELS = ("tank-treading", "flipping", "unreliable")
SPLITS = ("train", "validation", "test")
_FOLDERS = {"TankTreading": TANK_TREADING, "Flipping": FLIPPING}
_EIGHT_BIT = ("L", "LA", "P", "1", "RGB", "RGBA")
_NAME = re.compile(r"^(?P<patient>[A-Za-z]+)(?P<date>\d+)_(?P<shear>\d+)s(?P<run>\d+)_(?P<cell>.+)$")


@dataclass(frozen=True, eq=False)
class LabelledSequence:
    """One labelled sequence of crops, uint8 (n, 31, 31)."""

    name: str  # PATIENT+DATE_SHEARsRUN_ID in the published sets
    label: int
    crops: NDArray[np.uint8]
    sampled: bool = False  # the set holds only some of the track's frames
    composed: bool = False  # our own tracker cut it out of a composed movie (`training.composed`)

    @property
    def reliable(self) -> bool:
        return self.label != UNRELIABLE

    @property
    def named(self) -> bool:
        """Whether the name says patient, date and run."""
        return _NAME.match(self.name) is not None

    @property
    def patient(self) -> str:
        """Letters before the date; the whole name if it is not of the published form."""
        match = _NAME.match(self.name)
        return match["patient"] if match else self.name

    @property
    def acquisition(self) -> str:
        """Patient, date, shear and run: the name without the cell."""
        match = _NAME.match(self.name)
        return self.name[: match.start("cell") - 1] if match else self.name

    @property
    def date(self) -> str:
        match = _NAME.match(self.name)
        return match["patient"] + match["date"] if match else self.name

    @property
    def cell(self) -> str:
        """The name of the labelled cell, also for its tracks in composed movies."""
        return self.name.split("~")[0]

    @property
    def groups(self) -> tuple[str, str, str]:
        """Patient, date and acquisition: what may be held back."""
        return self.patient, self.date, self.acquisition


def refuse_unknown(names: Sequence[str], sequences: Sequence[LabelledSequence]) -> None:
    """Refuse names that are not a patient, date or acquisition of the sequences."""
    for name in names:
        if not any(name in s.groups for s in sequences):
            known = ", ".join(sorted({s.acquisition for s in sequences})[:6])
            raise BadInput("classification.unknown-group", name=name, known=known)


def partition(
    sequences: Sequence[LabelledSequence], names: Sequence[str]
) -> tuple[list[LabelledSequence], list[LabelledSequence]]:
    """Split into the sequences of the named patients, dates and acquisitions, and the others."""
    chosen = set(names)
    named = [s for s in sequences if chosen & set(s.groups)]
    return named, [s for s in sequences if not chosen & set(s.groups)]


def read_dataset(folder: Path) -> list[LabelledSequence]:
    """Read the sequences of one dataset, at least one, in the order of ``dataset.csv`` or by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput("classification.dataset-not-a-folder", folder=folder)
    if (folder / "dataset.csv").is_file():
        return _read_table(folder)
    if all((folder / name).is_dir() for name in _FOLDERS):
        return _read_folders(folder)
    if splits_in(folder):
        raise BadInput("classification.dataset-of-several-sets", folder=folder, example=folder / "test")
    raise BadInput("classification.dataset-without-table", folder=folder)


def splits_in(folder: Path) -> list[str]:
    return [name for name in SPLITS if (folder / name / "dataset.csv").is_file()]


def choose_split(folder: Path, split: str | None = None) -> tuple[Path, str | None]:
    """Choose the set to judge: of several, the one asked for, or ``test``.

    Parameters
    ----------
    folder : Path
    split : {'train', 'validation', 'test'}, optional

    Returns
    -------
    folder : Path
        One set, in the published layout.
    split : str or None
        Which set it is; None if the folder is one set.

    Raises
    ------
    BadInput
        If the split asked for is not there, or if none is asked for and there is no ``test``.
    """
    folder = Path(folder)
    present = splits_in(folder)
    if (folder / "dataset.csv").is_file() or not present:
        if split is not None:
            raise BadInput("classification.dataset-not-split", folder=folder, splits=", ".join(SPLITS))
        return folder, None
    sets = ", ".join(present)
    if split is None and "test" not in present:
        raise BadInput("classification.dataset-without-test", folder=folder, sets=sets, example=present[-1])
    split = split or "test"
    if split not in present:
        raise BadInput("classification.dataset-without-split", folder=folder, sets=sets, split=split)
    return folder / split, split


def read_all(datasets: Sequence[Path]) -> dict[str, list[LabelledSequence]]:
    """Read datasets, split or not, into ``train``, ``validation`` and ``test``; drop empty sequences."""
    if not datasets:
        raise BadInput("classification.no-dataset")
    parts: dict[str, list[LabelledSequence]] = {name: [] for name in SPLITS}
    seen: set[str] = set()
    for folder in map(Path, datasets):
        present = splits_in(folder)
        if present and "train" not in present:
            raise BadInput("classification.dataset-without-train", folder=folder, sets=", ".join(present))
        read = {name: read_dataset(folder / name) for name in present} or {"train": read_dataset(folder)}
        for name, sequences in read.items():
            for sequence in sequences:
                if sequence.name in seen:
                    raise BadInput("classification.sequence-in-two-datasets", name=sequence.name)
                seen.add(sequence.name)
                if len(sequence.crops):
                    parts[name].append(sequence)
    return parts


def refuse_unnamed(sequences: Sequence[LabelledSequence]) -> None:
    """Refuse to hold back from what does not say whose it is: cells of one run would train and judge."""
    for sequence in sequences:
        if not sequence.named:
            raise BadInput("classification.sequence-unnamed", name=sequence.name)


def _read_table(folder: Path) -> list[LabelledSequence]:
    table = folder / "dataset.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"sequence_name", "label"} - set(reader.fieldnames or ())
            if missing:
                raise BadInput("classification.table-without-column", table=table, column=min(missing))
            rows = [(str(row["sequence_name"]), str(row["label"])) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput("classification.table-not-csv", table=table, why=error) from error
    if not rows:
        raise BadInput("classification.table-empty", table=table)
    sequences = []
    for name, label in rows:
        if not name or set(name) & set("/\\:"):
            raise BadInput("classification.table-bad-name", table=table, name=name)
        if label not in ("0", "1", "2"):
            raise BadInput("classification.table-bad-label", table=table, name=name, label=label)
        sequences.append(LabelledSequence(name, int(label), read_strip(folder / "img" / f"{name}.png")))
    return _once_each(sequences, table)


def _read_folders(folder: Path) -> list[LabelledSequence]:
    sequences = [
        LabelledSequence(path.stem, label, read_strip(path), sampled=True)
        for name, label in _FOLDERS.items()
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    if not sequences:
        raise BadInput("classification.folders-empty", folder=folder)
    return _once_each(sequences, folder)


def _once_each(sequences: list[LabelledSequence], file: Path) -> list[LabelledSequence]:
    seen: set[str] = set()
    for sequence in sequences:
        if sequence.name in seen:
            raise BadInput("classification.sequence-listed-twice", file=file, name=sequence.name)
        seen.add(sequence.name)
    return sequences


def read_strip(path: Path) -> NDArray[np.uint8]:
    """Read a strip of crops laid side by side, as uint8 (n, 31, 31)."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in _EIGHT_BIT:
                raise BadInput("classification.strip-not-8-bit", path=path, mode=picture.mode)
            strip = np.asarray(picture.convert("L"), dtype=np.uint8)
    except FileNotFoundError as error:
        raise BadInput("classification.strip-missing", path=path) from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput("classification.strip-damaged", path=path, why=error) from error
    height, width = strip.shape
    if height != CROP_SIDE or width == 0 or width % CROP_SIDE:
        raise BadInput(
            "classification.strip-wrong-size", path=path, width=width, height=height, side=CROP_SIDE
        )
    return np.ascontiguousarray(strip.reshape(CROP_SIDE, -1, CROP_SIDE).transpose(1, 0, 2))
