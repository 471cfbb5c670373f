"""Videos: which codecs lose picture, what time stamps tell of lost frames, streams, and odd AVI files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from factories import a_movie

from napari_rbcflow.quality import RunQuality
from napari_rbcflow.sources import open_movie

N = 12
FRAMES = a_movie(N)


def write(path: Path, codec: str, pixels: str = "gray", frames: np.ndarray = FRAMES, **options: str) -> Path:
    """Write a video at 60 frames/s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=60, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))
    return path


def warned(path: Path) -> dict[str, str]:
    """Return what a run of this movie warns of gravely, by its key."""
    with open_movie(path) as info:
        quality = RunQuality(info)
        run: dict[str, Any] = {
            "frames": {"received": N, "processed": N, "dropped": {}, "missed": {}},
            "cells": {"tracked": 400},
            "fraction": {"n": 100},
        }
        _, told = quality.close(run, b"", not_analysed={}, seconds=20)
    return {warning.key: warning.sentence for warning in told if warning.grave}


@pytest.mark.parametrize(
    ("codec", "pixels", "name", "options"),
    [
        ("mjpeg", "yuvj420p", "m.avi", {}),
        ("mpeg4", "yuv420p", "m.avi", {}),
        ("mpeg4", "yuv420p", "m.mp4", {"bf": "2"}),
        ("libx264", "yuv420p", "m.mp4", {}),
        ("libx264", "yuv444p", "m.avi", {"crf": "1"}),
        ("libx265", "yuv420p", "m.mkv", {"x265-params": "log-level=none"}),
        ("libvpx-vp9", "yuv420p", "m.webm", {}),
        ("jpeg2000", "gray", "m.mkv", {}),
        ("prores", "yuv422p10le", "m.mov", {}),
        ("msvideo1", "rgb555le", "m.avi", {}),
        ("wmv2", "yuv420p", "m.wmv", {}),
    ],
)
def test_a_lossy_codec_is_named(
    codec: str, pixels: str, name: str, options: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / name, codec, pixels, **options)
    with av.open(str(path)) as container:
        called = container.streams.video[0].codec_context.codec.canonical_name
    assert f"({called})" in warned(path)["lossy"]


@pytest.mark.parametrize(
    ("codec", "pixels", "name", "options"),
    [
        ("rawvideo", "gray", "m.avi", {}),
        ("ffv1", "gray", "m.mkv", {}),
        ("huffyuv", "yuv422p", "m.avi", {}),
        ("utvideo", "yuv420p", "m.avi", {}),
        ("png", "gray", "m.mov", {}),
        ("libx264", "yuv420p", "m.mp4", {"qp": "0"}),
        ("libx264", "yuv444p", "m.avi", {"qp": "0"}),
        ("libx265", "yuv420p", "m.mp4", {"x265-params": "lossless=1:log-level=none"}),
        ("libvpx-vp9", "yuv420p", "m.webm", {"lossless": "1"}),
        ("jpeg2000", "gray", "m.mkv", {"pred": "dwt53"}),
        ("ljpeg", "yuvj444p", "m.avi", {}),
        ("jpegls", "gray", "m.avi", {}),
    ],
)
def test_a_codec_that_loses_nothing_is_not_warned_of(
    codec: str, pixels: str, name: str, options: dict[str, str], tmp_path: Path
) -> None:
    assert "lossy" not in warned(write(tmp_path / name, codec, pixels, **options))
