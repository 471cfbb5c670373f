"""Cells and frames in figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from napari_rbcflow.estimate.tally import PIECE, TOO_FEW_FRAMES
from napari_rbcflow.quality.monitor import REASONS
from napari_rbcflow.session.report.facts import Facts
from napari_rbcflow.session.watched import least_frames_of
from napari_rbcflow.types import LEAST_FRAMES


def cells(facts: Facts) -> str:
    """Return what became of the cells."""
    cells, table, untold = facts.run["cells"], facts.cells, facts.undecided
    elsewhere = facts.other_speed
    pieces = int((table["reason"] == PIECE).sum())
    brief, least = int((table["reason"] == TOO_FEW_FRAMES).sum()), least_frames_of(facts.run)
    over_gaps = int((table["gap_frames"] > 0).sum())
    rows = {
        "followed in all": cells["tracked"],
        "tank-treading (counted)": cells["tank_treading"],
        "flipping (counted)": cells["flipping"],
        "blurred or not alone": cells["unreliable"] - untold - elsewhere,
        **({"at another speed than cells in focus": elsewhere} if elsewhere else {}),
        "of neither kind surely enough": untold,
        f"seen in under {LEAST_FRAMES} frames": cells["too_short"],
        **({f"judged, but seen in under {least}": brief} if brief or least > LEAST_FRAMES else {}),
        "perhaps another piece of a counted one": pieces,
        "open at the stop, or after it": cells["uncounted"] - pieces - brief,
        **({"of all, followed over lost frames": over_gaps} if over_gaps else {}),
    }
    return table_of("Cells", {k: f"{v:,}" for k, v in rows.items()})


def frames(facts: Facts) -> str:
    """Return what became of the frames."""
    frames = facts.run["frames"]
    rows = {"received": f"{frames['received']:,}", "analysed": f"{frames['processed']:,}"}
    for kind, said in (("dropped", "not analysed"), ("missed", "never arrived")):
        rows[said] = f"{sum(frames[kind].values()):,}"
        for reason, n in sorted(frames[kind].items()):
            rows[f"– {REASONS.get(reason, reason)}"] = f"{n:,}"
    return table_of("Frames", rows)


def table_of(title: str, rows: Mapping[str, str]) -> str:
    """Return a small table under its title."""
    said = "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<div><h2>{title}</h2><table>{said}</table></div>"
