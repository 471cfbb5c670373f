"""What napari opens and saves: sessions, movies, cells, the sample."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import napari_rbcflow
from napari_rbcflow.errors import BadInput, RbcflowError, sentence_of
from napari_rbcflow.pipeline import busy
from napari_rbcflow.sentences import say
from napari_rbcflow.session import RUN_FILE as RUN_NAME
from napari_rbcflow.session import ChangeLog, open_session
from napari_rbcflow.sources import open_frames, ring_of
from napari_rbcflow.types import DEFAULT_PIXEL_SIZE_UM, SIMULATED_MARK, Label
from napari_rbcflow.widgets.layers import (
    METADATA,
    OTHERS,
    LayerData,
    axes_of,
    group_colours,
    group_values,
    hide_others,
    image_layer,
    layers_of,
    movie_of,
    session_layers,
)
from napari_rbcflow.widgets.remembered import PLUGIN, load_settings

if TYPE_CHECKING:
    from napari_rbcflow.widgets.movie import MovieWidget

log = logging.getLogger(__name__)


def folder() -> Path:
    """Return where the sample data are: inside an installed package, else at the top of the tree."""
    package = Path(napari_rbcflow.__file__).parent
    inside = package / "sample_data"
    return inside if inside.is_dir() else package.parent / "sample_data"


# What the layers of the sample are called where a session's have its folder.
_SAMPLE = Path("<sample>")
# By the `label` of the truth; the rest cannot be judged.
_TRUE_GROUPS = {0: Label.TANK_TREADING, 1: Label.FLIPPING}


def simulated_chamber() -> list[tuple[Any, dict[str, Any], str]]:
    """Return the sample movie as an image layer, and the truth beside it as tracks coloured by label.

    In a window the Movie dock comes up with the movie chosen; of a sample that is open already no second one
    stays.
    """
    import tifffile
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is not None:
        _choose_sample(viewer)
    movie = tifffile.imread(folder() / "flow_chamber.tif")
    truth = pd.read_csv(folder() / "flow_chamber.truth.csv")
    frame = np.concatenate([np.arange(t0, t0 + n) for t0, n in zip(truth.t0, truth.frames, strict=True)])
    cell = truth.loc[truth.index.repeat(truth.frames)]
    x = cell.x0 + cell.v * (frame - cell.t0)
    rows = np.column_stack([cell.cell, frame, cell.y, x])
    group = cell.label.map(_TRUE_GROUPS).fillna(OTHERS).to_numpy()
    axes = axes_of(DEFAULT_PIXEL_SIZE_UM)
    known = {"session": str(_SAMPLE)}
    return [
        (
            movie,
            {
                "name": say("forms.sample-movie"),
                "metadata": {SIMULATED_MARK: True, METADATA: {**known, "role": "image"}},
                **axes,
            },
            "image",
        ),
        (
            rows.astype(float),
            {
                "name": say("forms.sample-truth"),
                "features": {"group": group_values(group)},
                "colormaps_dict": {"group": group_colours()},
                "color_by": "group",
                "tail_length": 10,
                "blending": "translucent",
                "metadata": {METADATA: {**known, "role": "tracks"}},
                **axes,
            },
            "tracks",
        ),
    ]


def _choose_sample(viewer: Any) -> None:
    """Choose the sample in the Movie dock, as soon as napari has added it."""
    from qtpy.QtCore import QTimer

    dock = _movie_dock(viewer)
    if dock is None:
        return
    before = layers_of(viewer, _SAMPLE)

    def choose() -> None:
        added = layers_of(viewer, _SAMPLE)
        for role, layer in before.items():
            # napari takes a sample without layers for an error, so that twins are there for a moment.
            if layer in viewer.layers and added[role] is not layer:
                viewer.layers.remove(added.pop(role))
                _bring_up(viewer, layer)
        image = layers_of(viewer, _SAMPLE).get("image")
        if image is not None:
            dock.make_way(_SAMPLE)
            dock.choose_layer(image)

    QTimer.singleShot(0, _told_in(dock, choose))


def _bring_up(viewer: Any, layer: Any) -> None:
    """Show a layer on top of all others."""
    layer.visible = True
    viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))


def _told_in(dock: MovieWidget, slot: Callable[..., None]) -> Callable[..., None]:
    from napari_rbcflow.widgets.dock import report_errors

    return report_errors(slot, __name__, lambda sentence: dock.message.say(mild=[sentence]))


def _movie_dock(viewer: Any) -> MovieWidget | None:
    """Return the Movie dock of a viewer, opened where there is none; None where that fails."""
    try:
        _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, "Movie")
    except Exception:  # layers are shown all the same
        log.exception("the Movie dock")
        return None
    return dock  # type: ignore[no-any-return]


Reader = Callable[[str | Sequence[str]], list[Any]]
# How a reader tells napari that it has dealt with a path, and that there is nothing to add.
NO_LAYER: list[Any] = [(None,)]


def session_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader for a session's folder, its ``run.json`` or its ring; None for anything else."""
    one = _only(path)
    if one is None:
        return None
    if one.name == RUN_NAME or (one / RUN_NAME).is_file():
        return _with_sentence(_read_session)
    if one.is_dir() and ring_of(one) is not None:
        return _with_sentence(_read_movie)
    return None


def movie_reader(path: str | Sequence[str]) -> Reader | None:
    """Return a reader for a movie file, a frame at a time; None for several paths."""
    one = _only(path)
    return None if one is None or one.is_dir() else _with_sentence(_read_movie)


