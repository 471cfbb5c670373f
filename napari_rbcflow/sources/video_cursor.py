"""Any frame of a video by its place: by seeking where that is exact, else by decoding up to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress

import av

from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import NoSuchFrame, RawFrame

Opener = Callable[[], tuple[av.container.InputContainer, av.VideoStream]]


class VideoCursor:
    """Stays where it read last, so that the next frame costs one frame.

    Parameters
    ----------
    opener : callable
        Gives the container anew, and its video stream.
    image_of : callable
        Turns a decoded frame into an array.
    frames : callable
        Gives all frames in order, with their places: the way that is always right.
    counts_frames : bool
        Time stamps are frame numbers (AVI).
    intra_only : bool
        Every frame is a key frame.
    """

    def __init__(
        self,
        opener: Opener,
        image_of: Callable[[av.VideoFrame], Raw],
        frames: Callable[[], Iterator[RawFrame]],
        *,
        counts_frames: bool,
        intra_only: bool,
    ) -> None:
        self._opener, self._image_of, self._frames = opener, image_of, frames
        self._counts_frames = counts_frames
        self._container: av.container.InputContainer | None = None
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._in_order: Iterator[RawFrame] | None = None
        self._next: RawFrame | None = None
        self._shown: RawFrame | None = None
        self._at = -1
        # An AVI of dependent frames has no time stamps that tell the order of display.
        self._seeks = intra_only or not counts_frames
        self._stamps: list[int] = []
        self._keys: list[int] = []

    def read(self, place: int) -> Raw:
        """Return the frame at a place, or where the recorder repeated one, the one it repeated.

        Raises
        ------
        NoSuchFrame
            If the movie has none there.
        """
        if self._seeks:
            with suppress(av.FFmpegError, LookupError):
                return self._by_seeking(place)
            self._seeks = False
        return self._by_decoding(place)

    def close(self) -> None:
        """Give the file back."""
        container, self._container = self._container, None
        if container is not None:
            container.close()
        self._restart()

    def _by_seeking(self, place: int) -> Raw:
        if self._container is None:
            self._container, self._stream = self._opener()
            if not self._counts_frames:
                self._index()
        if self._counts_frames:
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
        """Return the frame of that time stamp, if it comes; after a seek only once a key frame came."""
        whole = not from_key
        for frame in self._decoded:
            if frame.pts is None or frame.pts > stamp:
                return None  # a repeated frame, or an index that lies
            whole = whole or bool(frame.key_frame)
            if frame.pts == stamp:
                return self._image_of(frame) if whole else None
        return None

    def _index(self) -> None:
        container, stream = self._opener()
        try:
            packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size]
        finally:
            container.close()
        if any(pts is None for pts, _ in packets):
            raise LookupError("no time stamps")
        self._stamps = sorted(pts for pts, _ in packets if pts is not None)
        self._keys = sorted(pts for pts, key in packets if key and pts is not None)
        if len(set(self._stamps)) < len(self._stamps) or not self._keys or self._keys[0] > self._stamps[0]:
            raise LookupError("time stamps that do not tell frames apart")

    def _by_decoding(self, place: int) -> Raw:
        if self._in_order is None or self._shown is None or place < self._shown.place:
            self._restart()
            self._in_order = self._frames()
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
