"""What a library says of an error, made fit for our one sentence."""

from __future__ import annotations


def in_a_line(error: BaseException, longest: int = 400) -> str:
    """Return an error's text, which may be many lines with causes in brackets, as one clause."""
    said = " ".join(str(error).replace(" [ ", ": ").replace(" ]", "").split()).rstrip(". ")
    return said if len(said) <= longest else said[: longest - 3] + "..."
