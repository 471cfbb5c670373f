"""The core of an open Micro-Manager, with the manners of the core inside this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.sentences import in_a_line

log = logging.getLogger(__name__)

_WITHOUT: dict[str, Any] = {
    "get_include_system_state_cache": False,
    "set_include_system_state_cache": None,
    "get_number_of_camera_channels": 1,
    "get_device_library": "",
    "get_device_name": "",
    "get_version_info": "",
    "get_api_version_info": "",
    "get_pixel_size_um": 0.0,
    "get_exposure": 0.0,
    "has_property": False,
    "is_property_read_only": True,
    "get_circular_buffer_memory_footprint": 0,
    "set_circular_buffer_memory_footprint": None,
    "clear_circular_buffer": None,
    "snap_image": None,
}
"""What an answer is taken to be where that Micro-Manager has no such method: others are older, or newer, than
those that we have seen. What frames cannot be had without is not among them."""


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
        self._with_state = bool(self.get_include_system_state_cache())
        self.set_include_system_state_cache(False)

    def give_back(self) -> None:
        """Leave the core as it was found."""
        self.set_include_system_state_cache(self._with_state)

    def __getattr__(self, name: str) -> Any:
        if name in _WITHOUT:
            return getattr(self._core, name, lambda *_: _WITHOUT[name])
        return getattr(self._core, name)

    @property
    def live_mode(self) -> bool:
        """Whether Micro-Manager's own Live window runs the camera."""
        try:
            return bool(self._studio().live().is_live_mode_on())
        except Exception as error:
            # A core without its windows, as a headless one; that its camera runs is seen elsewhere.
            log.info("Micro-Manager does not say whether it is in Live mode: %s", in_a_line(error))
            return False

    def end_live_mode(self) -> None:
        """Stop the Live window, as its button does."""
        self._studio().live().set_live_mode_on(False)

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return x, y, width, height in binned pixels."""
        if not hasattr(self._core, "get_roi"):
            return 0, 0, int(self._core.get_image_width()), int(self._core.get_image_height())
        field = self._core.get_roi()
        return int(field.x), int(field.y), int(field.width), int(field.height)

    def get_device_property_names(self, label: str) -> list[str]:
        if not hasattr(self._core, "get_device_property_names"):
            return []
        return _strings(self._core.get_device_property_names(label))

    def get_allowed_property_values(self, label: str, name: str) -> list[str]:
        return _strings(self._core.get_allowed_property_values(label, name))

    def get_number_of_components(self) -> int:
        """Return 4 of colour, 1 of grey."""
        if hasattr(self._core, "get_number_of_components"):
            return int(self._core.get_number_of_components())
        return 4 if int(self._core.get_bytes_per_pixel()) >= 4 else 1

    def get_image_bit_depth(self) -> int:
        """Return the bits of a grey value."""
        if hasattr(self._core, "get_image_bit_depth"):
            return int(self._core.get_image_bit_depth())
        return 16 if int(self._core.get_bytes_per_pixel()) in (2, 8) else 8

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
    if isinstance(vector, list | tuple):
        return [str(one) for one in vector]
    return [str(vector.get(i)) for i in range(int(vector.size()))]
