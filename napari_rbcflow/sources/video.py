"""AVI and every other container that FFmpeg reads, frame-exact, through PyAV."""

from __future__ import annotations

import json
import shlex
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.codec.context import ThreadType

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.compression import lossy_codec
from napari_rbcflow.sources.grey import ColourOrder, Raw
from napari_rbcflow.sources.movie_reader import (
    BrokenFrame,
    FileFacts,
    MovieReader,
    NoSuchFrame,
    RawFrame,
    choose_series,
)
from napari_rbcflow.types import SIMULATED_MARK

_HEADER_LIMIT = 1 << 20  # no recorder's stream headers are longer


@dataclass
class AviFacts:
    """Frames promised by the headers, whole frames found, and the rate as written."""

    promised: int = 0  # by the recorder when it closes the file; 0 where it did not
    whole: int = 0  # whose data are all there; repeated frames (empty chunks) are not among them
    places: int = 0  # `whole` and the repeated ones
    fps: float | None = None  # None for a rate or scale of zero
    cut: bool = False  # the file ends before a chunk does
    video_stream: int | None = None


def inspect_avi(path: Path) -> AviFacts | None:
    """Walk the chunks of an AVI; None where the file is not one (then FFmpeg decides)."""
    facts = AviFacts()
    end_of_file = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"AVI ":
            return None
        place = 0
        while place + 12 <= end_of_file:
            file.seek(place)
            name, size, kind = struct.unpack("<4sI4s", file.read(12))
            if name != b"RIFF" or kind not in (b"AVI ", b"AVIX"):
                break
            # A recorder that was killed leaves zero for the size: then the segment is the rest.
            end = place + 8 + size if size else end_of_file
            facts.cut = facts.cut or end > end_of_file
            _walk(file, place + 12, min(end, end_of_file), end_of_file, facts)
            place = end + (end & 1)
    return facts


def _walk(file: BinaryIO, place: int, end: int, end_of_file: int, facts: AviFacts) -> None:
    while place + 8 <= end:
        file.seek(place)
        name, size = struct.unpack("<4sI", file.read(8))
        stop = place + 8 + size
        if name == b"LIST":
            kind = file.read(4)
            if kind == b"movi":
                open_end = size <= 4
                if open_end and stop >= end:
                    return
                facts.cut = facts.cut or stop > end_of_file
                _count(file, place + 12, end if open_end else min(stop, end_of_file), facts)
                if open_end and facts.places:
                    return
            elif kind == b"hdrl":
                _read_headers(file.read(min(size - 4, _HEADER_LIMIT)), facts)
        elif stop > end_of_file:
            facts.cut = True
        place = stop + (stop & 1)


def _count(file: BinaryIO, place: int, end: int, facts: AviFacts) -> None:
    stream = b"%02d" % (facts.video_stream or 0)
    while place + 8 <= end:
        file.seek(place)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"LIST":
            place += 12  # a "rec " list: its chunks follow as if it were not there
            continue
        if name in (b"idx1", b"\0\0\0\0"):
            return
        stop = place + 8 + size
        if stop > end:
            facts.cut = True
            return
        if name[:2] == stream and name[2:] in (b"db", b"dc"):
            facts.places += 1
            facts.whole += size > 0
        place = stop + (stop & 1)


def _read_headers(headers: bytes, facts: AviFacts) -> None:
    """Read stream headers (strh) and the OpenDML frame count (dmlh), wherever in the lists they are."""
    place, stream = 0, -1
    while place + 8 <= len(headers):
        name, size = struct.unpack_from("<4sI", headers, place)
        if name == b"LIST":
            place += 12
            continue
        body = headers[place + 8 : place + 8 + size]
        if name == b"strh" and len(body) >= 36:
            stream += 1
            if body[:4] == b"vids" and facts.video_stream is None:
                facts.video_stream = stream
                scale, rate, _, length = struct.unpack_from("<4I", body, 20)
                facts.fps = rate / scale if scale and rate else None
                facts.promised = max(facts.promised, length)
        elif name == b"dmlh" and len(body) >= 4:
            facts.promised = max(facts.promised, struct.unpack_from("<I", body)[0])
        place += 8 + size + (size & 1)


