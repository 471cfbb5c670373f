"""Which number of a session may leave it: decided once, here, for every format."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    CALIBRATED,
    Conclusion,
    FractionFigure,
    Session,
    Signature,
    open_session,
    read_signatures,
    signature_findings,
    verify,
)
from napari_rbcflow.trend import find_sessions
from napari_rbcflow.types import Verdict

OURS = uuid.UUID("6f1d4c1e-6c1b-5f0e-9a53-7d2c0b5c8e11")
"""Names what is ours in other systems, as long as the project has no address on the web."""


@dataclass(frozen=True)
class Leaving:
    """What may leave of a session.

    Attributes
    ----------
    session : Session
    conclusion : Conclusion
        The session's own; without a number where the session is not as it was written.
    """

    session: Session
    conclusion: Conclusion

    @property
    def run(self) -> dict[str, Any]:
        """``run.json``."""
        return self.session.run

    @property
    def record(self) -> Mapping[str, str | float]:
        """What is known of the run beside its frames; empty in older sessions."""
        return self.run.get("record") or {}

    @property
    def figure(self) -> FractionFigure | None:
        """The number to act on; of a provisional run the machine's; None where there is none."""
        if self.conclusion.verdict is Verdict.NO_RESULT:
            return None
        return self.conclusion.headline or self.session.fraction

    @property
    def kind(self) -> str:
        """Whose number it is: ``reviewed``, ``calibrated`` or ``machine``; empty where there is none."""
        if self.figure is None:
            return ""
        if self.conclusion.headline is None:
            return "machine"
        return "calibrated" if self.figure.method == CALIBRATED else "reviewed"

    @cached_property
    def signatures(self) -> tuple[list[Signature], list[str]]:
        """Those who signed the session as it is now, and what a person must know of the signatures."""
        folder = self.session.folder
        if self.conclusion is not self.session.conclusion:  # its tables are not what was signed
            return [], []
        if findings := list(signature_findings(folder)):
            return [], findings
        holding = [one for one in read_signatures(folder) if not one.changed(folder)]
        return holding, [one.words([]) for one in holding]

    @cached_property
    def id(self) -> uuid.UUID:
        """The same for the same cells of the same run, wherever its folder lies."""
        files = self.run.get("files") or {}
        cells = (files.get("cells.csv") or {}).get("sha256") or str(self.session.folder)
        return uuid.uuid5(OURS, f"{self.run.get('started')} {cells}")


def ready_to_leave(folders: Sequence[Path], *, check: bool = True) -> list[Leaving]:
    """Read sessions that shall leave.

    Parameters
    ----------
    folders : sequence of Path
        Sessions, or folders that hold sessions, one level down.
    check : bool
        Whether what a number follows from is verified first. Pictures are not.

    Raises
    ------
    BadInput
        If there is no session, if a run goes on, or if one is given twice.
    """
    named, found = find_sessions(folders)
    ready: dict[uuid.UUID, Leaving] = {}
    for folder in (*named, *found):
        session = open_session(folder)
        if session.running and not session.interrupted:
            raise BadInput("exchange.still-running", folder=folder)
        conclusion = session.conclusion
        if check and not session.interrupted:
            findings = verify(folder, only_number=True).findings
            if findings:
                why = say("exchange.why-not-whole", finding=findings[0])
                conclusion = Conclusion(Verdict.NO_RESULT, why, simulated=conclusion.simulated)
        one = Leaving(session, conclusion)
        if (before := ready.setdefault(one.id, one)) is not one:
            raise BadInput("session.export-twice", folder=folder, first=before.session.folder)
    return list(ready.values())


def the_one(folders: Sequence[Path]) -> Leaving:
    """Read the one session that shall leave; `BadInput` where there are several."""
    ready = ready_to_leave(folders, check=False)
    if len(ready) > 1:
        raise BadInput("exchange.one-session", sessions=len(ready))
    return ready[0]


def write_new(out: Path, data: bytes) -> None:
    """Write a file that must not exist, whole or not at all."""
    if out.exists():
        raise BadInput("ring.exists", path=out)
    try:
        replace_file(out, data)
    except OSError as error:
        raise RunFailed("session.export-not-written", path=out, why=error.strerror or error) from error
