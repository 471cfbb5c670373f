"""The settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import FIXED_N, FixedN, StopRules
from napari_rbcflow.quality import SetFlow
from napari_rbcflow.session import RunRecord
from napari_rbcflow.sources import check_rotation
from napari_rbcflow.tracking import Direction
from napari_rbcflow.types import LEAST_FRAMES, SourceInfo

MOST_RING_SECONDS = 3600.0
MOST_LEAST_FRAMES = 1000


@dataclass(frozen=True)
class RunSettings:
    """What a person chooses for a run, beside the source and the folder.

    Attributes
    ----------
    patient, sample : str
        Whose blood it is.
    run_record : RunRecord
        What else is known of the run, such as the operator and the medium.
    device : {"auto", "cpu", "cuda"}
    background : {"movie", "sliding"}
        The median of frames from the whole movie, or of the last seconds.
    flow : {"left-to-right", "right-to-left"}
        Direction of flow in the picture.
    rotate : {0, 90, 180, 270}
        Degrees by which every frame is turned clockwise as it comes in.
    set_flow : SetFlow
        The flow as it was set; the measured speed of the cells is compared with it.
    stop : StopRules
    ring_seconds : float
        Seconds of raw frames to keep.
    leave_out_intruded : bool
        Judge a track without the frames in which another cell is in its crop, as the paper did.
    least_frames : int
        Of a track that counts: in a longer track, a stiff cell shows its flip more reliably.
    calibration : Path, optional
        This laboratory's, from ``rbcflow calibrate``: corrects the fraction of a run that is like its own.
    interval : {"wilson", "jeffreys", "clopper-pearson"}
        Reported if the number of cells did not depend on their labels; else it is the one that is valid for
        the run's end (`estimate.reported_interval`).
    """

    patient: str = ""
    sample: str = ""
    run_record: RunRecord = field(default_factory=RunRecord)
    device: str = "auto"
    background: Literal["movie", "sliding"] = "sliding"
    flow: Direction = "left-to-right"
    rotate: int = 0
    set_flow: SetFlow = field(default_factory=SetFlow)
    stop: StopRules = field(default_factory=StopRules)
    ring_seconds: float = 5.0
    leave_out_intruded: bool = True
    least_frames: int = LEAST_FRAMES
    interval: FixedN = "wilson"
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if self.background not in ("movie", "sliding"):
            raise BadInput("pipeline.no-such-background", value=self.background)
        check_rotation(self.rotate)
        self.run_record.refuse_incomplete()
        if self.interval not in FIXED_N:
            raise BadInput("pipeline.no-such-interval", names=", ".join(FIXED_N), value=self.interval)
        if not LEAST_FRAMES <= self.least_frames <= MOST_LEAST_FRAMES:
            raise BadInput(
                "pipeline.least-frames-outside",
                least=LEAST_FRAMES,
                most=MOST_LEAST_FRAMES,
                value=self.least_frames,
            )
        if not 0 < self.ring_seconds <= MOST_RING_SECONDS:
            raise BadInput("pipeline.ring-seconds-outside", most=MOST_RING_SECONDS, value=self.ring_seconds)

    def record(self, *, device: str) -> dict[str, Any]:
        """Return the settings for ``run.json``, with the device that was really used."""
        return {
            "background": self.background,
            "flow": self.flow,
            "rotate": self.rotate,
            "shear_rate_per_s": self.set_flow.shear_rate_per_s,
            "focus_height_um": self.set_flow.focus_height_um,
            "device": device,
            "stop_reliable": self.stop.reliable,
            "stop_halfwidth": self.stop.halfwidth,
            "stop_seconds": self.stop.seconds,
            "stop_tracks": self.stop.tracks,
            "stop_baseline": self.stop.baseline,
            "fixed_n_interval": self.interval,
            "ring_seconds": self.ring_seconds,
            "leave_out_intruded": self.leave_out_intruded,
            "least_frames": self.least_frames,
        }

    def ring_frames(self, info: SourceInfo) -> int:
        frames = max(1, round(self.ring_seconds * info.fps))
        return min(frames, info.n_frames) if info.n_frames else frames
