"""What a light microscope and its camera can have: bounds for what users type and files say."""

from __future__ import annotations

from napari_rbcflow.errors import BadInput

LEAST_SIDE_PX = 64
"""Twice a crop: in less no cell can be followed."""
FPS_RANGE = (0.1, 10_000.0)
PIXEL_RANGE_UM = (0.05, 5.0)
"""In the field: from a 100x objective with small pixels to a 2x objective, binned."""
EXPOSURE_RANGE_MS = (0.001, 10_000.0)


def can_be(value: float, bounds: tuple[float, float]) -> bool:
    """Tell whether a value lies within bounds; NaN does not."""
    return bounds[0] <= value <= bounds[1]


def check_settings(
    *, fps: float | None = None, pixel_size_um: float | None = None, exposure_ms: float | None = None
) -> None:
    """Refuse what no microscope has; None is left alone.

    Raises
    ------
    BadInput
        With the bounds.
    """
    for value, said, bounds, unit in (
        (fps, "A frame rate of {:g} frames/s", FPS_RANGE, "frames/s"),
        (pixel_size_um, "A pixel of {:g} um", PIXEL_RANGE_UM, "um"),
        (exposure_ms, "An exposure of {:g} ms", EXPOSURE_RANGE_MS, "ms"),
    ):
        if value is not None and not can_be(value, bounds):
            low, high = bounds
            raise BadInput(f"{said.format(value)} is not possible; give {low:g} to {high:,g} {unit}.")
