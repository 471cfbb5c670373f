"""The quality of one run, from its first frame to its session, and the one list of its warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from napari_rbcflow.quality import rules
from napari_rbcflow.quality.drift import Change, DriftWatch
from napari_rbcflow.quality.meter import Meter, SetFlow, figures_of, over_time
from napari_rbcflow.quality.rules import Standing, percent, warnings_of_figures
from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight
from napari_rbcflow.types import Frame, Judgement, SourceInfo, Track

if TYPE_CHECKING:  # whoever only watches a run needs no tracking
    from napari_rbcflow.tracking import OpenTracks

REASONS = {
    "queue-full": "this computer could not keep up",
    "after-stop": "came after the stop",
    "run-failed": "left when the run failed",
    "image-number": "gap in the camera's numbering",
    "time-gap": "gap in the camera's time",
    "overflow": "the camera's buffer overflowed",
}
"""What the names of ``run.json`` mean."""


def by_reason(counts: Mapping[str, int]) -> str:
    """Return counts by the names of ``run.json``, the greatest first: ``time-gap 7, overflow 3``."""
    return ", ".join(f"{reason} {n:,}" for reason, n in _sorted(counts))


def lost_words(*, dropped: Mapping[str, int], missed: Mapping[str, int]) -> str:
    """Return the same of both kinds of loss; empty where none was: ``missed: time-gap 7; dropped: ...``."""
    kinds = (("missed", by_reason(missed)), ("dropped", by_reason(dropped)))
    return "; ".join(f"{kind}: {said}" for kind, said in kinds if said)


def explained(counts: Mapping[str, int]) -> str:
    """Return a line for each reason, with what it means."""
    return "\n".join(f"{n:,} {reason}: {REASONS.get(reason, reason)}" for reason, n in _sorted(counts))


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((reason, n) for reason, n in counts.items() if n), key=lambda item: (-item[1], item[0]))


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
    if lost / of >= rules.LOST:
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
        grave = share >= rules.NOT_ANALYSED
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
    elif counted < rules.FEW_CELLS:
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


class RunQuality:
    """Measures a run as it goes, and says what a person must be told of it.

    Lifecycle: construct -> `add_frame` from the thread that tracks, `add_tracks` from the one that judges,
    `look` from the one that looks after the run -> `close`, once, when the others have ended. `figures` from
    any thread, at any time.

    Parameters
    ----------
    info : SourceInfo
    flow : SetFlow
        As it was set.
    """

    def __init__(self, info: SourceInfo, flow: SetFlow | None = None) -> None:
        self._field_um2 = info.height * info.width * info.pixel_size_um**2
        self._flow = flow or SetFlow()
        self._meter = Meter(fps=info.fps, pixel_size_um=info.pixel_size_um)
        self._drift = DriftWatch()
        self._standing = Standing()

    def add_frame(self, frame: Frame, at: OpenTracks) -> None:
        """Take in a frame that was tracked, and the cells that are followed since."""
        self._meter.add_frame(frame.image, frame.time_s, None if at.frame is None else len(at.cell))

    def add_tracks(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Take in tracks with what was said of them, as they are counted."""
        self._meter.add_tracks(pairs)

    def figures(self, *, recent: bool = False) -> dict[str, Any]:
        """Return ``quality`` of ``run.json``, over the whole run or its last seconds."""
        return self._figures(self._drift.found, recent=recent)

    def _figures(self, change: Change | None, *, recent: bool = False) -> dict[str, Any]:
        sums = self._meter.sums(recent=recent)
        figures = figures_of(sums, field_um2=self._field_um2, flow=self._flow)
        # What tells one time from another belongs to the whole run.
        return figures if recent else {**figures, **over_time(self._meter, change)}

    def look(
        self, run: Mapping[str, Any], counted: bytes | bytearray, *, seconds: float, open_tracks: int
    ) -> tuple[RunWarning, ...]:
        """Return the warnings that stand now, grave ones first.

        Parameters
        ----------
        run : mapping
            ``frames``, ``cells``, ``fraction`` and ``quality`` as in ``run.json``.
        counted : bytes
            The counted cells in order (`Tally.counted`).
        seconds : float
            Camera time.
        open_tracks : int
            Cells that are followed now.
        """
        self._drift.look(counted)
        now = warnings_of_figures(self.figures(recent=True))
        whole = warnings_so_far(run, seconds=seconds, open_tracks=open_tracks)
        return self._standing.look([*now, *whole], seconds)

    def close(
        self,
        run: Mapping[str, Any],
        counted: bytes | bytearray,
        *,
        not_analysed: Mapping[str, int],
        seconds: float,
    ) -> tuple[dict[str, Any], list[RunWarning]]:
        """Return ``quality`` of a run that has ended, its warnings among it, and these.

        Parameters
        ----------
        run : mapping
            ``frames``, ``cells`` and ``fraction`` as in ``run.json``.
        counted : bytes
            The counted cells in order.
        not_analysed : mapping of str to int
            Frames in which nothing could be looked for, by reason.
        seconds : float
            Camera time of the run.
        """
        self._drift.end(counted)
        quality = {**self.figures(), "not_analysed": dict(not_analysed)}
        told = warnings_of_counts({**run, "quality": quality})
        told += self._standing.passed(told, seconds)
        return {**quality, "warnings": [w.as_dict() for w in told]}, told
