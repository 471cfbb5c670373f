"""The live picture's layers: frame, marks, contrast, and how much of the interface's time they may take."""

from __future__ import annotations

import time
import warnings
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from vispy.gloo import gl

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.pipeline import JudgedCell, Snapshot
from napari_rbcflow.ring import FrameGone, RingReader
from napari_rbcflow.sentences import say
from napari_rbcflow.session import STRUCK_OUT
from napari_rbcflow.sources import open_frames
from napari_rbcflow.types import DEFAULT_PIXEL_SIZE_UM, Label
from napari_rbcflow.widgets.label_styles import INKS, LABEL_STYLES, MIDDLE_OF_RANGE, NOT_YET
from napari_rbcflow.widgets.layers import GREY_RANGE, axes_of

FIRST_FRAMES = 5
_STEP = 4
# Grey levels: an empty field is noise of two levels, which must not fill the screen.
_LEAST_SPAN = 40.0


class Contrast:
    """Sets the contrast limits of one Image layer from the first frames it shows.

    Limits that follow every frame flicker, and make napari redraw the colour bar. A person's own limits are
    never touched. The limits are found again only if the lamp was changed so far that most of the picture is
    black or white.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._looked_at = 0
        self._range = (np.inf, -np.inf)
        self._ours = False
        self.by_hand = False
        layer.events.contrast_limits.connect(self._on_change)

    def begin(self, *, keep_by_hand: bool) -> None:
        """Start over with the next frame; limits set by hand stay if `keep_by_hand`."""
        self.by_hand = self.by_hand and keep_by_hand
        self._forget()

    def _forget(self) -> None:
        self._looked_at = 0
        self._range = (np.inf, -np.inf)

    def look(self, image: NDArray[np.uint8]) -> None:
        """Learn from a frame that is about to be shown."""
        if self.by_hand:
            return
        grey = image[::_STEP, ::_STEP]
        if self._looked_at >= FIRST_FRAMES:
            low, high = self._layer.contrast_limits
            if low <= grey[::_STEP, ::_STEP].mean() <= high:
                return
            self._forget()
        self._looked_at += 1
        low, middle, high = np.percentile(grey, (0.5, 50, 99.5))
        # Half as wide again on either side: cells deeper in or out of focus will still come.
        margin = max(high - low, _LEAST_SPAN) / 2
        bottom = min(low, max(low - margin, (middle - MIDDLE_OF_RANGE * 255) / (1 - MIDDLE_OF_RANGE)))
        # The middle no brighter than marks are seen on.
        top = max(high + margin, bottom + (middle - bottom) / MIDDLE_OF_RANGE)
        self._range = (min(self._range[0], bottom), max(self._range[1], top))
        limits = (max(0.0, float(self._range[0])), min(255.0, float(self._range[1])))
        if limits != tuple(self._layer.contrast_limits):
            self._ours = True
            try:
                self._layer.contrast_limits = limits
            finally:
                self._ours = False

    def close(self) -> None:
        """Stop listening."""
        self._layer.events.contrast_limits.disconnect(self._on_change)

    def _on_change(self, event: Any = None) -> None:
        if not self._ours:
            self.by_hand = True


SHARE = 0.5
# While the run itself cannot keep up: drawing in software takes the processor from it.
LEAST_SHARE = 0.1
LONGEST_REST_S = 1.0
# For a draw that was asked for: a hidden window is never drawn.
LONGEST_WAIT_S = 0.5


class DrawBudget:
    """Measures what updates and the draws after them cost, and says when there is time for the next.

    After each update and each draw the interface is left alone for as long as they took (at a share of a
    half), and no update starts before the last one was drawn: a slow screen shows fewer pictures, and none
    wait.
    """

    def __init__(self, viewer: Any, hz: float) -> None:
        self._every_s = 1 / hz
        self._due_at = 0.0
        self.share = SHARE  # of the interface's time that may go into the picture
        self.draws = 0  # since the start
        self.draw_ms = 0.0  # of the last one, with what Qt does after it
        self.renderer = ""  # what draws OpenGL here, by its own name; known after the first draw
        self.before_draw: Callable[[], None] = lambda: None
        self._free_at = 0.0
        self._asked_at: float | None = None
        self._draw_began = 0.0
        # Most of a draw's cost is what Qt does after it (composing the window, showing it); this timer is the
        # first thing that the interface does after that.
        self._after_draw = QTimer()
        self._after_draw.setSingleShot(True)
        self._after_draw.timeout.connect(self._drawn)
        self._draw_events = _draw_events(viewer)
        if self._draw_events is not None:
            self._draw_events.connect(self._draw, position="first")

    @property
    def free(self) -> bool:
        """Whether there is time for an update now."""
        now = time.perf_counter()
        if self._asked_at is not None and now - self._asked_at < LONGEST_WAIT_S:
            return False
        return now >= max(self._free_at, self._due_at)

    def keep_pace(self) -> None:
        """Expect the next picture in its time; up to two that are late are made up for."""
        self._due_at = max(self._due_at + self._every_s, time.perf_counter() - 2 * self._every_s)

    @contextmanager
    def update(self) -> Iterator[None]:
        """Measure an update."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._pay(began)

    def ask_for_draw(self) -> None:
        """Expect the update just made to be drawn."""
        if self._draw_events is not None:
            self._asked_at = time.perf_counter()

    def close(self) -> None:
        """Stop measuring."""
        with suppress(RuntimeError):  # Python ends with the window open, and Qt's side is gone
            self._after_draw.stop()
        if self._draw_events is not None:
            self._draw_events.disconnect(self._draw)
            self._draw_events = None

    def _draw(self, event: Any = None) -> None:
        if not self.renderer:
            self.renderer = str(gl.glGetParameter(gl.GL_RENDERER))  # only in a draw can it be asked
        self._draw_began = time.perf_counter()
        self.before_draw()
        self._after_draw.start(0)

    def _drawn(self) -> None:
        self.draws += 1
        self.draw_ms = 1000 * (time.perf_counter() - self._draw_began)
        if self._asked_at is not None:
            self._asked_at = None
            self._pay(self._draw_began)

    def _pay(self, began: float) -> None:
        now = time.perf_counter()
        due = max(self._free_at, now) + (now - began) * (1 / self.share - 1)
        # One stall of two seconds must not freeze the picture for twenty.
        self._free_at = min(due, now + LONGEST_REST_S)


