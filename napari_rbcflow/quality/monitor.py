"""The quality of one run, from its first frame to its session, and the one list of its warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from napari_rbcflow.estimate import FEW_CELLS
from napari_rbcflow.quality import rules
from napari_rbcflow.quality.drift import DriftWatch
from napari_rbcflow.quality.meter import Meter, SetFlow, figures_of, over_time
from napari_rbcflow.quality.rules import ActiveWarnings, warnings_of_figures
from napari_rbcflow.quality.warning import RunWarning, Severity, sorted_by_weight
from napari_rbcflow.sentences import say
from napari_rbcflow.types import Frame, Judgement, RunStatus, SourceInfo, Track

if TYPE_CHECKING:  # a process that only watches a run needs no tracking
    from napari_rbcflow.tracking import OpenTracks

_REASONS = (
    "queue-full",
    "after-stop",
    "run-failed",
    "image-number",
    "time-gap",
    "overflow",
    "not-recorded",
    "stored-twice",
)


def reason_words(reason: str) -> str:
    """Say why frames were lost, by the name in ``run.json``."""
    return say(f"quality.lost-{reason}") if reason in _REASONS else reason


def by_reason(counts: Mapping[str, int]) -> str:
    """Return counts by the names of ``run.json``, the greatest first: ``time-gap 7, overflow 3``."""
    return ", ".join(f"{reason} {n:,}" for reason, n in _sorted(counts))


def by_reason_in_words(counts: Mapping[str, int]) -> str:
    """Return the same in words: ``gap in the camera's times: 7``."""
    return ", ".join(f"{reason_words(reason)}: {n:,}" for reason, n in _sorted(counts))


def lost_words(*, dropped: Mapping[str, int], missed: Mapping[str, int]) -> str:
    """Return the names and counts of both kinds of loss, or nothing: ``missed: time-gap 7; dropped: ...``."""
    kinds = []
    if said := by_reason(missed):
        kinds.append(say("quality.frames-missed", reasons=said))
    if said := by_reason(dropped):
        kinds.append(say("quality.frames-dropped", reasons=said))
    return "; ".join(kinds)


def explained(counts: Mapping[str, int]) -> str:
    """Return a line for each reason, with what it means."""
    return "\n".join(
        say("quality.reason-explained", frames=n, reason=reason, meaning=reason_words(reason))
        for reason, n in _sorted(counts)
    )


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((reason, n) for reason, n in counts.items() if n), key=lambda item: (-item[1], item[0]))


NOTE, WARNING = Severity.NOTE, Severity.WARNING
_SECONDS_TO_SEE_A_CELL = 10.0  # camera time: one for the background, another for a cell's crossing
_SECONDS_TO_COUNT_A_CELL = 60.0


def warnings_of_run(run: Mapping[str, Any]) -> list[RunWarning]:
    """Return the warnings of a run, grave ones first.

    Parameters
    ----------
    run : mapping
        What ``run.json`` holds, of any version. The list that the run itself left (``quality``, ``warnings``)
        is used; without one, the warnings are made from the counts.
    """
    quality = run.get("quality") or {}
    kept = quality.get("warnings")
    told = list(_ending(run))
    if isinstance(kept, list):
        told += [w for item in kept if (w := RunWarning.of(item)) is not None]
    elif run["status"] in (RunStatus.FAILED, RunStatus.RUNNING):
        # It was not closed by its own process: why cells are missing, nobody knows.
        told += _measured(run)
    else:
        told += warnings_of_counts(run)
    said = {w.sentence for w in told}
    told += [RunWarning("told", NOTE, str(s)) for s in run.get("warnings", ()) if str(s) not in said]
    return sorted_by_weight(told)


def warnings_of_counts(run: Mapping[str, Any], seconds: float | None = None) -> list[RunWarning]:
    """Return what follows from frames, cells, fraction and ``quality`` of a run that has ended.

    `seconds` of camera time are known as it ends, not in older sessions.
    """
    figures = run.get("quality") or {}
    return [*_frames(run), *_cells(run, seconds), *_interval(run), *warnings_of_figures(figures)]