def _read_session(path: Path) -> list[LayerData]:
    """Return a session's layers; in a window its number comes up beside them, and none is added twice."""
    from napari import current_viewer

    session = open_session(path.parent if path.name == RUN_NAME else path)
    viewer = current_viewer()
    if viewer is not None:
        _ask_no_more(session.folder)
        dock = _movie_dock(viewer)
        if dock is not None:
            _told_in(dock, dock.open_session)(session.folder)
        if layers_of(viewer, session.folder):
            return NO_LAYER
    return session_layers(
        session,
        movie_of(session),
        by_hand=ChangeLog(session.folder).labels(),
        show_unreliable=load_settings().show_unreliable,
    ).all()


def _make_way(viewer: Any, opened: Path) -> None:
    """Hide what we showed before, as soon as napari has added what was opened."""
    from qtpy.QtCore import QTimer

    from napari_rbcflow.widgets.movie import MovieWidget

    docks = [dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, MovieWidget)]
    if docks:
        QTimer.singleShot(0, _told_in(docks[0], lambda: docks[0].make_way(opened)))
    else:
        hide_others(viewer, opened, live_goes_on=busy())


def _ask_no_more(folder: Path) -> None:
    """Let napari give us all of the person's own sessions, now that one was opened with us.

    Its own reader takes every folder too, so that it would ask each time who shall read it. The preference
    stands in napari's Preferences like those that a person makes there.
    """
    from napari.settings import get_settings

    sessions = load_settings().sessions_folder.resolve()
    if folder.resolve().parent == sessions:
        preferences = get_settings().plugins
        pattern = f"{glob.escape(str(sessions))}{os.sep}*{os.sep}"
        if pattern not in preferences.extension2reader:
            preferences.extension2reader = {**preferences.extension2reader, pattern: PLUGIN}


def _read_movie(path: Path) -> list[LayerData]:
    """Return a movie's frames; in a window the session or sample that was shown there goes."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is not None:
        _make_way(viewer, path)
    name = path.parent.name if path.name == "frames.zarr" else path.name
    frames = open_frames(path)
    return [image_layer(frames, name, frames.pixel_size_um)]


def _with_sentence(read: Callable[[Path], list[LayerData]]) -> Reader:
    """Make a reader that shows a person in one sentence what is wrong with a path."""

    def reader(path: str | Sequence[str]) -> list[Any]:
        one = _only(path)
        assert one is not None  # asked before
        try:
            return read(one)
        except (RbcflowError, OSError) as error:
            if not _in_a_window():
                raise
            # napari 0.9.2 would show its own words, and a traceback, instead of an error's sentence.
            from napari.utils.notifications import show_error

            from napari_rbcflow.widgets.panel import in_form

            show_error(in_form(sentence_of(error)))
            return NO_LAYER

    return reader


def _only(path: str | Sequence[str]) -> Path | None:
    if isinstance(path, str):
        return Path(path)
    return Path(path[0]) if len(path) == 1 else None


def _in_a_window() -> bool:
    from napari import current_viewer

    return current_viewer() is not None


LayerTuple = tuple[Any, dict[str, Any], str]


def write_cells(path: str, layers: Sequence[LayerTuple]) -> list[str]:
    """Write one row per cell in the layers, of one session or several (then with a column `session`).

    The columns are those of ``cells.csv`` and `label_by_hand`, the label that a person has given instead
    of the machine's (empty where none has), as it was when the layers were made.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    for _, meta, _ in layers:
        session, cells = _of_session(meta)
        here = set(_cells_in(meta))
        tables.setdefault(session, []).append(cells[cells["cell"].isin(here)])
    whole = {
        session: pd.concat(parts).drop_duplicates("cell").sort_values(["last_frame", "cell"])
        for session, parts in tables.items()
    }
    _write(path, whole)
    return [path]


def write_positions(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one row per position of a Tracks layer: `cell`, `frame`, `y_px`, `x_px`, the cell's labels."""
    session, cells = _of_session(meta)
    rows = pd.DataFrame(np.asarray(data, float), columns=["cell", "frame", "y_px", "x_px"])
    rows = rows.astype({"cell": "int64", "frame": "int64"})
    labels = cells[["cell", "label", "label_by_hand"]]
    _write(path, {session: rows.merge(labels, on="cell", how="left")})
    return [path]


def _of_session(meta: dict[str, Any]) -> tuple[str, pd.DataFrame]:
    known = (meta.get("metadata") or {}).get(METADATA) or {}
    cells = known.get("cells")
    if not isinstance(cells, pd.DataFrame):
        raise BadInput("forms.layer-not-ours", layer=meta.get("name", ""))
    return str(known.get("session", "")), cells


def _cells_in(meta: dict[str, Any]) -> list[int]:
    features = meta.get("features")
    if features is None or "cell" not in features:
        return []
    return np.unique(np.asarray(features["cell"])).tolist()  # type: ignore[no-any-return]


def _write(path: str, tables: dict[str, pd.DataFrame]) -> None:
    if len(tables) > 1:
        for session, table in tables.items():
            table.insert(0, "session", session)
    whole = pd.concat(tables.values(), ignore_index=True)
    for name in [name for name in whole.columns if whole[name].dtype.kind == "f"]:
        decimals = 4 if name.startswith("p_") else 2
        whole[name] = [("" if np.isnan(v) else f"{v:.{decimals}f}") for v in whole[name]]
    try:
        whole.to_csv(Path(path), index=False, lineterminator="\n")
    except OSError as error:
        raise BadInput("forms.file-not-written", path=path, why=error.strerror or error) from error
