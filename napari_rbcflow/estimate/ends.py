"""How a run ended, in plain words, for the report and for napari."""

from __future__ import annotations

_ENDS = {
    "reliable": "Stopped by itself: enough reliable cells had been counted ({n}).",
    "half-width": "Stopped by itself: the interval was narrow enough ({n} cells).",
    "seconds": "Stopped by itself: the set time was over.",
    "tracks": "Stopped by itself: enough tracks had been seen.",
    "baseline": "Stopped by itself: the interval lay wholly on one side of the limit.",
    "source-ended": "Ended: the movie or the camera's sequence came to its end.",
    "user": "Stopped by a person.",
}


def end_sentence(reason: str, n: int, found: str = "") -> str:
    """Say why a run that did not fail ended.

    Parameters
    ----------
    reason : str
        As ``stop_reason`` in ``run.json``.
    n : int
        Cells counted.
    found : str
        ``stop_sentence`` of ``run.json``: what the rules found.
    """
    said = _ENDS.get(reason, f"Ended: {reason}.").format(n=f"{n:,}")
    return f"{said} {found}".rstrip()
