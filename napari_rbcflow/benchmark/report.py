"""A measured figure beside real time, its aim and its physical floor, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_rbcflow.types import DEFAULT_FPS

FRAME_MS = 1e3 / DEFAULT_FPS
"""What a frame may take where frames come at 60 a second."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What a step cannot do without.

    Attributes
    ----------
    bytes : float
        That must be read and written a frame.
    operations : float
        Floating-point, a frame.
    """

    bytes: float
    operations: float = 0.0

    def __add__(self, other: Floor) -> Floor:
        return Floor(self.bytes + other.bytes, self.operations + other.operations)

    def times(self, factor: float) -> Floor:
        """Return `factor` times as much."""
        return Floor(factor * self.bytes, factor * self.operations)

    def ms(self, gb_per_s: float, gflop_per_s: float) -> float:
        """Time that one core takes for it at the rates measured here; they do not overlap in ours."""
        return 1e3 * (self.bytes / (1e9 * gb_per_s) + self.operations / (1e9 * gflop_per_s))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes
    ----------
    name : str
        What was measured, for a person.
    ms : float
        Milliseconds a frame.
    clock : {"cpu", "wall"}
        CPU time of all threads together, or time by the clock.
    aim_ms : float or None
        What the project set itself, on a two-core machine.
    floor : Floor or None
    note : str
        What else is to be known.
    """

    name: str
    ms: float
    clock: Literal["cpu", "wall"] = "cpu"
    aim_ms: float | None = None
    floor: Floor | None = None
    note: str = ""

    def record(self, gb_per_s: float, gflop_per_s: float) -> dict[str, Any]:
        """Return the figure as JSON has it; ratios are of unrounded milliseconds."""
        floor_ms = None if self.floor is None else self.floor.ms(gb_per_s, gflop_per_s)
        return {
            "name": self.name,
            "ms_per_frame": self.ms,
            "clock": self.clock,
            "share_of_frame": self.ms / FRAME_MS,
            "ratio_to_real_time": FRAME_MS / self.ms,
            "aim_ms": self.aim_ms,
            "aim_met": None if self.aim_ms is None else self.ms <= self.aim_ms,
            "floor": None if self.floor is None else asdict(self.floor),
            "floor_ms": floor_ms,
            "times_floor": self.ms / floor_ms if floor_ms else None,
            "note": self.note,
        }


_HEADINGS = ("", "ms a frame", "of a frame", "x real time", "aim ms", "met", "floor ms", "x floor", "")
_FLAT_MB = 1.0
"""Growth in 1000 frames up to which memory counts as flat: an hour of it is 0.2 GB."""
_STEADY = 1.1
"""Late over early, up to which it counts as no slower: a busy machine varies by about that."""


def as_text(record: Mapping[str, Any]) -> str:
    """Return the table of `suite.benchmark`'s record, and what else there is to say."""
    machine = record["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores_allowed']} cores, {machine['memory_gb']:.0f} GB, "
        f"networks on {machine['device']}; load {machine['load']:.1f} when it began",
        f"{record['size']}; full sensor {record['full_size']}; memory copies "
        f"{machine['copy_gb_per_s']:.1f} GB/s, one core does {machine['gflop_per_s']:.0f} GFLOP/s",
        "",
        *_aligned([_HEADINGS, *(_row(figure) for figure in record["figures"])]),
        "",
        f"CPU time of all threads, except where it says (clock). A frame is {record['frame_ms']:.2f} ms.",
        "Floor: bytes moved over the memory's bandwidth, and a network's operations at one core's best rate.",
        "",
        *_sentences(record),
    ]
    return "\n".join(lines)


def _row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    aim, floor = figure["aim_ms"], figure["floor_ms"]
    return (
        figure["name"] + (" (clock)" if figure["clock"] == "wall" else ""),
        f"{figure['ms_per_frame']:.2f}",
        f"{100 * figure['share_of_frame']:.0f} %",
        f"{figure['ratio_to_real_time']:.1f}",
        "" if aim is None else f"{aim:.1f}",
        "" if aim is None else ("yes" if figure["aim_met"] else "NO"),
        "" if floor is None else f"{floor:.3f}",
        "" if figure["times_floor"] is None else f"{figure['times_floor']:.0f}",
        figure["note"],
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if k in (0, len(row) - 1) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _sentences(record: Mapping[str, Any]) -> list[str]:
    endless, analysed, live = record["endless"], record["analysed"], record["live"]
    slower, growth = endless["late_to_early"], endless["growth_mb_per_1000_frames"]
    pace = "no slower" if slower <= _STEADY else "SLOWER"
    memory = "flat" if growth <= _FLAT_MB else "GROWS"
    late = {name: "none" if ms is None else f"{ms:.0f}" for name, ms in live["latency_ms"].items()}
    lost = sum(live["dropped"].values())
    return [
        f"Late against early: {slower:.2f} times the CPU time a frame, over "
        f"{endless['minutes_of_frames']:.1f} min of frames ({pace}).",
        f"Memory: {growth:+.2f} MB in 1000 frames ({memory}); analysing held {analysed['peak_mb']:.0f} MB "
        "at most.",
        f"Live, {live['seconds']:.0f} s at 60 frames/s: {lost} of {live['received']} frames lost, "
        f"{live['ring_skipped']} not in the ring. From a track's end to its label on the disk: "
        f"p50 {late['p50']}, p95 {late['p95']}, p99 {late['p99']} ms.",
        f"The background of a recorded movie: {record['movie_background_s']:.2f} s of CPU, once.",
        f"Measured in {record['seconds']:.0f} s.",
    ]
