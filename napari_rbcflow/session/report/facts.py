"""What the sections of a report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rbcflow.estimate.tally import OTHER_SPEED
from napari_rbcflow.session.reading import Session
from napari_rbcflow.session.report_by_hand import NOTHING_BY_HAND, ByHand


@dataclass(frozen=True, eq=False)
class Facts:
    """One session, as its report tells it.

    Attributes
    ----------
    run : mapping
        What ``run.json`` holds, or is about to.
    cells : DataFrame
        ``cells.csv`` in its order.
    counted : ndarray of bool, shape (n,)
        The counted cells in the order in which they were counted, True for tank-treading.
    by_hand : ByHand
        What persons changed.
    """

    run: Mapping[str, Any]
    cells: pd.DataFrame
    counted: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    by_hand: ByHand = NOTHING_BY_HAND

    @classmethod
    def of(cls, session: Session) -> Facts:
        """Take them from a session."""
        return cls(session.run, session.cells, session.counted, ByHand.of(session))

    @property
    def other_speed(self) -> int:
        """Cells set aside because they move at another speed than those in focus."""
        return int((self.cells["reason"] == OTHER_SPEED).sum())

    @property
    def undecided(self) -> int:
        """Cells that stage 2 could not tell surely enough."""
        return int((self.cells["reason"] == "undecided").sum())
