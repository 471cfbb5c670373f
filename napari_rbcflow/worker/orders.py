"""What a worker is asked to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_rbcflow.run.settings import RunSettings
from napari_rbcflow.sources.base import FrameSource


@dataclass(frozen=True)
class Camera:
    """A live source.

    Attributes
    ----------
    spec : str
        As after ``--camera``.
    options : mapping
        Keyword arguments of `sources.opening.open_source`; what is left out, the source decides.
    """

    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> FrameSource:
        """Return the source, not yet open.

        Raises
        ------
        BadInput
        """
        from napari_rbcflow.sources.factory import open_source

        return open_source(self.spec, **self.options)


@dataclass(frozen=True)
class MovieFile:
    """A recorded movie.

    Attributes
    ----------
    path : Path
    fps, pixel_size_um : float or None
        Override what the file says.
    """

    path: Path
    fps: float | None = None
    pixel_size_um: float | None = None

    def make(self) -> FrameSource:
        """Return the source, not yet open.

        Raises
        ------
        BadInput
        """
        from napari_rbcflow.sources.movie import open_movie

        return open_movie(self.path, fps=self.fps, pixel_size_um=self.pixel_size_um)


@dataclass(frozen=True)
class Order:
    """One run: from where, into which folder, and how.

    Attributes
    ----------
    source : Camera or MovieFile
    folder : Path
        The session folder; must not exist.
    settings : RunSettings
    """

    source: Camera | MovieFile
    folder: Path
    settings: RunSettings