def _draw_events(viewer: Any) -> Any:
    """Return what napari's canvas emits when it draws; None where there is no window.

    The only private name of napari that the picture uses: 0.9.2 reports draws nowhere else. Without it, only
    updates are measured.
    """
    with warnings.catch_warnings():
        # Opened from a menu, the viewer comes in a proxy that warns of private names; napari would show that.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return viewer.window._qt_viewer.canvas.events.draw
        except (AttributeError, RuntimeError):
            return None


# Remembered: 12 s at 40 a second, longer than the ring.
MOMENTS = 512
# Remembered: 40 s at 200 tracks a second. A cell's label is needed while its frames are shown, some 5 s.
LABELS = 8192


@dataclass(frozen=True, eq=False)
class Moment:
    """Where the open tracks were in one frame."""

    frame: int
    cell: NDArray[np.int64]
    y_px: NDArray[np.float32]
    x_px: NDArray[np.float32]


class History:
    """The last `MOMENTS` moments and the last `LABELS` labels of one run.

    A cell's label exists only once its track has ended, so the frame tracked last has none. `delay_frames`
    behind it, cells have the label with which they were counted from the middle of the field on. Where labels
    come later, on a slow computer, the picture goes on and they follow.
    """

    def __init__(self, delay_frames: float) -> None:
        self.delay_frames = delay_frames
        self._moments: deque[Moment] = deque(maxlen=MOMENTS)
        self._labels: dict[int, str] = {}
        self._by_hand: dict[int, str] = {}
        self._first: int | None = None

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, snapshot: Snapshot) -> bool:
        """Remember where the cells were, if the snapshot is of a later frame than the last; say if so."""
        frame = snapshot.frame
        if frame is None or (self._moments and frame <= self._moments[-1].frame):
            return False
        if self._first is None:
            self._first = frame
        self._moments.append(Moment(frame, snapshot.cell, snapshot.y_px, snapshot.x_px))
        return True

    def learn(self, judged: Iterable[JudgedCell]) -> None:
        """Remember the labels of cells."""
        for cell in judged:
            self._labels[cell.cell] = str(cell.label)
        while len(self._labels) > LABELS:
            del self._labels[next(iter(self._labels))]

    def learn_by_hand(self, cell: int, label: str) -> None:
        """Remember a label by hand; the machine's own label undoes it."""
        self._by_hand[cell] = str(label)
        while len(self._by_hand) > LABELS:
            del self._by_hand[next(iter(self._by_hand))]

    def label(self, cell: int) -> str:
        """Return the label with which a cell is counted, a person's before the machine's, or `NOT_YET`."""
        return self._by_hand.get(cell) or self._labels.get(cell, NOT_YET)

    def labels(self, moment: Moment) -> list[str]:
        """Return the labels known by now of the cells of a moment."""
        known, by_hand = self._labels, self._by_hand
        return [by_hand.get(cell) or known.get(cell, NOT_YET) for cell in moment.cell.tolist()]

    def at(self, frame: int) -> Moment:
        """Return where the cells were in any frame, on straight lines between the moments around it.

        A cell that one of the two does not have is left out; so are all where there is no such moment.
        """
        after = bisect_left(self._moments, frame, key=lambda moment: moment.frame)
        then = self._moments[after] if after < len(self._moments) else None
        if then is not None and then.frame == frame:
            return then
        if then is None or not after:
            return Moment(frame, np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32))
        before = self._moments[after - 1]
        share = (frame - before.frame) / (then.frame - before.frame)
        cell, i, j = np.intersect1d(before.cell, then.cell, assume_unique=True, return_indices=True)
        y_px = (1 - share) * before.y_px[i] + share * then.y_px[j]
        x_px = (1 - share) * before.x_px[i] + share * then.x_px[j]
        return Moment(frame, cell, y_px, x_px)

    def candidates(
        self, held: NDArray[np.int64], not_before: int = -1, ahead: float = 0.0
    ) -> Iterator[Moment]:
        """Yield moments whose frame is among those `held` (ascending), the best first.

        None is before the frame that is shown, `not_before`: a picture does not run backwards. `ahead` is how
        many frames the camera has taken since the last moment came: they come in bursts, and time does not.
        """
        if not self._moments or not len(held):
            return
        frames = np.array([m.frame for m in self._moments])
        place = np.minimum(np.searchsorted(held, frames), len(held) - 1)
        good = np.flatnonzero((held[place] == frames) & (frames >= not_before))
        last, first = self._moments[-1].frame, self._first or 0
        # The delay grows from nothing, at half speed: a picture that does not move would look broken.
        due = max(last + min(ahead, self.delay_frames / 2) - self.delay_frames, first + (last - first) / 2)
        split = int(np.searchsorted(frames[good], due, side="right"))
        for place_of in (*good[:split][::-1], *good[split:]):
            yield self._moments[int(place_of)]


