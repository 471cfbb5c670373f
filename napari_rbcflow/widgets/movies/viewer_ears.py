"""What a widget hears of its viewer: layers that come and go, and clicks into the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

_STILL_PX = 4.0
"""How far a finger or a glove may slip on the canvas between press and release, for a click."""


class ViewerEars:
    """Listens from `listen` to `stop`, and leaves nothing connected behind.

    Parameters
    ----------
    viewer : napari.Viewer
    layers_changed : callable
    clicked : callable
        Given the place, in world coordinates; not called for a drag, which moves the picture.
    """

    def __init__(
        self,
        viewer: Any,
        layers_changed: Callable[[], None],
        clicked: Callable[[Sequence[float]], None],
    ) -> None:
        self._viewer = viewer
        self._layers_changed, self._clicked = layers_changed, clicked
        self._listening = False

    def listen(self) -> None:
        """Begin; more than once is fine."""
        if not self._listening:
            self._listening = True
            for event in self._events():
                event.connect(self._changed)
            self._viewer.mouse_drag_callbacks.append(self._pressed)

    def stop(self) -> None:
        """Hear nothing any more; more than once is fine."""
        if self._listening:
            self._listening = False
            for event in self._events():
                event.disconnect(self._changed)
            if self._pressed in self._viewer.mouse_drag_callbacks:
                self._viewer.mouse_drag_callbacks.remove(self._pressed)

    def _events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.reordered

    def _changed(self, event: Any = None) -> None:
        self._layers_changed()

    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        position, begin = event.position, event.pos
        yield
        while event.type == "mouse_move":
            yield
        if math.dist(begin, event.pos) < _STILL_PX:
            self._clicked(position)
