"""The core of an open Micro-Manager, with the manners of the core inside this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.sentences import in_a_line


class TaggedImage(NamedTuple):
    """A frame as the core inside this process gives it.

    Attributes
    ----------
    pix : ndarray, shape (height, width) of uint8 or uint16, or (height, width, 4) of uint8: BGRA
    tags : dict of str to str
    """

    pix: Raw
    tags: dict[str, str]


class JavaCore:
    """What is not written out here goes to the server under the same name.

    Over the server, arrays are flat, some tags are numbers, a field is a Rectangle and a list of
    names an object of Java's.

    Parameters
    ----------
    port : int
        Of the server, on this machine.

    Raises
    ------
    BadInput
        Where no Micro-Manager answers on that port.
    """

    def __init__(self, port: int) -> None:
        try:
            from pycromanager import Core, Studio
        except ImportError as error:
            raise BadInput(
                f"pycromanager cannot be loaded ({error}); install it with: pip install napari-rbcflow[all]"
            ) from error
        try:
            # A socket of its own: whatever else a program asks that Micro-Manager, frames do not wait.
            self._core = Core(port=port, new_socket=True)
            self._studio: Callable[[], Any] = lambda: Studio(port=port)
        except Exception as error:
            raise BadInput(
                f"No Micro-Manager answers on port {port} of this computer ({in_a_line(error)}): open it, "
                "tick 'Run server on port' under Tools > Options, and start again."
            ) from error
        # Tags that nobody here reads cost a millisecond a frame; whose Micro-Manager it is may want them.
        self._with_state = bool(self._core.get_include_system_state_cache())
        self._core.set_include_system_state_cache(False)

    def give_back(self) -> None:
        """Leave the core as it was found."""
        self._core.set_include_system_state_cache(self._with_state)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    @property
    def live_mode(self) -> bool:
        """Whether Micro-Manager's own Live window runs the camera."""
        return bool(self._studio().live().is_live_mode_on())

    def end_live_mode(self) -> None:
        """Stop the Live window, as its button does."""
        self._studio().live().set_live_mode_on(False)

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return x, y, width, height in binned pixels."""
        field = self._core.get_roi()
        return int(field.x), int(field.y), int(field.width), int(field.height)

    def get_device_property_names(self, label: str) -> list[str]:
        return _strings(self._core.get_device_property_names(label))

    def get_allowed_property_values(self, label: str, name: str) -> list[str]:
        return _strings(self._core.get_allowed_property_values(label, name))

    def pop_next_tagged_image(self) -> TaggedImage:
        """Return the oldest frame that waits, and take it out of the core's buffer."""
        tagged = self._core.pop_next_tagged_image()
        tags = tagged.tags
        tags = json.loads(tags) if isinstance(tags, str) else tags
        shape = int(tags["Height"]), int(tags["Width"])
        pix = np.asarray(tagged.pix)
        if pix.size == 4 * shape[0] * shape[1]:
            shape = (*shape, 4)  # type: ignore[assignment]
        return TaggedImage(pix.reshape(shape), {name: str(value) for name, value in tags.items()})


def _strings(vector: Any) -> list[str]:
    return [str(vector.get(i)) for i in range(int(vector.size()))]
