"""AVI and every other container that FFmpeg reads, frame-exact, through PyAV."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.codec.context import ThreadType

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.avi import AviFacts, inspect_avi
from napari_rbcflow.sources.grey import ColourOrder, Raw
from napari_rbcflow.sources.movie_reader import BrokenFrame, FileFacts, MovieReader, RawFrame
from napari_rbcflow.sources.video_cursor import VideoCursor


class VideoReader(MovieReader):
    """A movie in a container.

    Grey and luminance-chrominance codecs give grey directly (luminance, full range); others are
    asked for bgr24, which is exact for palettes and RGB alike. Where every frame is a key frame
    and the container counts frames (AVI), places are found by seeking, and the frame's own time
    stamp is checked; else one decoding pass.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        avi = inspect_avi(path)
        self._container, self._stream = _open(path)
        self._cursor: VideoCursor | None = None
        try:
            self._facts_of(avi)
        except BaseException:
            self.close()
            raise

    def _facts_of(self, avi: AviFacts | None) -> None:
        context, name = self._stream.codec_context, self._path.name
        pixels = context.pix_fmt
        if not pixels:
            raise BadInput(f"{name} is in a codec that cannot be read here; save it as an uncompressed AVI.")
        self._format, order = _wanted_format(pixels)
        self._palette: Raw | None = None
        self._counts_frames = avi is not None
        n = avi.whole if avi else self._count_packets()
        self.facts = FileFacts(
            n, order=order, format=f"{self._container.format.name} {context.name} {pixels}"
        )
        self.facts.details["codec"] = f"{context.name} {pixels}".strip()
        if avi is None:
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.facts.take_fps(float(rate) if rate else None, name)
        else:
            _refuse_cut(avi, name)
            self.facts.take_fps(avi.fps, name)
            if n and not avi.promised:
                self.facts.warnings.append(
                    f"{name} was not closed by its recorder: {n} frames were found, the last may be missing."
                )
        self.facts.take_pixel_size(_pixel_size(self._container.metadata.get("comment", "")), name)
        if self._format == "gray" and not pixels.startswith("gray") and n:
            self._warn_of_colour()
        if pixels == "pal8" and n:
            self._palette = self._read_palette()
        self._seekable = avi is not None and avi.whole == avi.places and context.codec.intra_only
        self.facts.n_places = avi.places if avi else None
        self._intra_only = context.codec.intra_only

    def frames(self) -> Iterator[RawFrame]:
        container, stream = _open(self._path)
        try:
            last = -1
            for count, frame in enumerate(container.decode(stream)):
                # An AVI counts frames in its time stamps, so a frame that the recorder repeated
                # (an empty chunk) shows as a gap; elsewhere time stamps are rounded: count.
                pts = frame.pts if self._counts_frames else None
                last = pts if pts is not None and pts > last else max(count, last + 1)
                yield RawFrame(last, None, self._image(frame))
        finally:
            container.close()

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        if not self._seekable:
            yield from self._at_by_decoding(places)
            return
        container, stream = _open(self._path)
        try:
            for done, place in enumerate(places):
                container.seek(place, stream=stream)
                frame = next(container.decode(stream), None)
                if frame is None or frame.pts != place:  # no index, or one that lies
                    yield from self._at_by_decoding(places[done:])
                    return
                yield self._image(frame)
        finally:
            container.close()

    def frame(self, place: int) -> Raw:
        if self._cursor is None:
            self._cursor = VideoCursor(
                lambda: _open(self._path),
                self._image,
                self.frames,
                counts_frames=self._counts_frames,
                intra_only=self._intra_only,
            )
        return self._cursor.read(place)

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        self._container.close()

    def _at_by_decoding(self, places: Sequence[int]) -> Iterator[Raw]:
        wanted = iter(places)
        place = next(wanted, None)
        container, stream = _open(self._path)
        count = 0
        try:
            for frame in container.decode(stream):
                if place is None:
                    return
                if count == place:
                    yield self._image(frame)
                    place = next(wanted, None)
                count += 1
        except av.FFmpegError as error:
            raise BrokenFrame(count, error) from error
        finally:
            container.close()
        if place is not None:
            raise BrokenFrame(count, EOFError("the movie ends before it"))

    def _image(self, frame: av.VideoFrame) -> Raw:
        if self._palette is not None:
            indices, _ = frame.to_ndarray()
            entries: Raw = self._palette[indices]
            return entries
        image: Raw = frame.to_ndarray(format=self._format)
        return image

    def _read_palette(self) -> Raw:
        """Return grey, shape (256,), or BGR, shape (256, 3), of each palette entry.

        FFmpeg sends the palette with the first packet only: a frame that was sought has none.
        """
        container, stream = _open(self._path)
        try:
            argb = next(container.decode(stream)).to_ndarray()[1]
        finally:
            container.close()
        bgr = np.ascontiguousarray(argb[:, :0:-1])
        return bgr[:, 0].copy() if np.array_equal(bgr.min(axis=1), bgr.max(axis=1)) else bgr

    def _count_packets(self) -> int:
        """Count frames without decoding: other containers' headers may say nothing or guess."""
        return sum(1 for packet in self._container.demux(self._stream) if packet.size)

    def _warn_of_colour(self) -> None:
        container, stream = _open(self._path)
        try:
            frame = next(container.decode(stream), None)
            if frame is None:
                return
            bgr = frame.to_ndarray(format="bgr24").astype(np.int16)
            if int(np.ptp(bgr[::4, ::4], axis=2).max()) > 16:  # beyond what a codec does to grey
                self.facts.warnings.append(f"{self._path.name} is in colour: its luminance is used as grey.")
        finally:
            container.close()


def _wanted_format(pixels: str) -> tuple[str, ColourOrder]:
    kind = av.VideoFormat(pixels)
    deep = max(component.bits for component in kind.components) > 8
    if kind.is_rgb or kind.has_palette:
        return ("rgb48le", "rgb") if deep else ("bgr24", "bgr")
    return ("gray16le" if deep and len(kind.components) == 1 else "gray"), "bgr"


def _pixel_size(comment: str) -> float | None:
    """Read the pixel size from the comment, where `rbcflow simulate` writes it as JSON."""
    try:
        return float(json.loads(comment)["pixel_size_um"])
    except (ValueError, KeyError, TypeError):
        return None


def _refuse_cut(avi: AviFacts, name: str) -> None:
    if avi.whole and not avi.cut and avi.places >= avi.promised:
        return
    if not avi.whole:
        if avi.cut or avi.promised:
            raise BadInput(f"{name} is cut short before its first whole frame; record it again.")
        raise BadInput(f"{name} is empty: it has no frames.")
    promise = f"its header promises {avi.promised} frames and " if avi.promised > avi.places else ""
    raise BadInput(
        f"{name} is cut short: {promise}{avi.whole} are whole; record it again, or keep those with: "
        f"ffmpeg -i {shlex.quote(name)} -frames:v {avi.whole} -c copy whole.avi"
    )


def _open(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise BadInput(
            f"{path.name} cannot be read as a movie (FFmpeg: {error.strerror or error}); "
            "give an AVI, a TIFF stack or folder, a Zarr or a session folder."
        ) from error
    if not container.streams.video:
        container.close()
        raise BadInput(f"{path.name} holds no video; give a movie.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise BadInput(f"{path.name} is in a codec that cannot be read here; save it as an uncompressed AVI.")
    if stream.codec_context.name != "rawvideo":
        stream.thread_type = ThreadType.AUTO
    return container, stream
