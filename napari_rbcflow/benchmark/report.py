"""A measured figure beside real time, its aim and its physical floor, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_rbcflow.sentences import say
from napari_rbcflow.types import DEFAULT_FPS

FRAME_MS = 1e3 / DEFAULT_FPS  # what a frame may take


@dataclass(frozen=True, slots=True)
class Floor:
    """Bytes that a step must read and write, and floating-point operations that it must do, per frame."""

    bytes: float
    operations: float = 0.0

    def __add__(self, other: Floor) -> Floor:
        return Floor(self.bytes + other.bytes, self.operations + other.operations)

    def times(self, factor: float) -> Floor:
        return Floor(factor * self.bytes, factor * self.operations)

    def ms(self, gb_per_s: float, gflop_per_s: float) -> float:
        """Return the time that one core takes for both, one after the other."""
        return 1e3 * (self.bytes / (1e9 * gb_per_s) + self.operations / (1e9 * gflop_per_s))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: milliseconds per frame, of CPU time of all threads or by the clock.

    `aim_ms` is the project's aim, on a two-core machine.
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


_FLAT_MB = 1.0  # growth in 1000 frames up to which memory counts as flat: an hour of it is 0.2 GB
_STEADY = 1.1  # late over early, up to which it counts as no slower: a busy machine varies by about that


def as_text(record: Mapping[str, Any]) -> str:
    """Return the table of a benchmark's record, and what else there is to say."""
    machine = record["machine"]
    lines = [
        say(
            "benchmark.machine",
            cpu=machine["cpu"],
            cores=machine["cores_allowed"],
            memory=machine["memory_gb"],
            device=machine["device"],
            load=machine["load"],
        ),
        say(
            "benchmark.sizes",
            size=record["size"],
            full_size=record["full_size"],
            copies=machine["copy_gb_per_s"],
            gflop=machine["gflop_per_s"],
        ),
        "",
        *_aligned([_headings(), *(_row(figure) for figure in record["figures"])]),
        "",
        say("benchmark.clocks", ms=record["frame_ms"]),
        say("benchmark.floors"),
        "",
        *_sentences(record),
    ]
    return "\n".join(lines)


def _headings() -> tuple[str, ...]:
    keys = ("ms", "share", "ratio", "aim", "met", "floor", "times-floor")
    return ("", *(say(f"benchmark.head-{key}") for key in keys), "")


def _row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    name, aim, floor = figure["name"], figure["aim_ms"], figure["floor_ms"]
    return (
        say("benchmark.by-clock", name=name) if figure["clock"] == "wall" else name,
        f"{figure['ms_per_frame']:.2f}",
        f"{100 * figure['share_of_frame']:.0f} %",
        f"{figure['ratio_to_real_time']:.1f}",
        "" if aim is None else f"{aim:.1f}",
        "" if aim is None else say("benchmark.met" if figure["aim_met"] else "benchmark.not-met"),
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
    endless, live = record["endless"], record["live"]
    times, growth = endless["late_to_early"], endless["growth_mb_per_1000_frames"]
    latency = {
        name: say("benchmark.no-latency") if ms is None else f"{ms:.0f}"
        for name, ms in live["latency_ms"].items()
    }
    return [
        say(
            "benchmark.steady" if times <= _STEADY else "benchmark.slower",
            times=times,
            minutes=endless["minutes_of_frames"],
        ),
        say(
            "benchmark.memory-flat" if growth <= _FLAT_MB else "benchmark.memory-grows",
            growth=growth,
            peak=record["analysed"]["peak_mb"],
        ),
        say(
            "benchmark.live-run",
            seconds=live["seconds"],
            lost=sum(live["dropped"].values()),
            received=live["received"],
            skipped=live["ring_skipped"],
            **latency,
        ),
        say("benchmark.movie-background", seconds=record["movie_background_s"]),
        say("benchmark.took", seconds=record["seconds"]),
    ]
