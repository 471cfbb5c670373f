"""Labelled sequences in the layout in which Darrin et al. published theirs.

``dataset.csv`` (`sequence_name,label,size`; 0 tank-treading, 1 flipping, 2 unreliable) beside
``img/NAME.png``, each a strip of 31 x 31 crops; a folder of such folders (``train``, ``validation``,
``test``); or ``TankTreading`` and ``Flipping`` with one strip a sequence, already sampled to 20 frames.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import CROP_SIDE

TANK_TREADING, FLIPPING, UNRELIABLE = 0, 1, 2
SPLITS = ("train", "validation", "test")
_FOLDERS = {"TankTreading": TANK_TREADING, "Flipping": FLIPPING}
_EIGHT_BIT = ("L", "LA", "P", "1", "RGB", "RGBA")
_NAME = re.compile(r"^(?P<patient>[A-Za-z]+)(?P<date>\d+)_(?P<shear>\d+)s(?P<run>\d+)_(?P<cell>.+)$")


@dataclass(frozen=True, eq=False)
class LabelledSequence:
    """One labelled sequence.

    Attributes
    ----------
    name : str
        PATIENT+DATE_SHEARsRUN_ID in the published sets.
    label : int
        0 tank-treading, 1 flipping, 2 unreliable.
    crops : ndarray of uint8, shape (n, 31, 31)
    sampled : bool
        True where the set holds only some of the track's frames.
    composed : bool
        True where our own tracker cut it out of a composed movie (`training.composed`).
    """

    name: str
    label: int
    crops: NDArray[np.uint8]
    sampled: bool = False
    composed: bool = False

    @property
    def reliable(self) -> bool:
        return self.label != UNRELIABLE

    @property
    def named(self) -> bool:
        """Whether the name says patient, date and run, so that one can hold back what belongs together."""
        return _NAME.match(self.name) is not None

    @property
    def patient(self) -> str:
        """Letters before the date; the whole name where it is not of the published form."""
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
    def groups(self) -> tuple[str, str, str]:
        """Patient, date and acquisition: what may be held back."""
        return self.patient, self.date, self.acquisition


def refuse_unknown(names: Sequence[str], sequences: Sequence[LabelledSequence]) -> None:
    """Refuse names that are no patient, date or acquisition of the sequences, with `BadInput`."""
    for name in names:
        if not any(name in s.groups for s in sequences):
            known = ", ".join(sorted({s.acquisition for s in sequences})[:6])
            raise BadInput(
                f"{name} is no patient, date or acquisition of the data; it has {known} and so on."
            )


def read_dataset(folder: Path) -> list[LabelledSequence]:
    """Read the sequences of one dataset, in the order of ``dataset.csv`` or by name.

    Parameters
    ----------
    folder : Path
        With ``dataset.csv`` and ``img``, or with ``TankTreading`` and ``Flipping``.

    Returns
    -------
    list of LabelledSequence
        Never empty.

    Raises
    ------
    BadInput
        Where the folder, the table or a strip cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one that holds dataset.csv and img.")
    if (folder / "dataset.csv").is_file():
        return _read_table(folder)
    if all((folder / name).is_dir() for name in _FOLDERS):
        return _read_folders(folder)
    if any((folder / name / "dataset.csv").is_file() for name in SPLITS):
        raise BadInput(f"{folder} holds several sets; give one of them, for example {folder / 'test'}.")
    raise BadInput(f"{folder} has no dataset.csv; give a folder in the published layout.")


def choose_split(folder: Path, split: str | None = None) -> tuple[Path, str | None]:
    """Choose the set to judge: of several, the one asked for, or ``test``.

    Returns
    -------
    folder : Path
        That `read_dataset` takes.
    split : str or None
        Which it is; None where the folder is one set.

    Raises
    ------
    BadInput
        Where the split asked for is not there, or none is asked for and there is no ``test``.
    """
    folder = Path(folder)
    present = [name for name in SPLITS if (folder / name / "dataset.csv").is_file()]
    if (folder / "dataset.csv").is_file() or not present:
        if split is not None:
            raise BadInput(f"{folder} is not split into {', '.join(SPLITS)}; leave out --split.")
        return folder, None
    if split is None and "test" not in present:
        raise BadInput(f"{folder} has {', '.join(present)} but no test; name one with --split {present[-1]}.")
    split = split or "test"
    if split not in present:
        raise BadInput(f"{folder} has no {split}; it has {', '.join(present)}.")
    return folder / split, split


