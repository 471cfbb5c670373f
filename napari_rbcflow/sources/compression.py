"""Which codecs throw picture away. Their movies look alike to a person, and not to the networks.

FFmpeg knows of every codec whether it is lossy. Some can be both (H.264, JPEG 2000, ...): there the stream
itself tells, and where it does not, it counts as lossy, as it nearly always is.
"""

from __future__ import annotations

import re
import struct
import threading

import av
from av.bitstream import BitStreamFilterContext

from napari_rbcflow.sentences import say

# What a stream without loss says of itself in its headers, by codec.
_SAYS_LOSSLESS = {
    "h264": r"qpprime_y_zero_transform_bypass_flag +\S+ = 1",
    "hevc": r"transquant_bypass_enabled_flag +\S+ = 1",
    "vp9": r"base_q_idx +\S+ = 0\b",
    "av1": r"base_q_idx +\S+ = 0\b",
}
_IMAGES = {"mjpeg", "jpegls", "jpeg2000", "jpegxl", "webp"}  # of which a packet is a file
_LERC_FLOAT = 6  # and double, the last of its types
_LEVEL = threading.Lock()  # FFmpeg has one level of logging for all threads


def lossy_codec(stream: av.VideoStream, packet: av.Packet[av.VideoStream]) -> str:
    """Return the name of a stream's codec if it is lossy; empty if every pixel is kept."""
    codec = stream.codec_context.codec
    name = codec.canonical_name
    if not codec.lossy or _is_lossless(name, stream, packet):
        return ""
    tells = not codec.lossless or name in _SAYS_LOSSLESS or name in _IMAGES
    return name if tells else say("sources.codec-unsure", codec=name)


def repeats_pictures(lossy_codec: str) -> bool:
    """Tell whether a lossy codec stores a picture that differs little from the one before as that one."""
    try:
        return bool(lossy_codec) and not av.codec.Codec(lossy_codec.partition(",")[0]).intra_only
    except ValueError:  # a compression of single pictures
        return False


def image_is_lossless(data: bytes) -> bool:
    """Tell of a compressed image, by its first bytes, whether every pixel is kept.

    Of JPEG, JPEG-LS, JPEG 2000, JPEG XL, LERC and WebP; of others it is not known, and False.
    """
    if data[:2] == b"\xff\x4f" or data[4:8] == b"jP  ":
        # Coding style: the transform without rounding. That no bits of it were cut off cannot be seen.
        style = data.find(b"\xff\x52")
        return style >= 0 and data[style + 13 : style + 14] == b"\1"
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return _jpeg_xl_is_lossless(data)
    if data[:6] == b"Lerc2 ":
        return _lerc_is_lossless(data)
    if data[:4] == b"RIFF":
        return data[12:16] == b"VP8L"
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:  # start of scan, reached only by JPEG-LS: its error that is let pass
            near = place + 5 + 2 * data[place + 4]
            return data[near : near + 1] == b"\0"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker in (0xC3, 0xC7, 0xCB, 0xCF)
        place += 2 + size
    return False


def _lerc_is_lossless(data: bytes) -> bool:
    """Tell by the greatest error that LERC was allowed: of whole numbers, half a step changes none."""
    version = int.from_bytes(data[6:10], "little")
    place = 10 + 4 * (version >= 3) + 4 * (5 + (version >= 4))
    if len(data) < place + 24:
        return False
    (kind,) = struct.unpack_from("<i", data, place)
    (error,) = struct.unpack_from("<d", data, place + (12 if version >= 6 else 4))
    return float(error) <= (0.5 if kind < _LERC_FLOAT else 0.0)


def _jpeg_xl_is_lossless(data: bytes) -> bool:
    """Tell by its space of colours: what is lossy has the eye's, but for what was a JPEG before."""
    if data[:2] != b"\xff\x0a":
        start = data.find(b"\xff\x0a", 12)
        if start < 0 or b"jbrd" in data[:start]:
            return False
        data = data[start:]
    bits, at = int.from_bytes(data[2:64], "little"), 0

    def read(n: int) -> int:
        nonlocal at
        at += n
        return (bits >> (at - n)) & ((1 << n) - 1)

    def choose(*choices: tuple[int, int]) -> int:
        """One of four: a number, and how many bits are added to it."""
        number, more = choices[read(2)]
        return number + read(more)

    def skip_size() -> None:
        small = read(1)
        sides = ((0, 9), (0, 13), (0, 18), (0, 30))
        for has_side in (True, None):
            if has_side or not read(3):  # the width may be given by a ratio
                read(5) if small else choose(*sides)

    skip_size()
    if read(1):  # all by default
        return False
    if read(1):
        read(3)
        if read(1):
            skip_size()
        if read(2):  # a preview, or moving: not of a microscope
            return False
    if read(1):
        choose((32, 0), (16, 0), (24, 0), (1, 6))
        read(4)
    else:
        choose((8, 0), (10, 0), (12, 0), (1, 6))
    read(1)
    extra = choose((0, 0), (1, 0), (2, 4), (1, 12))
    return not extra and not read(1)


def _is_lossless(name: str, stream: av.VideoStream, packet: av.Packet[av.VideoStream]) -> bool:
    if name in _SAYS_LOSSLESS:
        return re.search(_SAYS_LOSSLESS[name], _headers(stream, packet)) is not None
    return name in _IMAGES and image_is_lossless(bytes(packet))


def _headers(stream: av.VideoStream, packet: av.Packet[av.VideoStream]) -> str:
    """Return the headers of a packet in words, as FFmpeg's own filter for finding faults writes them."""
    with _LEVEL:
        before = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            with av.logging.Capture() as said:
                BitStreamFilterContext("trace_headers", in_stream=stream).filter(packet)
        except av.FFmpegError:
            pass  # damaged: what could be read was said
        finally:
            av.logging.set_level(before)
    return "\n".join(text for _, _, text in said)
