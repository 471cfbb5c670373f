"""Chunks that lie plain while they are filled and are packed once they are full.

Both are buffers of the same codec (zarr's ``blosc``), so that any zarr reader reads either at any time: a
buffer whose header says "copied, not compressed" holds its bytes plain behind 16 bytes of header, and can be
filled in place. What is in it when the process dies is there, as it is with chunks that have no codec.
"""

from __future__ import annotations

import logging
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from numcodecs import blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec

from napari_rbcflow.ring.disk import replace_file

log = logging.getLogger(__name__)

HEADER_BYTES = 16
_COPIED = 0x2
"""Of the header's flags."""
_LEVEL = 1
"""More packs noise no better, and takes six times as long."""


def codec() -> BloscCodec:
    """Return the codec that both kinds of chunk are of."""
    return BloscCodec(typesize=1, cname="zstd", clevel=_LEVEL, shuffle="noshuffle")


def plain_header(size: int) -> bytes:
    """Return what stands before `size` bytes that lie plain."""
    header = bytes(blosc.compress(bytes(size), b"zstd", 0, 0)[:HEADER_BYTES])
    if not header[2] & _COPIED:
        raise RuntimeError("this numcodecs has no plain buffers: install the one that comes with zarr")
    return header


def is_plain(header: bytes) -> bool:
    """Say whether the bytes behind a header lie plain."""
    return len(header) == HEADER_BYTES and bool(header[2] & _COPIED)


def pack(path: Path) -> None:
    """Put a packed chunk in the place of a plain one, in one step; where it would be no smaller, leave it.

    Raises
    ------
    OSError
        The chunk is then as it was.
    """
    data = path.read_bytes()
    if is_plain(data[:HEADER_BYTES]):
        packed = blosc.compress(memoryview(data)[HEADER_BYTES:], b"zstd", _LEVEL, 0)
        if len(packed) < len(data):
            replace_file(path, packed)


def unpack(data: bytes, size: int) -> bytes:
    """Return the bytes of a chunk, packed or plain; empty where it is damaged."""
    if len(data) < HEADER_BYTES:
        return b""
    told, _, packed = struct.unpack_from("<III", data, 4)
    # The library believes its header: a chunk that was cut would be read beyond its end.
    if told != size or packed != len(data):
        return b""
    try:
        return bytes(blosc.decompress(data))
    except (RuntimeError, ValueError):
        return b""


class Packer:
    """Packs chunks one after the other in a thread of its own, so that whoever writes does not wait."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rbcflow-pack")

    def pack(self, path: Path) -> None:
        """Pack a chunk that nobody writes to any more, soon."""
        self._thread.submit(self._pack, path)

    def _pack(self, path: Path) -> None:
        try:
            pack(path)
        except OSError as error:
            # A full disk, or on Windows somebody who reads it. It is whole as it is.
            log.info("%s stays as it is, not packed: %s", path, error)

    def close(self) -> None:
        """Wait until all are packed."""
        self._thread.shutdown()