def read_splits(folder: Path) -> Mapping[str, list[LabelledSequence]]:
    """Read a dataset that may be split: by the names of its splits, or all under ``train``.

    Raises
    ------
    BadInput
        As `read_dataset`; and where there is a split but no ``train``.
    """
    folder = Path(folder)
    present = [name for name in SPLITS if (folder / name / "dataset.csv").is_file()]
    if not present:
        return {"train": read_dataset(folder)}
    if "train" not in present:
        raise BadInput(f"{folder} has {', '.join(present)} but no train; training needs it.")
    return {name: read_dataset(folder / name) for name in present}


def read_all(datasets: Sequence[Path]) -> dict[str, list[LabelledSequence]]:
    """Read several datasets, split or not, into ``train``, ``validation`` and ``test``; no empty sequence.

    Raises
    ------
    BadInput
        As `read_splits`; without a dataset, or where a sequence is in them twice.
    """
    if not datasets:
        raise BadInput("Give at least one dataset to train on.")
    parts: dict[str, list[LabelledSequence]] = {name: [] for name in SPLITS}
    seen: set[str] = set()
    for dataset in datasets:
        for name, sequences in read_splits(Path(dataset)).items():
            for sequence in sequences:
                if sequence.name in seen:
                    raise BadInput(f"{sequence.name} is in the datasets twice; give each sequence once.")
                seen.add(sequence.name)
                if len(sequence.crops):
                    parts[name].append(sequence)
    return parts


def refuse_unnamed(sequences: Sequence[LabelledSequence]) -> None:
    """Refuse to split by patient or run what does not say whose it is.

    Raises
    ------
    BadInput
        Else cells of one run would be learnt from and judged on.
    """
    for sequence in sequences:
        if not sequence.named:
            raise BadInput(
                f"{sequence.name} does not say patient, date and run, so none can be held back whole; "
                "name sequences PATIENT+DATE_SHEARsRUN_CELL, such as BG1017_10s02_33."
            )


def _read_table(folder: Path) -> list[LabelledSequence]:
    table = folder / "dataset.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"sequence_name", "label"} - set(reader.fieldnames or ())
            if missing:
                raise BadInput(
                    f"{table} has no column {sorted(missing)[0]}; it needs sequence_name and label."
                )
            rows = [(str(row["sequence_name"]), str(row["label"])) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table} is not a table of comma-separated values ({error}).") from error
    if not rows:
        raise BadInput(f"{table} lists no sequence.")
    sequences = []
    for name, label in rows:
        if not name or set(name) & set("/\\:"):
            raise BadInput(
                f"{table} names a sequence {name!r}; a name is that of a picture in img, without .png."
            )
        if label not in ("0", "1", "2"):
            raise BadInput(f"{table} gives {name} the label {label!r}; labels are 0, 1 and 2.")
        sequences.append(LabelledSequence(name, int(label), read_strip(folder / "img" / f"{name}.png")))
    _refuse_doubles(sequences, table)
    return sequences


def _read_folders(folder: Path) -> list[LabelledSequence]:
    sequences = [
        LabelledSequence(path.stem, label, read_strip(path), sampled=True)
        for name, label in _FOLDERS.items()
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    if not sequences:
        raise BadInput(f"{folder} holds no strip in TankTreading or Flipping.")
    _refuse_doubles(sequences, folder)
    return sequences


def _refuse_doubles(sequences: Sequence[LabelledSequence], where: Path) -> None:
    seen: set[str] = set()
    for sequence in sequences:
        if sequence.name in seen:
            raise BadInput(f"{where} names {sequence.name} twice; a sequence may count only once.")
        seen.add(sequence.name)


def read_strip(path: Path) -> NDArray[np.uint8]:
    """Read a strip of crops laid side by side.

    Returns
    -------
    ndarray of uint8, shape (n, 31, 31)

    Raises
    ------
    BadInput
        Where the file is missing, no picture, or not of 31 px high crops.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in _EIGHT_BIT:
                raise BadInput(
                    f"{path} is not a picture of 8 bits a pixel ({picture.mode}); save it as 8-bit grey."
                )
            strip = np.asarray(picture.convert("L"), dtype=np.uint8)
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing though the dataset lists it.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} is damaged or no picture ({error}).") from error
    height, width = strip.shape
    if height != CROP_SIDE or width == 0 or width % CROP_SIDE:
        raise BadInput(
            f"{path} is {width} x {height} px; a strip is {CROP_SIDE} px high and n x {CROP_SIDE} px wide."
        )
    return np.ascontiguousarray(strip.reshape(CROP_SIDE, -1, CROP_SIDE).transpose(1, 0, 2))
