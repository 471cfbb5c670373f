"""The contrast of a live picture: found in the first frames, then left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_FRAMES = 5
_STEP = 4
_LEAST_SPAN = 40.0
"""Grey levels: an empty field is noise of two levels, which must not fill the screen."""


class Contrast:
    """Sets the contrast limits of one Image layer from the first frames it shows.

    Limits that follow every frame flicker, and cost napari a redrawn colour bar. A person's own limits
    are never touched. Only where the lamp was changed so far that most of the picture is black or
    white are the limits found again.

    Parameters
    ----------
    layer : napari.layers.Image
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._looked_at = 0
        self._range = (np.inf, -np.inf)
        self._ours = False
        self.by_hand = False
        layer.events.contrast_limits.connect(self._on_change)

    def begin(self, *, keep_by_hand: bool) -> None:
        """Start over with the next frame; limits set by hand stay where `keep_by_hand`."""
        self.by_hand = self.by_hand and keep_by_hand
        self._forget()

    def _forget(self) -> None:
        self._looked_at = 0
        self._range = (np.inf, -np.inf)

    def look(self, image: NDArray[np.uint8]) -> None:
        """Take note of a frame that is about to be shown."""
        if self.by_hand:
            return
        grey = image[::_STEP, ::_STEP]
        if self._looked_at >= FIRST_FRAMES:
            low, high = self._layer.contrast_limits
            if low <= grey[::_STEP, ::_STEP].mean() <= high:
                return
            self._forget()
        self._looked_at += 1
        low, high = np.percentile(grey, (0.5, 99.5))
        # Half as wide again on either side: cells deeper in or out of focus will still come.
        margin = max(high - low, _LEAST_SPAN) / 2
        self._range = (min(self._range[0], low - margin), max(self._range[1], high + margin))
        limits = (max(0.0, float(self._range[0])), min(255.0, float(self._range[1])))
        if limits != tuple(self._layer.contrast_limits):
            self._ours = True
            try:
                self._layer.contrast_limits = limits
            finally:
                self._ours = False

    def close(self) -> None:
        """Listen no more."""
        self._layer.events.contrast_limits.disconnect(self._on_change)

    def _on_change(self, event: Any = None) -> None:
        if not self._ours:
            self.by_hand = True
