"""The chunks of an AVI: what its headers promise, which frames are whole, which the recorder repeated."""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

_HEADER_LIMIT = 1 << 20  # no recorder's stream headers are longer
_NO_FRAMES = (b"pc", b"wb", b"tx")  # the second half of a chunk's name: a palette, sound, text


@dataclass
class AviFacts:
    """Frames promised by the headers, whole frames found, and the rate as written, of one stream."""

    stream: int  # as the chunks are named by
    promised: int = 0  # by the recorder when it closes the file; 0 where it did not
    whole: list[int] = field(default_factory=list)  # places of frames whose data are all there
    places: int = 0  # those and the repeated ones (empty chunks)
    fps: float | None = None  # None for a rate or scale of zero
    cut: bool = False  # the file ends before a chunk does


def inspect_avi(path: Path, stream: int = 0) -> AviFacts | None:
    """Walk the chunks of an AVI; None where the file is not one (then FFmpeg decides)."""
    facts = AviFacts(stream)
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
    stream = b"%02d" % facts.stream
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
        if name[:2] == stream and name[2:] not in _NO_FRAMES:
            if size:
                facts.whole.append(facts.places)
            facts.places += 1
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
            if stream == facts.stream:
                scale, rate, _, length = struct.unpack_from("<4I", body, 20)
                facts.fps = rate / scale if scale and rate else None
                facts.promised = max(facts.promised, length)
        elif name == b"dmlh" and len(body) >= 4 and not facts.stream:
            facts.promised = max(facts.promised, struct.unpack_from("<I", body)[0])
        place += 8 + size + (size & 1)


def refuse_cut(avi: AviFacts, name: str) -> None:
    """Refuse one that its recorder or a copy cut short, and say how many frames are whole."""
    whole = len(avi.whole)
    if whole and not avi.cut and avi.places >= avi.promised:
        return
    if not whole:
        if avi.cut or avi.promised:
            raise BadInput("sources.avi-no-whole-frame", name=name)
        raise BadInput("sources.no-frames", name=name)
    command = f"ffmpeg -i {shlex.quote(name)} -frames:v {whole} -c copy whole.avi"
    remedy = say("sources.record-copy-or-keep", command=command)
    if avi.promised > avi.places:
        raise BadInput(
            "sources.cut-short-of-promise", name=name, frames=avi.promised, whole=whole, remedy=remedy
        )
    raise BadInput("sources.cut-short", name=name, whole=whole, remedy=remedy)
