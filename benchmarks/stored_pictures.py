"""How often it shows in the picture that a movie was once compressed, or that its rows were woven.

  python benchmarks/stored_pictures.py MOVIE.tif... [--real SHARED/data/darrin2023]

Of each movie the first 64 frames: as they are, then compressed and decoded again, as a movie that was
compressed once and stored raw afterwards. `edges` and `rows` are ``block_edges`` and ``woven_rows`` of
``quality``; a star stands where the rule warns. --real: the published strips of PNG (never compressed since
they were cut out) and of JPEG, each strip as one picture.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import tifffile
from PIL import Image

from napari_rbcflow.quality.meter import StoredPicture
from napari_rbcflow.quality.rules import BLOCK_EDGES, WOVEN_ROWS

FRAMES = 64


def by_ffmpeg(frames: np.ndarray, codec: str, pixels: str = "yuv420p", **options: str) -> np.ndarray:
    even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=60, options=options)
        stream.height, stream.width, stream.pix_fmt = *even.shape[1:], pixels
        for frame in even:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def by_jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    asked = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", frame, asked)[1], 0) for frame in frames])


def woven(frames: np.ndarray) -> np.ndarray:
    out = frames[: len(frames) // 2 * 2 : 2].copy()
    out[:, 1::2] = frames[1 : 2 * len(out) : 2, 1::2]
    return out


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda f: f,
    "H.264 crf 18": lambda f: by_ffmpeg(f, "libx264", crf="18"),
    "H.264 crf 23": lambda f: by_ffmpeg(f, "libx264", crf="23"),
    "H.264 crf 28": lambda f: by_ffmpeg(f, "libx264", crf="28"),
    "JPEG 75": lambda f: by_jpeg(f, 75),
    "JPEG 90": lambda f: by_jpeg(f, 90),
    "JPEG 95": lambda f: by_jpeg(f, 95),
    "JPEG 90, then cut out": lambda f: by_jpeg(f, 90)[:, 3:, 5:],
    "MPEG-4": lambda f: by_ffmpeg(f, "mpeg4"),
    "HEVC": lambda f: by_ffmpeg(f, "libx265", **{"x265-params": "log-level=none"}),
    "VP9": lambda f: by_ffmpeg(f, "libvpx-vp9"),
    "interlaced": woven,
}


def look(frames: np.ndarray) -> tuple[float, float]:
    picture = StoredPicture()
    for frame in frames:
        picture.add(np.ascontiguousarray(frame))
    return picture.figures["block_edges"], picture.figures["woven_rows"]


def strips(folder: Path, ending: str) -> Iterator[np.ndarray]:
    for path in sorted(folder.rglob(f"*.{ending}")):
        yield np.asarray(Image.open(path).convert("L"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("movies", nargs="*", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--plain", action="store_true", help="only as they are")
    arguments = parser.parse_args()
    for path in arguments.movies:
        frames = tifffile.imread(path, key=slice(FRAMES))
        for kind, made in KINDS.items():
            if arguments.plain and kind != "as it is":
                continue
            edges, rows = look(made(frames))
            said = f"{'*' if edges > BLOCK_EDGES else ' '} rows {rows:.2f}{'*' if rows > WOVEN_ROWS else ' '}"
            print(f"{path.name:24s} {kind:22s} edges {edges:.3f}{said}", flush=True)
    if arguments.real:
        for ending in ("png", "jpg"):
            # A strip is 31 pixels high: its blocks count from its upper edge, its crops do not.
            found = [look(np.repeat(strip[None], 16, axis=0)) for strip in strips(arguments.real, ending)]
            warned = sum(edges > BLOCK_EDGES for edges, _ in found)
            print(f"published strips of {ending}: {warned} of {len(found)} show blocks")


if __name__ == "__main__":
    main()