# Of a run, shown again and again: as long as a cell is in the field, and no more memory than a laptop spares.
LOOP_S, LOOP_BYTES = 2.0, 200_000_000
TIMES_AS_SLOW = 4


class Loop:
    """The seconds of a run before one frame, kept because the ring is soon overwritten, to be shown slowly.

    FrameGone where the ring has none of them any more.
    """

    def __init__(self, reader: RingReader, history: History, last: int, fps: float) -> None:
        indices = reader.indices[(reader.indices > last - LOOP_S * fps) & (reader.indices <= last)]
        step = max(1, -(-len(indices) * reader.height * reader.width // LOOP_BYTES))
        self._frames = [(reader.frame(index), history.at(index)) for index in indices[::step].tolist()]
        if not self._frames:
            raise FrameGone
        self._every_s = step * TIMES_AS_SLOW / fps
        self.seconds = len(self._frames) * step / fps
        self._began = time.monotonic()
        self._shown = -1

    def next(self) -> tuple[NDArray[np.uint8], Moment] | None:
        """Return what is due now; None where that was returned last time."""
        place = int((time.monotonic() - self._began) / self._every_s) % len(self._frames)
        if place == self._shown:
            return None
        self._shown = place
        return self._frames[place]


_IN_USE = "rbcflow in use"


def own_layer(viewer: Any, role: str, make: Callable[[], Any]) -> Any:
    """Return the layer with a role in a viewer: the one left there by an earlier picture, or a new one.

    Pictures come and go with their widget; layers stay, because removing them may crash napari. A layer in
    which another picture still draws is left to it (see `give_back`): two runs in one layer would put the
    marks of one on the frame of the other.
    """
    layer = left_layer(viewer, role)
    if layer is None:
        layer = make()
        layer.metadata["rbcflow"] = role
    layer.metadata[_IN_USE] = True
    return layer


def left_layer(viewer: Any, role: str) -> Any:
    """Return the layer with a role that an earlier picture left in a viewer, or None."""
    for layer in viewer.layers:
        if layer.metadata.get("rbcflow") == role and not layer.metadata.get(_IN_USE):
            return layer
    return None


def give_back(layer: Any) -> None:
    """Leave a layer to the next picture that asks for one."""
    layer.metadata.pop(_IN_USE, None)


def bring_to_front(viewer: Any, *own: Any) -> None:
    """Put layers on top, in this order, and visible; one that somebody removed comes back.

    A number must not be seen beside another patient's movie that was opened over its picture.
    """
    layers = viewer.layers
    for layer in own:
        if layer not in layers:
            layers.append(layer)
    for layer in own:
        # A slice of napari's list is a new list of layers, which is never freed.
        if list(layers)[-len(own) :] != list(own):
            layers.move(layers.index(layer), len(layers))
        if not layer.visible:  # even where nothing changes, napari redraws
            layer.visible = True


def put_image(layer: Any, image: NDArray[np.uint8]) -> None:
    """Put another image into a layer; `refresh` brings it to the screen."""
    data = layer.data
    if data.shape == image.shape and data.dtype == image.dtype and data.flags.writeable:
        # In place: napari's setter computes extent, thumbnail and dims, and costs twice as much.
        np.copyto(data, image)
    else:
        layer.data = image


def refresh(*layers: Any) -> None:
    """Show what was written into the arrays of layers, as cheaply as napari allows."""
    for layer in layers:
        # Not `Layer.refresh`: its thumbnail is slow, and where napari slices in threads it would show the
        # image and the marks one after the other.
        if layer.visible:
            layer.set_view_slice()
            layer.events.set_data()


# Between two renewals of the frames that are a layer.
RENEWED_S = 1.0


class RunFrames:
    """The frames of a run that the ring holds, as a layer for other plugins, once somebody asks for it.

    Its data is a dask array, another one at each `follow`. A frame that the ring has overwritten since is
    black, never another frame. The layer comes hidden: napari draws nothing of it, and a picture that is
    painted over the canvas stays.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None
        self._folder: Path | None = None
        self._renewed_s = 0.0
        if left_layer(viewer, "frames") is not None:  # it may show the last patient's cells
            self._layer = own_layer(viewer, "frames", self._make)
            self.begin(None)

    def begin(self, folder: Path | None) -> None:
        """Follow the run with this folder; without one, hold no frame of anybody's."""
        self._folder = folder
        if folder is None and self._layer is not None:
            self._layer.data = _no_frames()

    def add(self) -> None:
        """Make the layer, or bring it back."""
        layers = self._viewer.layers
        selected = set(layers.selection)
        if self._layer is None:
            self._layer = own_layer(self._viewer, "frames", self._make)
        elif self._layer not in layers:
            layers.append(self._layer)
        layers.selection = selected  # whose controls are open, and what a key means, stay
        self.follow(now=True)

    def follow(self, *, now: bool = False) -> None:
        """Take what the ring holds, every `RENEWED_S` at most, or `now`."""
        if self._layer is None or self._folder is None or self._layer not in self._viewer.layers:
            return
        if not now and time.monotonic() - self._renewed_s < RENEWED_S:
            return
        self._renewed_s = time.monotonic()
        try:
            frames = open_frames(self._folder)
        except (RbcflowError, OSError):
            return  # not there yet, or gone: the picture says so
        place = {"scale": axes_of(frames.pixel_size_um)["scale"], "translate": (frames.first, 0, 0)}
        for name, value in place.items():
            if tuple(getattr(self._layer, name)) != value:
                setattr(self._layer, name, value)
        # Without a name: two looks at one ring are two arrays, whatever napari or another plugin caches.
        self._layer.data = _dask_array().from_array(frames, chunks=(1, -1, -1), name=False)

    def close(self) -> None:
        """Leave the layer, with the last frames, to the next picture."""
        if self._layer is not None:
            give_back(self._layer)

    def _make(self) -> Any:
        looks = {"contrast_limits": GREY_RANGE, "rgb": False, **axes_of(DEFAULT_PIXEL_SIZE_UM)}
        return self._viewer.add_image(_no_frames(), name=say("viewer.layer-frames"), visible=False, **looks)


def _no_frames() -> Any:
    return _dask_array().zeros((1, 64, 64), np.uint8)


def _dask_array() -> Any:
    """Import dask's arrays: nobody waits for them before the first frame."""
    import dask.array

    return dask.array


# Marks that the layer has room for: a full field has 100 to 250 cells.
CAPACITY = 512
# Width of a mark. A red cell with its rim is some 9 um wide: no line of a counted cell's mark is on it.
_ACROSS_UM: dict[str, float] = {Label.TANK_TREADING: 19.5, Label.FLIPPING: 18.0}
_OTHERS_UM = 13.5
COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
POINTED_OUT = "pointed-out"

# Least first: where marks overlap, or there is no room for all, the counted cells are seen.
_ORDER = (Label.TOO_SHORT, Label.UNCOUNTED, Label.UNRELIABLE, NOT_YET, STRUCK_OUT, *COUNTED, POINTED_OUT)
_CODE = {str(name): code for code, name in enumerate(_ORDER)}
NOT_COUNTED = frozenset({Label.TOO_SHORT, Label.UNCOUNTED, Label.UNRELIABLE})
# Lines of a cross are too thin to be seen from afar.
_FILLED = NOT_COUNTED | {STRUCK_OUT}
_PARKED_SIZE_PX = 0.01


class Marks:
    """A mark on every cell of the picture shown; `refresh` brings what was placed to the screen.

    The layer is made once and never removed: napari may crash where Points are removed, and making layers
    again and again is slow. All marks are in it from the start; those not needed are invisible and on one
    that is needed (napari 0.9.2 draws also what is not `shown`).
    """

    def __init__(self, viewer: Any) -> None:
        self.layer = own_layer(
            viewer,
            "cells",
            lambda: viewer.add_points(
                np.zeros((CAPACITY, 2)),
                name=say("viewer.layer-cells"),
                face_color="transparent",
                **axes_of(DEFAULT_PIXEL_SIZE_UM, 2),
            ),
        )
        if len(self.layer.data) != CAPACITY:
            self.layer.data = np.zeros((CAPACITY, 2))
        fill = CAPACITY - len(_ORDER)
        symbols = [_symbol(name) for name in _ORDER]
        self.layer.symbol = symbols + [symbols[0]] * fill
        self.layer.border_color = [_colour(name) for name in _ORDER] + ["transparent"] * fill
        self.layer.selected_data = set()
        self.layer.editable = False
        # napari's own form of symbols and colours, a row for each label, to copy into the layer's arrays.
        self._symbols = self.layer.symbol[: len(_ORDER)].copy()
        self._borders = self.layer.border_color[: len(_ORDER)].copy()
        self._faces = np.zeros_like(self._borders)
        self._widths = np.full(len(_ORDER), 0.09)
        for name in _FILLED:
            self._faces[_CODE[name]] = self._borders[_CODE[name]]
            self._widths[_CODE[name]] = 0.0
        self._sizes_px = np.ones(len(_ORDER))
        self.left_out = 0  # cells of the last `place` for which there was no room
        self.codes = np.zeros(0, np.intp)  # how each of the first points is drawn (see `style`)
        self._placed = CAPACITY
        self.set_pixel_size(DEFAULT_PIXEL_SIZE_UM)
        self.clear()

    def set_pixel_size(self, pixel_size_um: float) -> None:
        """Set how large a camera's pixel is, and so how large a mark is drawn."""
        if tuple(self.layer.scale) != (pixel_size_um, pixel_size_um):
            self.layer.scale = (pixel_size_um, pixel_size_um)
        self._sizes_px[:] = [_across_um(name) / pixel_size_um for name in _ORDER]

    def style(self, code: int) -> tuple[str, str, bool, float]:
        """Return symbol, colour, whether it is filled, and the width of its line as a share of its size."""
        return (
            _symbol(_ORDER[code]),
            _colour(_ORDER[code]),
            _ORDER[code] in _FILLED,
            float(self._widths[code]),
        )

    def size_px(self, code: int) -> float:
        """Return how wide a mark is, in camera pixels."""
        return float(self._sizes_px[code])

    def point_out(self, y_px: float, x_px: float, label: str) -> None:
        """Put a mark on one cell only, and a frame around it."""
        names = [POINTED_OUT] if label == NOT_YET else [label, POINTED_OUT]
        self.place(np.full(len(names), y_px), np.full(len(names), x_px), names)

    def place(
        self, y_px: NDArray[Any], x_px: NDArray[Any], names: Sequence[str], hidden: Set[str] = frozenset()
    ) -> None:
        """Put marks on these cells and on no others.

        `names` says how each is drawn (a key of `label_styles.LABEL_STYLES`, or `POINTED_OUT`); those in
        `hidden` are left out.
        """
        if hidden:
            kept = [i for i, name in enumerate(names) if name not in hidden]
            y_px, x_px, names = y_px[kept], x_px[kept], [names[i] for i in kept]
        codes = np.fromiter((_CODE[name] for name in names), np.intp, len(names))
        order = np.argsort(codes, kind="stable")[-CAPACITY:]
        codes, n = codes[order], len(order)
        self.left_out = len(names) - n
        layer = self.layer
        if len(layer.data) != CAPACITY:  # somebody added or deleted some by hand
            layer.data = np.zeros((CAPACITY, 2))
            self._placed = CAPACITY
        layer.data[:n, 0] = y_px[order]
        layer.data[:n, 1] = x_px[order]
        layer.size[:n] = self._sizes_px[codes]
        layer.symbol[:n] = self._symbols[codes]
        layer.border_color[:n] = self._borders[codes]
        layer.face_color[:n] = self._faces[codes]
        layer.border_width[:n] = self._widths[codes]
        layer.data[n:] = layer.data[0]  # one of these, or where the last one was
        layer.size[n : self._placed] = _PARKED_SIZE_PX
        layer.border_color[n : self._placed, 3] = 0.0
        layer.face_color[n : self._placed, 3] = 0.0
        self._placed = n
        self.codes = codes

    def clear(self) -> None:
        """Take all marks off the picture."""
        if self._placed:
            nowhere = np.zeros(0)
            self.place(nowhere, nowhere, ())


def _across_um(name: str) -> float:
    if name in NOT_COUNTED:
        return 0.75 * _OTHERS_UM
    return 2.0 * _OTHERS_UM if name == POINTED_OUT else _ACROSS_UM.get(name, _OTHERS_UM)


def _symbol(name: str) -> str:
    return "square" if name == POINTED_OUT else LABEL_STYLES[name].symbol


def _colour(name: str) -> str:
    return INKS["pointed-out"].bright if name == POINTED_OUT else LABEL_STYLES[name].colour