def warnings_so_far(run: Mapping[str, Any], *, seconds: float, open_tracks: int) -> list[RunWarning]:
    """Return the warnings of a run that goes on, after `seconds` of camera time.

    What is true of every run in its first seconds (nothing was seen, cells are few) is no warning yet.
    """
    told = _measured(run)
    if seconds >= _SECONDS_TO_SEE_A_CELL and not run["cells"]["tracked"] + open_tracks:
        told.append(_NO_CELL)
    elif seconds >= _SECONDS_TO_COUNT_A_CELL and not run["fraction"]["n"]:
        told.append(_NONE_COUNTED)
    return sorted_by_weight(told)


def _measured(run: Mapping[str, Any]) -> list[RunWarning]:
    """Return what was measured, without a guess at why something is missing."""
    return [*_frames(run, live=True), *_interval(run), *warnings_of_figures(run.get("quality") or {})]


_NO_CELL = RunWarning.saying("no-cell", WARNING)
_NONE_COUNTED = RunWarning.saying("none-counted", WARNING)


def _ending(run: Mapping[str, Any]) -> Iterator[RunWarning]:
    if run["status"] == "failed":
        yield RunWarning.saying("failed", WARNING, reason=run["stop_reason"])
    elif run["status"] == "running":
        yield RunWarning.saying("not-ended", WARNING)


def _frames(run: Mapping[str, Any], *, live: bool = False) -> Iterator[RunWarning]:
    frames = run["frames"]
    dropped = sum(n for reason, n in frames["dropped"].items() if reason != "after-stop")
    missed = sum(frames["missed"].values())
    lost, of = dropped + missed, frames["received"] + missed
    if not of:
        if not live:
            yield RunWarning.saying("no-frame", WARNING)
        return
    if live and of < rules.LEAST_FRAMES:
        return  # one lost frame is much of the first ones
    if lost / of >= rules.LOST:
        yield RunWarning.saying("frames-lost", WARNING, lost=lost, frames=of, share=100 * (lost / of))
    not_analysed = (run.get("quality") or {}).get("not_analysed") or {}
    if left_out := sum(not_analysed.values()):
        share = left_out / max(1, frames["processed"])
        why = ", ".join(f"{reason.replace('-', ' ')}: {n:,}" for reason, n in sorted(not_analysed.items()))
        check = "-focus" if set(not_analysed) == {"out-of-focus"} else "-lamp"
        values: dict[str, Any] = {"frames": left_out, "share": 100 * share, "why": why}
        if share >= rules.NOT_ANALYSED:
            yield RunWarning.saying("frames-not-analysed", WARNING, f"{check}-grave", **values)
        else:
            yield RunWarning.saying("frames-not-analysed", NOTE, check, **values)


def _cells(run: Mapping[str, Any], seconds: float | None) -> Iterator[RunWarning]:
    frames, counted = run["frames"], run["fraction"]["n"]
    if not frames["received"] + sum(frames["missed"].values()):
        return
    brief = seconds is not None and seconds < _SECONDS_TO_SEE_A_CELL
    if brief and not counted and run["cells"].get("unreliable", 0) < rules.LEAST_RELIABLE:
        yield RunWarning.saying("brief", WARNING, seconds=seconds)
    elif not run["cells"]["tracked"]:
        yield _NO_CELL
    elif not counted:
        yield _NONE_COUNTED
    elif counted < FEW_CELLS:
        yield RunWarning.saying("few-cells", WARNING, cells=counted)


def _interval(run: Mapping[str, Any]) -> Iterator[RunWarning]:
    """The anytime interval keeps what earlier cells ruled out, so the later ones may be outside it."""
    estimate, low, high = (run["fraction"].get(name) for name in ("estimate", "low", "high"))
    if None not in (estimate, low, high) and not low <= estimate <= high:
        yield RunWarning.saying("fraction-left-interval", WARNING)


