"""How a run stands at one moment, and what a person must be told about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from napari_rbcflow.estimate.reported import ANYTIME
from napari_rbcflow.estimate.stopping import RuleProgress
from napari_rbcflow.quality import RunWarning
from napari_rbcflow.quality.monitor import by_reason
from napari_rbcflow.quality.rules import LATE_LABELS_S
from napari_rbcflow.quality.summary import QualityLine
from napari_rbcflow.types import SourceInfo


@dataclass(frozen=True)
class Progress:
    """How a run stands at one moment.

    Attributes
    ----------
    status : str
        As in ``run.json``.
    received, processed, dropped, missed : int
        Frames; those that came after the stop are not among the dropped, for nobody wanted them.
    seconds : float
        Camera time of the last frame that was processed.
    open_tracks : int
    cells : Counter of str
        By label, named as in ``run.json``.
    n : int
        Cells counted.
    estimate : float
        NaN where no cell was counted.
    interval : (float, float)
        While the run goes on the anytime interval, then the one that belongs to its end (`estimate.said`).
    level : float
        Of the interval.
    missing : str
        In a few words, what the stop rules still lack.
    total_frames : int or None
        Of a movie; None where frames come until somebody stops them.
    frames_per_s : float
        Frames received a second, over the last second or two; of the whole run once it has ended.
    stop_share : float or None
        How far the run has come towards its stop, 0 to 1; None where nothing but a person will stop it.
    seconds_left : float or None
        Until then if all goes on as before; None where that cannot be told yet.
    lag_s : float
        How far the run is behind its source (`Stages.lag_s`): who shows it gives way.
    method : str
        Which interval, as in ``run.json``.
    rules : tuple of RuleProgress
        How far it is to each stop rule in force.
    stop_sentence : str
        As in ``run.json``.
    warned : tuple of RunWarning or None
        What the run's quality says, grave warnings first; None until it was looked at.
    quality : tuple of QualityLine
        The same measures in words.
    room : str
        A sentence where the disk will be full before the run ends, or within half an hour.
    dropped_by, missed_by : mapping of str to int
        The frames of `dropped` and `missed` by reason.
    labels_behind_s : float
        How long the oldest finished track has waited for its label.
    """

    status: str
    received: int
    processed: int
    dropped: int
    missed: int
    seconds: float
    open_tracks: int
    cells: Counter[str]
    n: int
    estimate: float
    interval: tuple[float, float]
    level: float
    missing: str
    total_frames: int | None = None
    frames_per_s: float = 0.0
    stop_share: float | None = None
    seconds_left: float | None = None
    lag_s: float = 0.0
    method: str = ANYTIME
    rules: tuple[RuleProgress, ...] = ()
    stop_sentence: str = ""
    warned: tuple[RunWarning, ...] | None = None
    quality: tuple[QualityLine, ...] = ()
    room: str = ""
    dropped_by: Mapping[str, int] = field(default_factory=dict)
    missed_by: Mapping[str, int] = field(default_factory=dict)
    labels_behind_s: float = 0.0


def behind_sentence(labels_behind_s: float) -> str:
    """Say that labels come late, while a run goes on; empty where they do not."""
    if labels_behind_s < LATE_LABELS_S:
        return ""
    return (
        f"The labels are {labels_behind_s:.0f} s behind, as frames are followed first: no cell is left out,"
        " but the number comes late. Close other programs, or lower the frame rate."
    )


def warnings_of(
    info: SourceInfo,
    *,
    dropped: Mapping[str, int],
    missed: Mapping[str, int],
    ring_skipped: int,
) -> list[str]:
    """Return what a person must be told beside what the run's quality says, in plain sentences."""
    said = list(info.warnings)
    if n := sum(missed.values()):
        said.append(
            f"{_frames(n)} lost before reaching us ({by_reason(missed)}): cells are followed over short gaps,"
            " and their tracks say so; over longer ones their tracks end."
        )
    if n := dropped.get("queue-full", 0):
        said.append(
            f"{_frames(n)} dropped because this computer could not keep up: "
            "close other programs, or lower the frame rate."
        )
    if ring_skipped:
        said.append(f"{ring_skipped} raw frames are not in the ring because the disk was too slow.")
    return said


def _frames(n: int) -> str:
    return "1 frame was" if n == 1 else f"{n:,} frames were"
