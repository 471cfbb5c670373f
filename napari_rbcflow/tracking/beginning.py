"""Where a new track was before it was one: between its first sights, and before them.

A cell comes in over the edge, and no cell appears in mid field. So a track that is found a few frames after
its cell came in was there before, hidden by a neighbour or cut by the edge, and is carried back.
"""

from __future__ import annotations

from napari_rbcflow.tracking.initiation import Trail
from napari_rbcflow.tracking.linked import Look

EDGE_PX = 8.0
"""Nearer than this to the edge a cell may have no maximum of its own."""
_INSIDE_PX = 0.5
_LEAST_SHARE = 0.7
"""Of the clearness at its first sight, that must be found where a cell is carried back to."""


def filled(trail: Trail, processed: list[int], look: Look) -> dict[int, tuple[float, float, bool]]:
    """Return a trail's positions in processed frames before its newest, along its line where it has no sight.

    Parameters
    ----------
    trail : Trail
    processed : list of int
        The last frames that were analysed, the latest first.
    look : Look

    Returns
    -------
    dict of int to (float, float, bool)
        x, y and whether it was seen, by frame.
    """
    frames = sorted(trail)
    known: dict[int, tuple[float, float, bool]] = {}
    for frame in processed:
        if frame < frames[0] or frame >= frames[-1]:
            continue
        if frame in trail:
            known[frame] = (trail[frame][0], trail[frame][1], True)
        else:
            before = max(f for f in frames if f < frame)
            after = min(f for f in frames if f > frame)
            share = (frame - before) / (after - before)
            xb, yb, _ = trail[before]
            xa, ya, _ = trail[after]
            known[frame] = (xb + share * (xa - xb), yb + share * (ya - yb), False)
    return known | _carried_back(trail, processed, look)


def _carried_back(trail: Trail, processed: list[int], look: Look) -> dict[int, tuple[float, float, bool]]:
    """Positions before the first sight, while something as clear is there: of cells that just came in."""
    first, last = min(trail), max(trail)
    x_first, y, _ = trail[first]
    v = (trail[last][0] - x_first) / (last - first)
    earlier = [frame for frame in processed if frame < first]
    back: dict[int, tuple[float, float, bool]] = {}
    if not earlier or x_first - v * (first - earlier[-1]) >= EDGE_PX:
        return back
    least = _LEAST_SHARE * look.clearness_at(first, x_first, y)
    for frame in earlier:
        x = x_first - v * (first - frame)
        if x < _INSIDE_PX or look.clearness_at(frame, x, y) < least:
            break
        back[frame] = (x, y, False)
    return back