class VideoCursor:
    """Stays where it read last in a reader's movie, so that the next frame costs one frame."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self._container: av.container.InputContainer | None = None
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._in_order: Iterator[RawFrame] | None = None
        self._next: RawFrame | None = None
        self._shown: RawFrame | None = None
        self._at = -1
        # An AVI of dependent frames has no time stamps that tell the order of display.
        self._seeks = reader.intra_only or not reader.counts_frames
        self._stamps: list[int] = []
        self._keys: list[int] = []

    def read(self, place: int) -> Raw:
        """Return the frame at a place, or the one that the recorder repeated there; else NoSuchFrame."""
        if self._seeks:
            with suppress(av.FFmpegError, LookupError):
                return self._by_seeking(place)
            self._seeks = False
        return self._by_decoding(place)

    def close(self) -> None:
        """Close the file."""
        container, self._container = self._container, None
        if container is not None:
            container.close()
        self._restart()

    def _by_seeking(self, place: int) -> Raw:
        if self._container is None:
            self._container, self._stream = _open(self._reader.path)
            if not self._reader.counts_frames:
                self._index()
        if self._reader.counts_frames:
            stamp, starts, near = place, [place], self._at == place - 1
        else:
            stamp = self._stamps[place]
            k = bisect_right(self._keys, stamp) - 1
            # The key frame before as well: frames shown before a key frame may be stored behind it.
            starts = self._keys[max(0, k - 1) : k + 1][::-1]
            # Up to the next key frame it is cheaper to decode on.
            near = self._at == place - 1 or starts[0] <= (self._stamps[self._at] if self._at >= 0 else -1)
        image = self._decode_to(stamp) if 0 <= self._at < place and near else None
        for start in starts:
            if image is not None:
                break
            self._container.seek(start, stream=self._stream)
            self._decoded = self._container.decode(self._stream)
            image = self._decode_to(stamp, from_key=True)
        if image is None:
            self._at = -1
            raise LookupError(place)
        self._at = place
        return image

    def _decode_to(self, stamp: int, *, from_key: bool = False) -> Raw | None:
        """Return the frame of that time stamp, if it comes; after a seek only from a key frame on."""
        whole = not from_key
        for frame in self._decoded:
            if frame.pts is None or frame.pts > stamp:
                return None  # a repeated frame, or a wrong index
            whole = whole or bool(frame.key_frame)
            if frame.pts == stamp:
                return self._reader.image(frame) if whole else None
        return None

    def _index(self) -> None:
        container, stream = _open(self._reader.path)
        with container:
            packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size]
        if any(pts is None for pts, _ in packets):
            raise LookupError("no time stamps")
        self._stamps = sorted(pts for pts, _ in packets if pts is not None)
        self._keys = sorted(pts for pts, key in packets if key and pts is not None)
        if len(set(self._stamps)) < len(self._stamps) or not self._keys or self._keys[0] > self._stamps[0]:
            raise LookupError("time stamps that do not tell frames apart")

    def _by_decoding(self, place: int) -> Raw:
        if self._in_order is None or self._shown is None or place < self._shown.place:
            self._restart()
            self._in_order = self._reader.frames()
            self._next = next(self._in_order, None)
        while self._next is not None and self._next.place <= place:
            self._shown, self._next = self._next, next(self._in_order, None)
        if self._shown is None:
            raise NoSuchFrame(place)
        return self._shown.image

    def _restart(self) -> None:
        in_order, self._in_order = self._in_order, None
        if in_order is not None:
            in_order.close()  # type: ignore[attr-defined]
        self._next = self._shown = None


class VideoReader(MovieReader):
    """A movie in a container.

    Grey and luminance-chrominance codecs give grey directly (luminance, full range); others are
    asked for bgr24, which is exact for palettes and RGB alike. Where every frame is a key frame
    and the container counts frames (AVI), `at` seeks and checks the frame's own time stamp; else it
    decodes the movie once.
    """

    def __init__(self, path: Path, series: int | None = None) -> None:
        self.path = path
        choose_series(path.name, [say("sources.title-video")], series)
        avi = inspect_avi(path)
        self._container, self._stream = _open(path)
        self._cursor: VideoCursor | None = None
        try:
            self._facts_of(avi)
        except BaseException:
            self.close()
            raise

    def _facts_of(self, avi: AviFacts | None) -> None:
        context, name = self._stream.codec_context, self.path.name
        pixels = context.pix_fmt
        if not pixels:
            raise BadInput("sources.codec-unknown", name=name)
        self._format, order = _wanted_format(pixels)
        self._palette: Raw | None = None
        self.counts_frames = avi is not None  # in its time stamps
        self.intra_only = context.codec.intra_only  # every frame is a key frame
        n = avi.whole if avi else self._count_packets()
        self.facts = FileFacts(
            n, order=order, format=f"{self._container.format.name} {context.name} {pixels}"
        )
        self.facts.lossy_codec = self._lossy_codec()
        self.facts.details["codec"] = f"{context.name} {pixels}".strip()
        if avi is None:
            rate = self._stream.average_rate or self._stream.guessed_rate
            self.facts.take_fps(float(rate) if rate else None, name)
        else:
            _refuse_cut(avi, name)
            self.facts.take_fps(avi.fps, name)
            if n and not avi.promised:
                self.facts.warnings.append(say("sources.avi-not-closed", name=name, frames=n))
        self._take_comment(self._container.metadata.get("comment", ""), name)
        if self._format == "gray" and not pixels.startswith("gray") and n:
            self._warn_of_colour()
        if pixels == "pal8" and n:
            self._palette = self._read_palette()
        self._seekable = avi is not None and avi.whole == avi.places and self.intra_only
        self.facts.n_places = avi.places if avi else None

    def _take_comment(self, comment: str, name: str) -> None:
        """Read the comment, where `rbcflow simulate` writes JSON."""
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(comment)
            self.facts.simulated = told.get(SIMULATED_MARK) is True if isinstance(told, dict) else False
            self.facts.take_pixel_size(float(told["pixel_size_um"]), name)

    def frames(self) -> Iterator[RawFrame]:
        container, stream = _open(self.path)
        with container:
            last = -1
            for count, frame in enumerate(container.decode(stream)):
                # An AVI counts frames in its time stamps, so a frame that the recorder repeated
                # (an empty chunk) shows as a gap; elsewhere time stamps are rounded: count.
                pts = frame.pts if self.counts_frames else None
                last = pts if pts is not None and pts > last else max(count, last + 1)
                yield RawFrame(last, None, self.image(frame))

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        if not self._seekable:
            yield from self._at_by_decoding(places)
            return
        container, stream = _open(self.path)
        with container:
            for done, place in enumerate(places):
                container.seek(place, stream=stream)
                frame = next(container.decode(stream), None)
                if frame is None or frame.pts != place:  # no index, or a wrong one
                    yield from self._at_by_decoding(places[done:])
                    return
                yield self.image(frame)

    def frame(self, place: int) -> Raw:
        if self._cursor is None:
            self._cursor = VideoCursor(self)
        return self._cursor.read(place)

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        self._container.close()

    def _at_by_decoding(self, places: Sequence[int]) -> Iterator[Raw]:
        wanted = iter(places)
        place = next(wanted, None)
        container, stream = _open(self.path)
        count = 0
        try:
            with container:
                for frame in container.decode(stream):
                    if place is None:
                        return
                    if count == place:
                        yield self.image(frame)
                        place = next(wanted, None)
                    count += 1
        except av.FFmpegError as error:
            raise BrokenFrame(count, error) from error
        if place is not None:
            raise BrokenFrame(count, EOFError(say("sources.ends-before-frame")))

    def image(self, frame: av.VideoFrame) -> Raw:
        """Return a decoded frame as an array."""
        if self._palette is not None:
            indices, _ = frame.to_ndarray()
            entries: Raw = self._palette[indices]
            return entries
        image: Raw = frame.to_ndarray(format=self._format)
        return image

    def _read_palette(self) -> Raw:
        """Return grey, shape (256,), or BGR, shape (256, 3), of each palette entry.

        FFmpeg sends the palette with the first packet only: after a seek a frame has none.
        """
        container, stream = _open(self.path)
        with container:
            argb = next(container.decode(stream)).to_ndarray()[1]
        bgr = np.ascontiguousarray(argb[:, :0:-1])
        return bgr[:, 0].copy() if np.array_equal(bgr.min(axis=1), bgr.max(axis=1)) else bgr

    def _count_packets(self) -> int:
        """Count frames without decoding: the headers of containers other than AVI may be silent or guess."""
        return sum(1 for packet in self._container.demux(self._stream) if packet.size)

    def _lossy_codec(self) -> str:
        container, stream = _open(self.path)
        with container:
            packet = next((packet for packet in container.demux(stream) if packet.size), None)
            return "" if packet is None else lossy_codec(stream, packet)

    def _warn_of_colour(self) -> None:
        container, stream = _open(self.path)
        with container:
            frame = next(container.decode(stream), None)
            if frame is None:
                return
            bgr = frame.to_ndarray(format="bgr24").astype(np.int16)
            if int(np.ptp(bgr[::4, ::4], axis=2).max()) > 16:  # beyond what a codec does to grey
                self.facts.warnings.append(say("sources.video-in-colour", name=self.path.name))


def _wanted_format(pixels: str) -> tuple[str, ColourOrder]:
    kind = av.VideoFormat(pixels)
    deep = max(component.bits for component in kind.components) > 8
    if kind.is_rgb or kind.has_palette:
        return ("rgb48le", "rgb") if deep else ("bgr24", "bgr")
    return ("gray16le" if deep and len(kind.components) == 1 else "gray"), "bgr"


def _refuse_cut(avi: AviFacts, name: str) -> None:
    if avi.whole and not avi.cut and avi.places >= avi.promised:
        return
    if not avi.whole:
        if avi.cut or avi.promised:
            raise BadInput("sources.avi-no-whole-frame", name=name)
        raise BadInput("sources.no-frames", name=name)
    command = f"ffmpeg -i {shlex.quote(name)} -frames:v {avi.whole} -c copy whole.avi"
    remedy = say("sources.record-copy-or-keep", command=command)
    if avi.promised > avi.places:
        raise BadInput(
            "sources.cut-short-of-promise", name=name, frames=avi.promised, whole=avi.whole, remedy=remedy
        )
    raise BadInput("sources.cut-short", name=name, whole=avi.whole, remedy=remedy)


def _open(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        why = error.strerror or error
        raise BadInput("sources.not-a-movie", name=path.name, why=why) from error
    if not container.streams.video:
        container.close()
        raise BadInput("sources.no-video", name=path.name)
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise BadInput("sources.codec-unknown", name=path.name)
    if stream.codec_context.name != "rawvideo":
        stream.thread_type = ThreadType.AUTO
    return container, stream
