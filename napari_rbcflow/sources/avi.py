"""What an AVI file promises and what is really in it, by walking its chunks.

FFmpeg reads a cut file up to the cut and says nothing. The layout is that of Microsoft's RIFF/AVI
with the OpenDML 1.02 extension (several RIFF segments beyond 1 GB).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEADER_LIMIT = 1 << 20
"""Nobody's stream headers are longer; a longer one is not read."""


@dataclass
class AviFacts:
    """Frames promised by the headers, whole frames found, and the rate as written.

    Attributes
    ----------
    promised : int
        0 where the recorder did not write it (it does so when it closes the file).
    whole : int
        Frames whose data are all there; repeated frames (empty chunks) are not among them.
    places : int
        `whole` and the repeated ones.
    fps : float or None
        None for a rate or scale of zero.
    cut : bool
        The file ends before a chunk does.
    """

    promised: int = 0
    whole: int = 0
    places: int = 0
    fps: float | None = None
    cut: bool = False
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
