"""Which codecs throw picture away. Their movies look alike to a person, and not to the networks.

FFmpeg knows of every codec whether it is lossy. Some can be both (H.264, JPEG 2000, ...): there the stream
itself tells, and where it does not, it counts as lossy, as it nearly always is.
"""

from __future__ import annotations

import re
import threading

import av
from av.bitstream import BitStreamFilterContext

# What a stream without loss says of itself in its headers, by codec.
_SAYS_LOSSLESS = {
    "h264": r"qpprime_y_zero_transform_bypass_flag +\S+ = 1",
    "hevc": r"transquant_bypass_enabled_flag +\S+ = 1",
    "vp9": r"base_q_idx +\S+ = 0\b",
    "av1": r"base_q_idx +\S+ = 0\b",
}
_LEVEL = threading.Lock()  # FFmpeg has one level of logging for all threads


def lossy_codec(stream: av.VideoStream, packet: av.Packet[av.VideoStream]) -> str:
    """Return the name of a stream's codec if it is lossy; empty if every pixel is kept."""
    codec = stream.codec_context.codec
    name = codec.canonical_name
    if not codec.lossy or _is_lossless(name, stream, packet):
        return ""
    return name


def jpeg_is_lossless(data: bytes) -> bool:
    """Tell of a JPEG, JPEG-LS or JPEG 2000 image, by its markers, whether every pixel is kept."""
    if data[:2] == b"\xff\x4f" or data[4:8] == b"jP  ":
        # Coding style: the transform without rounding. That no bits of it were cut off cannot be seen.
        style = data.find(b"\xff\x52")
        return style >= 0 and data[style + 13 : style + 14] == b"\1"
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


def _is_lossless(name: str, stream: av.VideoStream, packet: av.Packet[av.VideoStream]) -> bool:
    if name in _SAYS_LOSSLESS:
        return re.search(_SAYS_LOSSLESS[name], _headers(stream, packet)) is not None
    data = bytes(packet)
    if name in ("mjpeg", "jpegls", "jpeg2000"):
        return jpeg_is_lossless(data)
    return name == "webp" and data[12:16] == b"VP8L"


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
