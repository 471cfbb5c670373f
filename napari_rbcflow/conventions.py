"""Numbers and names that every part shares.

Optics and geometry are those of Darrin et al., Scientific Reports 13 (2023) 745; what the paper
leaves open is inferred from its published crops. They are defaults: settings and files override them.
"""

from __future__ import annotations

from enum import StrEnum

CROP_SIDE = 31
"""Side of a cell's crop, in pixels of `CROP_PIXEL_SIZE_UM`."""
CROP_PIXEL_SIZE_UM = 0.605
"""Pixel of every crop, whatever the camera's own."""
DEFAULT_PIXEL_SIZE_UM = 0.605
DEFAULT_FPS = 60.0
LEAST_FRAMES = 6
"""Shorter sequences are kept as too short: "they indicated a problem" (Darrin et al. 2023)."""


class Label(StrEnum):
    """What is said of a track."""

    TANK_TREADING = "tank-treading"
    FLIPPING = "flipping"
    UNRELIABLE = "unreliable"
    TOO_SHORT = "too-short"
    UNCOUNTED = "uncounted"
