"""``pieces.csv``: which tracks may be pieces of one cell; a line for each pair, none where all stand alone.

============ ===================================================================
cell         a track, as in ``cells.csv``
may_continue a track handed over before it that may be of the same cell
============ ===================================================================

Sessions written before there was such a file have none: nothing is known of their pieces.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.estimate.tally import PIECE
from napari_rbcflow.ring.disk import replace_file
from napari_rbcflow.session.tables import header, whole_lines
from napari_rbcflow.types import Label, Track

NAME = "pieces.csv"
COLUMNS = ("cell", "may_continue")
Links = Mapping[int, Sequence[int]]
"""Of each track that may be a piece, the tracks that it may continue."""
COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
"""What the fraction is made of."""


def piece_rows(tracks: Sequence[Track]) -> bytes:
    """Return the lines of ``pieces.csv`` for tracks."""
    return "".join(f"{t.cell},{before}\n" for t in tracks for before in t.may_continue).encode()


def sort_pieces(path: Path) -> None:
    """Put the lines of ``pieces.csv`` into the order of their numbers.

    Raises
    ------
    OSError
        The table is then as it was.
    """
    first, *rows = whole_lines(path).splitlines(keepends=True)
    rows.sort(key=_numbers)
    replace_file(path, first + b"".join(rows))


def _numbers(row: bytes) -> list[int]:
    return [int(number) for number in row.split(b",")]


def read_links(folder: Path) -> Links:
    """Return the pairs of a session; empty where it has none, or is older than them.

    Raises
    ------
    RunFailed
        If the file cannot be read or is damaged.
    """
    path = folder / NAME
    try:
        data = whole_lines(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunFailed(f"{path} cannot be read ({error.strerror}): restore it from a copy.") from error
    links: dict[int, list[int]] = defaultdict(list)
    if data and not data.startswith(header(COLUMNS)):
        raise RunFailed(f"{path} does not begin with {','.join(COLUMNS)}: restore it from a copy.")
    try:
        for cell, before in list(csv.reader(io.StringIO(data.decode())))[1:]:
            links[int(cell)].append(int(before))
    except ValueError:
        raise RunFailed(f"{path} holds a line that is not two numbers: restore it from a copy.") from None
    return links


def behind(cell: int, links: Links) -> set[int]:
    """Return all tracks that one may continue, directly or through others."""
    found: set[int] = set()
    new = {cell}
    while new:
        new = {before for c in new for before in links.get(c, ())} - found
        found |= new
    return found - {cell}


def relatives(cell: int, links: Links) -> list[int]:
    """Return all tracks that may be of a track's cell: those that it may continue, and those that may it."""
    return sorted(behind(cell, links) | {other for other in links if cell in behind(other, links)})


def counted_twice(links: Links, labels: Mapping[int, str]) -> list[int]:
    """Return the counted tracks that may be of the same cell as one counted before them."""
    counted = {cell for cell, label in labels.items() if label in COUNTED}
    return sorted(cell for cell in links if cell in counted and behind(cell, links) & counted)


def findings(links: Links, labels: Mapping[int, str], reasons: Mapping[int, str]) -> list[str]:
    """Return where a cell may have been counted twice or left out without cause, a sentence each.

    Parameters
    ----------
    links : mapping
    labels, reasons : mapping of int to str
        Of every track, the machine's.
    """
    said = []
    numbers = {*links, *(before for all_ in links.values() for before in all_)}
    if unknown := sorted(numbers - set(labels)):
        said.append(f"{NAME} names {len(unknown)} cells that are not in cells.csv (first {unknown[0]}).")
    if twice := counted_twice(links, labels):
        said.append(
            f"cells.csv counts {len(twice)} cells that may be pieces of earlier ones (first {twice[0]})."
        )
    counted = {cell for cell, label in labels.items() if label in COUNTED}
    alone = sorted(
        cell for cell, reason in reasons.items() if reason == PIECE and not behind(cell, links) & counted
    )
    if alone:
        said.append(
            f"cells.csv leaves out {len(alone)} cells as pieces of counted ones, but {NAME} names none"
            f" (first {alone[0]})."
        )
    return said
