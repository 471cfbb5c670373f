"""The cameras that can be chosen, and what each can be asked for. One line for a new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_OF_ANY_CAMERA = frozenset({"exposure_ms", "fps", "pixel_size_um"})
_OF_MICRO_MANAGER = _OF_ANY_CAMERA | {"binning", "roi", "pixel_type"}


@dataclass(frozen=True)
class CameraChoice:
    """One entry of the list.

    Attributes
    ----------
    name : str
        For a person.
    spec : str
        As after ``--camera``; empty where a file is to be chosen.
    options : frozenset of str
        What it can be asked for, as `sources.opening.open_source` names it.
    files : str
        What the file dialogue shows; empty where no file is needed.
    file_words : str
        What the field for the file is called.
    endings : frozenset of str
        Of the files that are meant; empty stands for all that no other choice names.
    folders : bool
        Whether the file may be a folder.
    """

    name: str
    spec: str = ""
    options: frozenset[str] = _OF_ANY_CAMERA
    files: str = ""
    file_words: str = ""
    endings: frozenset[str] = frozenset()
    folders: bool = False


CHOICES: tuple[CameraChoice, ...] = (
    CameraChoice(
        "Simulated chamber",
        "simulated",
        _OF_ANY_CAMERA | {"seed", "tank_fraction", "cells_per_frame"},
    ),
    CameraChoice("DemoCamera (Micro-Manager's test camera)", "demo", _OF_MICRO_MANAGER),
    CameraChoice(
        "Camera with a Micro-Manager configuration",
        options=_OF_MICRO_MANAGER | {"mm_path"},
        files="Micro-Manager configurations (*.cfg);;All files (*)",
        file_words="Configuration",
        endings=frozenset({".cfg"}),
    ),
    CameraChoice("Micro-Manager that is already open", "running", _OF_MICRO_MANAGER | {"port"}),
    CameraChoice(
        "Movie file, played as a camera",
        options=frozenset({"fps", "pixel_size_um"}),
        files="Movies (*.avi *.tif *.tiff *.zarr *.mp4);;All files (*)",
        file_words="Movie",
        folders=True,
    ),
)


def choice_of(spec: str) -> CameraChoice:
    """Return the choice that what stands after ``--camera`` belongs to."""
    for choice in CHOICES:
        if choice.spec == spec:
            return choice
    ending = Path(spec).suffix.lower()
    with_files = [choice for choice in CHOICES if choice.files]
    return next((c for c in with_files if ending in c.endings), with_files[-1])
