"""How much is measured: enough to be worth saying, within three minutes on two busy cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM


@dataclass(frozen=True, slots=True)
class Effort:
    """What is simulated and how long each part is measured.

    Attributes
    ----------
    height, width : int
        Of the binned field, pixels of `pixel_size_um`; the full sensor has twice as many each way.
    pixel_size_um : float
    cells, many_cells : float
        In a frame, mean: the usual load and a crowded one.
    movie_frames : int
        Of the movie with `cells`, which is tracked, analysed and played live.
    held_frames : int
        Of it that are held in memory, for what is measured in a loop.
    crowded_frames, sensor_frames : int
        Of the movies with `many_cells` and at the full sensor; each is tracked twice over.
    ring_frames : int
        Written to the ring.
    judged_tracks : int
    live_s : float
    endless_frames : int
        Tracked in a loop, late against early, at most.
    endless_s : float or None
        ... and no longer than this, by the clock; None for as long as it takes.
    copied_bytes : int
        Of the block that is copied to find the memory's bandwidth; many times the cache.
    variety : float
        Of the simulated cells (`ChamberSettings`): few different ones are rendered in less time.
    """

    height: int = 1096
    width: int = 1376
    pixel_size_um: float = DEFAULT_PIXEL_SIZE_UM
    cells: float = 115.0
    many_cells: float = 220.0
    movie_frames: int = 360
    held_frames: int = 240
    crowded_frames: int = 120
    sensor_frames: int = 90
    ring_frames: int = 300
    judged_tracks: int = 480
    live_s: float = 6.0
    endless_frames: int = 3600
    endless_s: float | None = 20.0
    copied_bytes: int = 256 * 2**20
    variety: float = 0.25

    @property
    def disk_bytes(self) -> int:
        """What is on the disk at once, at most: the movie, and the sessions with their rings."""
        session_s = self.movie_frames / DEFAULT_FPS + self.live_s
        return (self.movie_frames + 120) * self.height * self.width + int(session_s * 10e6)


QUICK = Effort(
    height=320,
    width=800,
    cells=20.0,
    many_cells=40.0,
    movie_frames=80,
    held_frames=80,
    crowded_frames=60,
    sensor_frames=60,
    ring_frames=40,
    judged_tracks=8,
    live_s=1.0,
    endless_frames=80,
    endless_s=5.0,
    copied_bytes=16 * 2**20,
    variety=0.02,
)
"""Everything once, on a small field: shows that it works, but its figures say little."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a measuring process is told.

    Attributes
    ----------
    effort : Effort
    device : {"auto", "cpu", "cuda"}
    folder : Path
        Its own, for whatever it writes.
    """

    effort: Effort
    device: str
    folder: Path