class RunQuality:
    """Measures a run as it goes, and gives its warnings.

    Lifecycle: construct -> `add_frame` from the tracking thread, `add_tracks` from the judging thread, `look`
    from the thread that supervises the run -> `close`, once, when the others have ended. `figures` from any
    thread, at any time.

    Parameters
    ----------
    info : SourceInfo
    flow : SetFlow
        As it was set.
    direction : {"left-to-right", "right-to-left"}
        Of the flow, as it was set.
    """

    def __init__(
        self, info: SourceInfo, flow: SetFlow | None = None, direction: str = "left-to-right"
    ) -> None:
        self._field_um2 = info.height * info.width * info.pixel_size_um**2
        self._flow = flow or SetFlow()
        self._lossy_codec = info.lossy_codec
        self._stretched = info.details.get("grey_stretched")
        self._set = {"flow_set": direction, "rotated_degrees": int(info.details.get("rotated_degrees", 0))}
        self._meter = Meter(fps=info.fps, pixel_size_um=info.pixel_size_um)
        self._drift = DriftWatch()
        self._active = ActiveWarnings()

    def add_frame(self, frame: Frame, at: OpenTracks) -> None:
        """Add a tracked frame, and the cells that are followed in it."""
        open_tracks = None if at.frame is None else len(at.cell)
        self._meter.add_frame(frame.image, frame.time_s, open_tracks, at.detected, at.steps)
        self._meter.falloff = at.falloff

    def add_tracks(self, pairs: Iterable[tuple[Track, Judgement]]) -> None:
        """Add judged tracks, as they are counted."""
        self._meter.add_tracks(pairs)

    def figures(self, focus: Mapping[str, Any] | None = None, *, recent: bool = False) -> dict[str, Any]:
        """Return ``quality`` of ``run.json``, over the whole run or its last seconds.

        `focus` is ``focus_speed`` of ``run.json``, as it is known by now.
        """
        sums = self._meter.sums(recent=recent)
        figures = figures_of(sums, field_um2=self._field_um2, flow=self._flow, focus=focus)
        figures |= {"lossy_codec": self._lossy_codec or None, **self._meter.stored.figures}
        figures["light_falloff_share"] = self._meter.falloff
        figures |= {"grey_stretched": self._stretched, **self._set}
        # Measures that compare times belong to the whole run.
        return figures if recent else {**figures, **over_time(self._meter, self._drift.found)}

    def look(
        self, run: Mapping[str, Any], counted: bytes | bytearray, *, seconds: float, open_tracks: int
    ) -> tuple[RunWarning, ...]:
        """Return the warnings that are active now, grave ones first.

        Parameters
        ----------
        run : mapping
            ``frames``, ``cells``, ``fraction``, ``focus_speed`` and ``quality`` as in ``run.json``.
        counted : bytes
            The counted cells in order (`Tally.counted`).
        seconds : float
            Camera time.
        open_tracks : int
            Cells that are followed now.
        """
        self._drift.look(counted)
        now = warnings_of_figures(self.figures(run.get("focus_speed"), recent=True))
        whole = warnings_so_far(run, seconds=seconds, open_tracks=open_tracks)
        return self._active.look([*now, *whole], seconds)

    def close(
        self,
        run: Mapping[str, Any],
        counted: bytes | bytearray,
        *,
        not_analysed: Mapping[str, int],
        seconds: float,
    ) -> tuple[dict[str, Any], list[RunWarning]]:
        """Return ``quality`` of a run that has ended, with its warnings in it, and the warnings.

        Parameters
        ----------
        run : mapping
            ``frames``, ``cells``, ``fraction`` and ``focus_speed`` as in ``run.json``.
        counted : bytes
            The counted cells in order.
        not_analysed : mapping of str to int
            Frames that could not be analysed, by reason.
        seconds : float
            Camera time of the run.
        """
        self._drift.end(counted)
        quality = {**self.figures(run.get("focus_speed")), "not_analysed": dict(not_analysed)}
        told = warnings_of_counts({**run, "quality": quality}, seconds)
        told += self._active.passed(told, seconds)
        return {**quality, "warnings": [w.as_dict() for w in told]}, told
