"""The zarr ring of the last frames and crops, and its ledger."""

from napari_rbcflow.ring.reader import FrameGone, RingCrops, RingReader, open_ring
from napari_rbcflow.ring.writer import FrameRing

__all__ = ["FrameGone", "FrameRing", "RingCrops", "RingReader", "open_ring"]
