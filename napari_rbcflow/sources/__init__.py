"""Where frames come from: one contract, and behind it the chamber, movies and Micro-Manager."""

from napari_rbcflow.sources.base import FrameSource, RecordedSource
from napari_rbcflow.types import Frame, SourceInfo

__all__ = ["Frame", "FrameSource", "RecordedSource", "SourceInfo"]
