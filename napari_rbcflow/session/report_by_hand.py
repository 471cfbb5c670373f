"""What the report says of labels that persons changed: always behind the machine's number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path

from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.session.account import FractionFigure
from napari_rbcflow.session.audit import NAME, STRUCK_OUT, names
from napari_rbcflow.session.grave import percent, too_few_words
from napari_rbcflow.session.reading import Session

_MARK = 'data-changes="'
"""How a page says with how many changes it was written."""


def tells_of_changes(folder: Path, n: int) -> bool:
    """Say whether ``report.html`` is there and was written with all `n` changes by hand.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    try:
        page = (folder / "report.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return f'{_MARK}{n}"' in page if n else _MARK not in page


@dataclass(frozen=True)
class ByHand:
    """What persons changed in a session.

    Attributes
    ----------
    changes : int
        Lines of ``changes.csv``, those taken back included.
    names : str
        Who made them.
    kinds : tuple of str
        "2 struck out", ...: the cells whose label is another than the machine's.
    cells : int
        How many those are.
    figure : FractionFigure or None
        The fraction with them.
    fault : str
        Why the changes cannot be believed; empty if they can.
    """

    changes: int = 0
    names: str = ""
    kinds: tuple[str, ...] = ()
    cells: int = 0
    figure: FractionFigure | None = None
    fault: str = ""

    @classmethod
    def of(cls, session: Session) -> ByHand:
        """Take it from a session; a damaged file becomes a fault, as there must be a report all the same."""
        try:
            made, stand = session.changes_made, session.changes_standing
            figure = session.fraction_by_hand
        except RbcflowError as error:
            return cls(fault=str(error))
        cells = session.cells[session.cells["cell"].isin(stand)]
        machine = dict(zip(cells["cell"], cells["label"], strict=True))
        kinds = Counter(
            "struck out" if change.now == STRUCK_OUT else f"from {machine[cell]} to {change.now}"
            for cell, change in sorted(stand.items())
        )
        return cls(
            changes=len(made),
            names=names(list(stand.values()) or made),
            kinds=tuple(f"{n} {kind}" for kind, n in kinds.items()),
            cells=len(stand),
            figure=figure,
        )

    def number(self) -> str:
        """Return the paragraph that follows the machine's number; empty where nobody changed anything."""
        if self.fault:
            return f"<p class='corrected'>{escape(self.fault)}</p>"
        if not self.changes:
            return ""
        few = f"{too_few_words(self.figure.n)} ".lstrip() if self.figure and self.figure.n else ""
        begin = f"<p class='corrected by-hand{' few' if few else ''}' {_MARK}{self.changes}\">"
        if self.figure is None:
            return f"{begin}Changes by hand by {escape(self.names)} were all taken back.</p>"
        counted = f"{self.cells} {'change' if self.cells == 1 else 'changes'} by hand"
        return (
            f"{begin}With {counted} by {escape(self.names)}: {_said(self.figure)}<br>{few}"
            f"({escape(', '.join(self.kinds))}). Who chooses which cells to look at moves this number:"
            " the machine's above is the one to compare with.</p>"
        )

    def how(self) -> str:
        """Return a sentence on what persons had to do with the labels."""
        if self.fault:
            return f"What persons changed is not known: {NAME} is damaged."
        if not self.changes:
            return "No person has changed a label."
        return (
            "The number and the drawings are made from the networks' labels alone; what persons changed is"
            f" told beside the number, and line by line in {NAME}."
        )


NOTHING_BY_HAND = ByHand()


def _said(figure: FractionFigure) -> str:
    if figure.estimate is None or figure.low is None or figure.high is None:
        return "<b>no number</b>, as no cell is left to count"
    return (
        f"<b>{percent(figure.estimate)}</b> ({100 * figure.low:.1f} to {percent(figure.high)},"
        f" {figure.n:,} {'cell' if figure.n == 1 else 'cells'})"
    )
