"""The quality of a run, looked at once a second by whoever looks after the run."""

from __future__ import annotations

from dataclasses import replace

from napari_rbcflow.quality import RunWarning
from napari_rbcflow.quality.summary import QualityLine, quality_lines
from napari_rbcflow.run.stages import Stages
from napari_rbcflow.session.schema import Account
from napari_rbcflow.tracking.tracker import Tracker


class QualityLooks:
    """Brings a run's quality into its account, and says what stands.

    Parameters
    ----------
    stages : Stages
    tracker : Tracker

    Attributes
    ----------
    warned : tuple of RunWarning or None
        What stands, grave warnings first; None before the first look.
    lines : tuple of QualityLine
        The measures in words.
    """

    def __init__(self, stages: Stages, tracker: Tracker) -> None:
        self._stages, self._tracker = stages, tracker
        self._closed: tuple[dict[str, object], list[RunWarning]] | None = None
        self.warned: tuple[RunWarning, ...] | None = None
        self.lines: tuple[QualityLine, ...] = ()

    def look(self, account: Account) -> None:
        """Look at a run that goes on; from one thread.

        Parameters
        ----------
        account : Account
            From `complete`.
        """
        stages = self._stages
        at, run = stages.positions, account.as_dict()
        self.warned = stages.quality.look(
            run,
            stages.tally.counted,
            seconds=stages.seconds,
            open_tracks=0 if at is None else len(at.cell),
        )
        self.lines = tuple(quality_lines(run, self.warned))

    def complete(self, account: Account, *, ended: bool) -> Account:
        """Return the account with the run's quality; at its end, with all that must be said of it, too.

        Parameters
        ----------
        account : Account
        ended : bool
            Whether nothing more will come.
        """
        stages = self._stages
        not_analysed = dict(self._tracker.not_analysed)
        if ended and self._closed is None:
            self._closed = stages.quality.close(
                account.as_dict(), stages.tally.counted, not_analysed=not_analysed, seconds=stages.seconds
            )
            self.warned = tuple(self._closed[1])
        if self._closed is None:
            quality = {**stages.quality.figures(), "not_analysed": not_analysed}
            return replace(account, quality={**quality, "tracks_too_pale": self._tracker.too_pale})
        quality, told = self._closed
        quality = {**quality, "tracks_too_pale": self._tracker.too_pale}
        whole = replace(account, quality=quality, warnings=(*account.warnings, *(w.sentence for w in told)))
        self.lines = tuple(quality_lines(whole.as_dict(), told))
        return whole
