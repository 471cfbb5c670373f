"""AVI and every other container that FFmpeg reads, frame-exact, through PyAV."""

from __future__ import annotations

import json
import shlex
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.codec.context import ThreadType
from av.stream import Disposition

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.avi import inspect_avi, refuse_cut
from napari_rbcflow.sources.base import MOST_PIXELS
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

_SAME_RATE = 0.01  # by which the rate that a file promises may differ from that of its time stamps
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
_NOT_MOVIES = {"tty", "hls", "dash", "concat", "sdp", "rtsp", "lavfi", "bin", "xbin", "adf", "idf"}
"""Formats of text and of lists of other files, for which FFmpeg takes whatever looks like them."""


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
        self._seeks = bool(reader.stamps)

    def read(self, place: int) -> Raw:
        """Return the frame at a place, or the one that the recorder repeated there; else NoSuchFrame."""
        places = self._reader.places
        row = bisect_right(places, place) - 1
        if row < 0 or (places[row] != place and not self._reader.is_avi):
            raise NoSuchFrame(place)
        if self._seeks:
            with suppress(av.FFmpegError, LookupError):
                return self._by_seeking(row)
            self._seeks = False
        return self._by_decoding(places[row])

    def close(self) -> None:
        """Close the file."""
        container, self._container = self._container, None
        if container is not None:
            container.close()
        self._restart()

    def _by_seeking(self, row: int) -> Raw:
        if self._container is None:
            self._container, self._stream = self._reader.reopen()
        stamps, keys = self._reader.stamps, self._reader.keys
        stamp = stamps[row]
        k = bisect_right(keys, stamp) - 1
        # The key frame before as well: frames shown before a key frame may be stored behind it.
        starts = keys[max(0, k - 1) : k + 1][::-1] if k >= 0 else [stamp]
        # Up to the next key frame it is cheaper to decode on.
        near = self._at == row - 1 or starts[0] <= (stamps[self._at] if self._at >= 0 else stamps[0] - 1)
        image = self._decode_to(stamp) if 0 <= self._at < row and near else None
        for start in starts:
            if image is not None:
                break
            self._container.seek(start, stream=self._stream)
            self._decoded = self._container.decode(self._stream)
            image = self._decode_to(stamp, from_key=True)
        if image is None:
            self._at = -1
            raise LookupError(row)
        self._at = row
        return image

    def _decode_to(self, stamp: int, *, from_key: bool = False) -> Raw | None:
        """Return the frame of that time stamp, if it comes; after a seek only from a key frame on."""
        whole = not from_key
        for frame in self._decoded:
            if frame.pts is None or frame.pts > stamp:
                return None  # a wrong index
            whole = whole or bool(frame.key_frame)
            if frame.pts == stamp:
                return self._reader.image(frame) if whole else None
        return None

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
    asked for bgr24, which is exact for palettes and RGB alike. Frames have their places by the time stamps
    of the container, sorted: B-frames are stored in another order. An AVI has no time stamps: its frames are
    counted, and an empty chunk stands for one that the recorder repeated.
    """

    may_be_part = True

    def __init__(self, path: Path, series: int | None = None) -> None:
        self.path = path
        self._index: int | None = None  # of the stream, as soon as it is chosen
        self._tag = ""
        self._cursor: VideoCursor | None = None
        self._container = self._open()
        try:
            self._choose(series)
            self._look()
        except BaseException:
            self.close()
            raise

    def reopen(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        """Return the file opened once more, and the stream."""
        container = self._open()
        stream = container.streams[self._index or 0]
        assert isinstance(stream, av.VideoStream)
        if self._tag:
            stream.codec_context.codec_tag = self._tag
        if stream.codec_context.name != "rawvideo":
            stream.thread_type = ThreadType.AUTO
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        return container, stream

    def _open(self) -> av.container.InputContainer:
        try:
            # The protocol is named: a file's own name may look like one (``http:...``, ``a:b.avi``).
            return av.open(f"file:{self.path}")
        except av.FFmpegError as error:
            why = error.strerror or error
            raise BadInput("sources.not-a-movie", name=self.path.name, why=why) from error

    def _choose(self, series: int | None) -> None:
        name = self.path.name
        if set(self._container.format.name.split(",")) & _NOT_MOVIES:
            raise BadInput("sources.not-a-movie", name=name, why=self._container.format.long_name)
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise BadInput("sources.no-video", name=name)
        titles = [
            say("sources.title-video", width=s.width, height=s.height, codec=s.codec_context.name)
            if s.codec_context is not None
            else say("sources.title-video-unknown")
            for s in streams
        ]
        self._stream = streams[choose_series(name, titles, series)]
        self._index = self._stream.index
        self.size = self._stream.width, self._stream.height
        context = self._stream.codec_context
        if context is None or not context.pix_fmt:
            raise BadInput("sources.codec-unknown", name=name)
        if context.width * context.height > MOST_PIXELS:
            size = f"{context.width} x {context.height}"
            raise BadInput("sources.frames-too-large", name=name, size=size)

    def _look(self) -> None:
        context, name = self._stream.codec_context, self.path.name
        avi = inspect_avi(self.path, self._stream.index)
        self.is_avi = avi is not None
        if avi is not None:
            refuse_cut(avi, name)
        packets = (packet for packet in self._container.demux(self._stream) if packet.size)
        first = next(packets, None)
        if first is None:
            raise BadInput("sources.no-frames", name=name)
        pixels, self.facts = context.pix_fmt or "", FileFacts(0)
        facts = self.facts
        if context.name == "rawvideo" and (held := _held_pixels(context, first.size)):
            said, (self._tag, pixels) = pixels, held
            facts.warnings.append(say("sources.video-mislabelled", name=name, said=said, held=pixels))
        self._format, facts.order = _wanted_format(pixels)
        facts.format = f"{self._container.format.name} {context.name} {pixels}"
        facts.details["codec"] = f"{context.name} {pixels}".strip()
        self.stamps: list[int] = []
        """Of the frames in the order of display; empty where they do not tell frames apart."""
        self.keys: list[int] = []
        if avi is not None:
            facts.n_frames, facts.places, facts.n_places = len(avi.whole), avi.whole, avi.places
            facts.take_fps(avi.fps, name)
            if avi.fps and np.median(np.diff(avi.whole[:1000])) > 1:  # its clock ticks faster than its camera
                facts.fps = None
                facts.take_times([tick / avi.fps for tick in avi.whole], name)
            if context.codec.intra_only:  # else its frames have no time stamps that tell the order of display
                self.stamps = self.keys = avi.whole
            if not avi.promised:
                facts.warnings.append(say("sources.avi-not-closed", name=name, frames=facts.n_frames))
        else:
            self._take_stamps(chain([first], packets))
        self.places: Sequence[int] = facts.places or range(facts.n_frames)
        self._seekable = avi is not None and bool(self.stamps) and avi.places == len(avi.whole)
        facts.pixel_ratio = float(self._stream.sample_aspect_ratio or 1)
        facts.lossy_codec = lossy_codec(self._stream, first)  # which takes the packet
        self._take_comment(self._container.metadata.get("comment", ""), name)
        self._palette: Raw | None = None
        self._look_at_first_frame(pixels)

    def _take_stamps(self, packets: Iterable[av.Packet[av.VideoStream]]) -> None:
        """Take the time stamps of a container other than AVI, whose headers may be silent or guess."""
        stream, facts, name = self._stream, self.facts, self.path.name
        found = [(packet.pts, packet.is_keyframe, packet.is_discard) for packet in packets]
        shown = [(pts, key) for pts, key, cut_off in found if not cut_off]  # by an edit list
        facts.n_frames = len(shown)
        rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
        if self._container.format.flags & _NO_TIMESTAMPS:
            # A bare stream: FFmpeg makes its times up, 25 frames/s where the stream says nothing.
            rates = [float(rate) for rate in (stream.codec_context.framerate,) if rate]
            shown = [(None, key) for _, key in shown]
        stamps = sorted(pts for pts, _ in shown if pts is not None)
        if len(stamps) == len(shown):
            keys = sorted(pts for pts, key in shown if key and pts is not None)
            if len(set(stamps)) == len(stamps) and keys and keys[0] <= stamps[0]:
                self.stamps, self.keys = stamps, keys
            if len(stamps) > 1 and stream.time_base:
                facts.take_times([float(stamp * stream.time_base) for stamp in stamps], name)
        measured = facts.fps
        promised = stream.frames
        if "matroska" in self._container.format.name and self._container.duration and stamps and measured:
            # Its header gives the length, once the recorder has closed it.
            tick = float(stream.time_base or 0)  # to which times and length are rounded
            ends = (self._container.duration / av.time_base - tick * stamps[-1]) * measured
            promised = len(found) + round(ends - max(0.0, tick * measured - 0.5)) - 1
        if promised > len(found):
            command = f"ffmpeg -i {shlex.quote(name)} -c copy whole{self.path.suffix}"
            remedy = say("sources.record-copy-or-keep", command=command)
            raise BadInput(
                "sources.cut-short-of-promise", name=name, frames=promised, whole=len(found), remedy=remedy
            )
        if measured is None:
            facts.take_fps(rates[0] if rates else None, name)
        else:  # time stamps are rounded
            facts.fps = next((rate for rate in rates if abs(rate / measured - 1) < _SAME_RATE), measured)

    def _take_comment(self, comment: str, name: str) -> None:
        """Read the comment, where `rbcflow simulate` writes JSON."""
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(comment)
            self.facts.simulated = told.get(SIMULATED_MARK) is True if isinstance(told, dict) else False
            self.facts.take_pixel_size(float(told["pixel_size_um"]), name)

    def frames(self) -> Iterator[RawFrame]:
        places, rows = self.places, {stamp: row for row, stamp in enumerate(self.stamps)}
        container, stream = self.reopen()
        with container:
            row = -1
            for frame in container.decode(stream):
                # Counted, and by the time stamp where the decoder left out a frame.
                row = max(row + 1, rows.get(frame.pts, 0) if frame.pts is not None else 0)
                if row >= len(places):
                    return
                yield RawFrame(places[row], None, self.image(frame))

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        if not self._seekable:
            yield from self._at_by_decoding(places)
            return
        container, stream = self.reopen()
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
        container, stream = self.reopen()
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
        if frame.format.name != "pal8":
            image: Raw = frame.to_ndarray(format=self._format)
            return image
        indices, argb = frame.to_ndarray()
        # From an AVI, FFmpeg sends the palette with the first packet only: after a seek a frame has none.
        palette = self._palette if self._palette is not None and not argb[:, 1:].any() else _colours(argb)
        entries: Raw = palette[indices]
        return entries

    def _look_at_first_frame(self, pixels: str) -> None:
        container, stream = self.reopen()
        try:
            with container:
                frame = next(container.decode(stream), None)
                if frame is None:
                    return
                if frame.interlaced_frame:
                    self.facts.warnings.append(say("sources.video-interlaced", name=self.path.name))
                if pixels == "pal8":
                    self._palette = _colours(frame.to_ndarray()[1])
                elif self._format == "gray" and not pixels.startswith("gray"):
                    bgr = frame.to_ndarray(format="bgr24")[::4, ::4].astype(np.int16)
                    if int(np.ptp(bgr, axis=2).max()) > 16:  # beyond what a codec does to grey
                        self.facts.warnings.append(say("sources.video-in-colour", name=self.path.name))
        except av.FFmpegError as error:
            why = error.strerror or error
            raise BadInput("sources.unreadable-at-frame", name=self.path.name, frame=0, why=why) from error


def _colours(argb: Raw) -> Raw:
    """Return grey, shape (256,), or BGR, shape (256, 3), of each entry of a palette.

    Without a colour table all entries are the same: then a pixel is its own grey.
    """
    bgr = np.ascontiguousarray(argb[:, :0:-1])
    if not np.ptp(bgr, axis=0).any():
        return np.arange(256, dtype=np.uint8)
    return bgr[:, 0].copy() if np.array_equal(bgr.min(axis=1), bgr.max(axis=1)) else bgr


def _held_pixels(context: av.VideoCodecContext, size: int) -> tuple[str, str] | None:
    """Return as what raw frames must be read that have not the size of the pixels that their header names.

    That is a code of four letters, and FFmpeg's name of the pixels. OpenCV, for one, writes 8-bit grey or
    I420 under any name.
    """
    pixels = context.width * context.height
    if context.format is None or _fits(size, pixels * context.format.bits_per_pixel / 8):
        return None
    kinds = {"Y800": ("gray", 1.0), "I420": ("yuv420p", 1.5)}
    return next(((tag, name) for tag, (name, many) in kinds.items() if _fits(size, pixels * many)), None)


def _fits(size: int, wanted: float) -> bool:
    return 0.99 <= size / wanted <= 1.06  # rows may be padded


def _wanted_format(pixels: str) -> tuple[str, ColourOrder]:
    kind = av.VideoFormat(pixels)
    deep = max(component.bits for component in kind.components) > 8
    if kind.is_rgb or kind.has_palette:
        return ("rgb48le", "rgb") if deep else ("bgr24", "bgr")
    return ("gray16le" if deep and len(kind.components) == 1 else "gray"), "bgr"
