"""The one list of warnings of a run, for terminal, report and napari."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from napari_rbcflow.quality import limits
from napari_rbcflow.quality.rules import percent, warnings_of_figures
from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight

NOTE, WARNING = Severity.NOTE, Severity.WARNING
_SECONDS_TO_SEE_A_CELL = 10.0
"""Camera time. The background takes one second, a crossing another."""
_SECONDS_TO_COUNT_A_CELL = 60.0


def warnings_of_run(run: Mapping[str, Any]) -> list[RunWarning]:
    """Return what a person must be told of a run, grave warnings first.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds, of any version. Where the run itself left its list (``quality``,
        ``warnings``), that is believed; else it is made from the counts.
    """
    quality = run.get("quality") or {}
    kept = quality.get("warnings")
    told = list(_ending(run))
    if isinstance(kept, list):
        told += [w for item in kept if (w := RunWarning.of(item)) is not None]
    else:
        told += warnings_of_counts(run)
    said = {w.sentence for w in told}
    told += [RunWarning("told", NOTE, str(s)) for s in run.get("warnings", ()) if str(s) not in said]
    return sorted_by_weight(told)


def warnings_of_counts(run: Mapping[str, Any]) -> list[RunWarning]:
    """Return what frames, cells, fraction and ``quality`` of a run that has ended say."""
    return [*_frames(run), *_cells(run), *_interval(run), *warnings_of_figures(run.get("quality") or {})]


def warnings_so_far(run: Mapping[str, Any], *, seconds: float, open_tracks: int) -> list[RunWarning]:
    """Return what already must be said of a run that goes on.

    What is true of every run in its first seconds (nothing was seen, cells are few) is no warning yet.

    Parameters
    ----------
    run : mapping
        As `warnings_of_counts`.
    seconds : float
        Of camera time, so far.
    open_tracks : int
        Cells that are followed now.
    """
    told = [*_frames(run, live=True), *_interval(run), *warnings_of_figures(run.get("quality") or {})]
    if seconds >= _SECONDS_TO_SEE_A_CELL and not run["cells"]["tracked"] + open_tracks:
        told.append(_NO_CELL)
    elif seconds >= _SECONDS_TO_COUNT_A_CELL and not run["fraction"]["n"]:
        told.append(_NONE_COUNTED)
    return sorted_by_weight(told)


_NO_CELL = RunWarning(
    "no-cell",
    WARNING,
    "No cell was seen: check focus, light and flow, and measure again.",
)
_NONE_COUNTED = RunWarning(
    "none-counted",
    WARNING,
    "Cells were seen, but none could be counted: check the focus (60 µm above the wall) and measure again.",
)


def _ending(run: Mapping[str, Any]) -> Iterator[RunWarning]:
    if run["status"] == "failed":
        yield RunWarning("failed", WARNING, f"The run failed: {run['stop_reason']}")
    elif run["status"] == "running":
        yield RunWarning("not-ended", WARNING, "The run has not ended: this is how it stood.")


def _frames(run: Mapping[str, Any], *, live: bool = False) -> Iterator[RunWarning]:
    frames = run["frames"]
    dropped = sum(n for reason, n in frames["dropped"].items() if reason != "after-stop")
    missed = sum(frames["missed"].values())
    lost, of = dropped + missed, frames["received"] + missed
    if not of:
        if not live:
            yield RunWarning(
                "no-frame", WARNING, "No frame came: check that the camera is connected and running."
            )
        return
    if lost / of >= limits.LOST:
        yield RunWarning(
            "frames-lost",
            WARNING,
            f"{lost:,} of {of:,} frames ({percent(lost / of)}) were lost: cells were cut or"
            " overlooked. Close other programs or lower the frame rate, and measure again.",
        )
    not_analysed = (run.get("quality") or {}).get("not_analysed") or {}
    if left_out := sum(not_analysed.values()):
        share = left_out / max(1, frames["processed"])
        why = ", ".join(f"{reason.replace('-', ' ')}: {n:,}" for reason, n in sorted(not_analysed.items()))
        what = "focus" if set(not_analysed) == {"out-of-focus"} else "lamp and focus"
        grave = share >= limits.NOT_ANALYSED
        yield RunWarning(
            "frames-not-analysed",
            WARNING if grave else NOTE,
            f"{left_out:,} frames{f' ({percent(share)})' if grave else ''} could not be analysed ({why}):"
            f" check {what}{', and measure again' if grave else ''}.",
        )


def _cells(run: Mapping[str, Any]) -> Iterator[RunWarning]:
    frames, counted = run["frames"], run["fraction"]["n"]
    if not frames["received"] + sum(frames["missed"].values()):
        return
    if not run["cells"]["tracked"]:
        yield _NO_CELL
    elif not counted:
        yield _NONE_COUNTED
    elif counted < limits.FEW_CELLS:
        cells = "1 cell was" if counted == 1 else f"{counted} cells were"
        yield RunWarning(
            "few-cells",
            WARNING,
            f"Only {cells} counted: the true fraction may lie anywhere in the interval. Measure longer.",
        )


def _interval(run: Mapping[str, Any]) -> Iterator[RunWarning]:
    """The anytime interval keeps what earlier cells ruled out, so the later ones may lie outside it."""
    estimate, low, high = (run["fraction"].get(name) for name in ("estimate", "low", "high"))
    if None not in (estimate, low, high) and not low <= estimate <= high:
        yield RunWarning(
            "fraction-left-interval",
            WARNING,
            "The fraction lies outside its own interval, which earlier cells had narrowed: it seems to have"
            " changed during the run. The sample, the flow or the focus changed: check them, and measure"
            " again with a fresh sample.",
        )
