"""What napari asks to open a path: sessions, and the movies that it does not read itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import RbcflowError, sentence_of
from napari_rbcflow.session.label_edits import ChangeLog
from napari_rbcflow.session.reader import open_session
from napari_rbcflow.session.schema import RUN_FILE as RUN_NAME
from napari_rbcflow.sources.lazy import open_frames
from napari_rbcflow.sources.movie import ring_of
from napari_rbcflow.widgets.files.session_layers import LayerData, image_layer, layers_of, movie_of
from napari_rbcflow.widgets.settings.remembered import load_settings

Reader = Callable[[str | Sequence[str]], list[Any]]
NO_LAYER: list[Any] = [(None,)]
"""How a reader tells napari that it has dealt with a path, and that there is nothing to add."""


def session_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader for a session's folder, its ``run.json`` or its ring; None for anything else."""
    one = _only(path)
    if one is None:
        return None
    if one.name == RUN_NAME or (one / RUN_NAME).is_file():
        return _told(_read_session)
    if one.is_dir() and ring_of(one) is not None:
        return _told(_read_movie)
    return None


def movie_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader for a movie file, a frame at a time; None for several paths."""
    one = _only(path)
    return None if one is None or one.is_dir() else _told(_read_movie)


def _read_session(path: Path) -> list[LayerData]:
    session = open_session(path.parent if path.name == RUN_NAME else path)
    return layers_of(
        session,
        movie_of(session),
        by_hand=ChangeLog(session.folder).labels(),
        show_unreliable=load_settings().show_unreliable,
    )


def _read_movie(path: Path) -> list[LayerData]:
    name = path.parent.name if path.name == "frames.zarr" else path.name
    return [image_layer(open_frames(path), name)]


def _told(read: Callable[[Path], list[LayerData]]) -> Reader:
    """Make a reader that tells a person in one sentence what is wrong with a path."""

    def reader(path: str | Sequence[str]) -> list[Any]:
        one = _only(path)
        assert one is not None  # asked before
        try:
            return read(one)
        except (RbcflowError, OSError) as error:
            if not _in_a_window():
                raise
            # napari 0.9.2 would put its own words, and a traceback, in the place of an error's sentence.
            from napari.utils.notifications import show_error

            show_error(sentence_of(error))
            return NO_LAYER

    return reader


def _only(path: str | Sequence[str]) -> Path | None:
    if isinstance(path, str):
        return Path(path)
    return Path(path[0]) if len(path) == 1 else None


def _in_a_window() -> bool:
    from napari import current_viewer

    return current_viewer() is not None
