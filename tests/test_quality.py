"""The quality of a run: what is measured, what is said of it, and that nobody cries wolf."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import SaysAll, a_judgement, a_track
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sentence_keys import is_said, refused

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.cli.terminal import say_notes, say_number
from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.quality import RunWarning, SetFlow, Severity
from napari_rbcflow.quality.drift import DriftWatch, change_in
from napari_rbcflow.quality.meter import RECENT_S, Meter, Sums, figures_of, median_speed, speed_bin
from napari_rbcflow.quality.monitor import RunQuality, warnings_of_counts, warnings_of_run, warnings_so_far
from napari_rbcflow.quality.rules import STAYS_S, ActiveWarnings, warnings_of_figures
from napari_rbcflow.quality.summary import quality_lines
from napari_rbcflow.sentences import say
from napari_rbcflow.session import open_session
from napari_rbcflow.session.report import write_report
from napari_rbcflow.session.schema import write_run
from napari_rbcflow.session.verification import verify
from napari_rbcflow.simulation import ChamberSettings, SimulatedChamber
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.tracking.settings import Direction, TrackingSettings
from napari_rbcflow.tracking.tracker import OpenTracks, Tracker
from napari_rbcflow.types import Frame, Judgement, Label, SourceInfo, Track

Spoil = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def draw(rng: np.random.Generator, *parts: tuple[float, int]) -> bytes:
    """Counted cells: so many of each fraction."""
    return np.concatenate([rng.random(n) < p for p, n in parts]).astype(np.uint8).tobytes()


def looked_at(counted: bytes, every: int = 15) -> DriftWatch:
    watch = DriftWatch()
    for n in range(every, len(counted), every):
        watch.look(counted[:n])
    watch.end(counted)
    return watch


def keys(warnings: list[RunWarning] | tuple[RunWarning, ...], *, grave: bool = True) -> set[str]:
    return {w.key for w in warnings if w.grave is grave}


def record(quality: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    run = {
        "status": "finished",
        "stop_reason": "reliable",
        "frames": {"received": 3600, "processed": 3600, "dropped": {}, "missed": {}},
        "cells": {"tracked": 5000, "tank_treading": 160, "flipping": 40},
        "fraction": {"n": 200, "estimate": 0.8, "low": 0.74, "high": 0.85, "level": 0.95, "method": "wilson"},
        "warnings": [],
        "quality": quality or {},
    }
    return {**run, **changes}


# ------------------------------------------------------------------ the fraction within the run


@pytest.mark.parametrize("fraction", [0.5, 0.86, 0.97])
def test_a_steady_fraction_is_hardly_ever_said_to_drift(fraction: float) -> None:
    rng = np.random.default_rng(7)
    alarms = sum(looked_at(draw(rng, (fraction, 300))).found is not None for _ in range(400))
    assert alarms <= 8  # 4 at 1 %; 8 or fewer in 98 of 100 such tests were it as many as that


def test_a_fraction_that_falls_half_way_is_found_while_the_run_goes_on_and_where() -> None:
    counted = draw(np.random.default_rng(3), (0.9, 150), (0.5, 150))
    watch = DriftWatch()
    at = next(n for n in range(301) if watch.look(counted[:n]))
    assert 150 < at < 300
    watch.end(counted)
    assert watch.found is not None
    assert abs(watch.found.at_cell - 150) < 40
    assert watch.found.after - watch.found.before == pytest.approx(-0.4, abs=0.15)


def test_what_was_found_stands_with_the_fractions_of_today() -> None:
    """The fraction falls and comes back: the cells that follow belong to "those after", too."""
    counted = draw(np.random.default_rng(3), (0.95, 150), (0.4, 100), (0.95, 1500))
    watch = DriftWatch()
    found = [watch.look(counted[:n]) for n in range(0, len(counted) + 1, 10)]
    found.append(watch.end(counted))
    sizes = [*range(0, len(counted) + 1, 10), len(counted)]
    told = [(n, change) for n, change in zip(sizes, found, strict=True) if change is not None]
    assert told[0][0] < 300
    for n, change in told:
        before, after = counted[: change.at_cell], counted[change.at_cell : n]
        assert change.before == pytest.approx(sum(before) / len(before))
        assert change.after == pytest.approx(sum(after) / len(after))
        assert change.cells == n


@given(st.binary(max_size=200).map(lambda data: bytes(b & 1 for b in data)))
def test_a_change_tells_the_same_forwards_and_backwards(counted: bytes) -> None:
    one, other = change_in(counted), change_in(counted[::-1])
    if one is None or other is None:
        assert one is other
        assert len(set(counted)) < 2
        return
    assert 0 <= one.p_value <= 1
    assert one.p_value == pytest.approx(other.p_value)
    assert 1 <= one.at_cell < len(counted)
    n, k = len(counted), sum(counted)
    assert one.before * one.at_cell + one.after * (n - one.at_cell) == pytest.approx(k)


# ------------------------------------------------------------------ sums and what stands


@settings(max_examples=30)
@given(st.lists(st.floats(20, 5000), min_size=1, max_size=80))
def test_a_median_speed_is_right_to_two_per_cent(speeds: list[float]) -> None:
    sums = Sums()
    for speed in speeds:
        sums.speeds[speed_bin(speed)] += 1
    found = median_speed(sums.speeds)
    assert found is not None
    below, above = sum(s * 1.021 < found for s in speeds), sum(s > found * 1.021 for s in speeds)
    assert max(below, above) <= len(speeds) / 2


def test_each_measure_is_what_it_says_at_any_rate_and_in_any_field() -> None:
    """24 frames/s of 96 x 256 pixels of 0.3 um: speed, cells in the paper's field, flicker of 3 %."""
    quality, rng = RunQuality(SourceInfo("x", 96, 256, 24.0, 0.3)), np.random.default_rng(1)
    nowhere = np.zeros(5, np.float32)
    for k in range(480):
        light = np.uint8(round(120 * (1 + 0.03 * rng.standard_normal())))
        frame = Frame(k, k / 24, np.full((96, 256), light, np.uint8))
        quality.add_frame(frame, OpenTracks(np.arange(5), nowhere, nowhere, frame))
    tracks = [a_track(cell, 20, x_px=np.arange(20, dtype=np.float32) * 10) for cell in range(1, 31)]
    quality.add_tracks((track, a_judgement(track.cell, Label.TANK_TREADING)) for track in tracks)
    figures = quality.figures()
    assert figures["speed_um_per_s"] == pytest.approx(10 * 24 * 0.3, rel=0.02)
    assert figures["cells_per_papers_field"] == pytest.approx(5 * 830 * 655 / (96 * 256 * 0.3**2))
    assert figures["flicker_share"] == pytest.approx(0.03, rel=0.1)


def test_a_lamp_that_warms_up_is_no_jump_of_the_light() -> None:
    meter = Meter(fps=60, pixel_size_um=0.605)
    for second, grey in enumerate([*range(100, 150), 180, 180, 180]):
        if second == 50:
            assert meter.light_change == pytest.approx(0.01)
        meter.add_frame(np.full((64, 96), grey, np.uint8), float(second), 3)
    assert meter.light_change == pytest.approx(180 / 149 - 1)


def test_frames_that_came_after_the_stop_are_not_lost() -> None:
    for reason, said in (("after-stop", set()), ("queue-full", {"frames-lost"})):
        frames = {"received": 3600, "processed": 3500, "dropped": {reason: 100}, "missed": {}}
        assert keys(warnings_of_counts(record(frames=frames))) == said


def test_an_hour_takes_no_more_memory_than_a_minute_and_loses_nothing() -> None:
    meter = Meter(fps=60, pixel_size_um=0.605)
    image = np.full((64, 64), 120, np.uint8)
    for second in range(600):
        for k in range(3):
            meter.add_frame(image, second + k / 3, open_tracks=second % 7)
    whole, recent = meter.sums(), meter.sums(recent=True)
    assert whole.frames == 1800
    assert whole.open_tracks == 3 * sum(second % 7 for second in range(600))
    assert recent.frames == 3 * (RECENT_S + 1)  # and the second at hand
    assert len(meter._recent) == RECENT_S
    assert meter.light == (120.0, 120.0)
    assert figures_of(whole, field_um2=1e6, flow=SetFlow())["light_grey"] == 120.0


def test_what_comes_and_goes_stands_without_a_flicker_and_leaves_when_it_is_over() -> None:
    active = ActiveWarnings()

    def dark(level: int, severity: Severity = Severity.NOTE) -> RunWarning:
        return RunWarning("light-dark", severity, f"The picture is too dark ({level}).")

    seen = [active.look([dark(t)] if t % 3 == 0 else [], float(t)) for t in range(40)]
    assert all(len(s) == 1 for s in seen)
    worded = [s[0].sentence for s in seen]
    assert len(set(worded)) <= 1 + 40 / 5
    # A graver one is said at once, a milder one not before the grave one has been away.
    assert active.look([dark(41, Severity.WARNING)], 41.0)[0].grave
    assert active.look([dark(42)], 42.0)[0].grave
    assert active.look([], 42.0 + STAYS_S + 0.1) == ()


def test_what_was_grave_for_a_part_of_the_run_is_told_at_its_end() -> None:
    active = ActiveWarnings()
    slow = RunWarning("flow-slow", Severity.WARNING, "The cells flow too slowly.")
    for t in range(100):
        active.look([slow] if 40 <= t < 52 else [], float(t))
    (passed,) = active.passed([], 100.0)
    assert (passed.key, passed.grave) == ("flow-slow", False)
    assert passed.sentence == say("quality.for-some-seconds", seconds=12, total=100, sentence=slow.sentence)
    assert active.passed([], 30.0)[0].grave  # of a short run it is a great part
    assert active.passed([slow], 100.0) == []  # said of the whole run already


def test_a_run_s_whole_overrules_its_first_seconds() -> None:
    """Else a number would stay grey for good because of eight of 2358 tracks."""
    active = ActiveWarnings()
    nowhere = RunWarning("flow-nowhere", Severity.WARNING, "It does not move as expected.")
    for t in range(40):
        active.look([nowhere] if t < 19 else [], float(t))
    assert active.passed([], 40.0) == []
    for t in range(40, 48):
        active.look([nowhere], float(t))
    assert [w.grave for w in active.passed([], 100.0)] == [False]


# ------------------------------------------------------------------ what is said


def test_every_grave_warning_of_an_older_session_is_still_said() -> None:
    older = record(warnings=["The lamp is old."])
    del older["quality"]
    assert [(w.grave, w.sentence) for w in warnings_of_run(older)] == [(False, "The lamp is old.")]
    few = warnings_of_run({**older, "fraction": {"n": 12}})
    assert [w.grave for w in few] == [True, False]
    assert few[0].sentence == say("quality.warn-few-cells", cells=12)
    (one, *_) = warnings_of_run({**older, "fraction": {"n": 1}})
    assert one.sentence == say("quality.warn-few-cells", cells=1)
    assert "1 cell was" in one.sentence
    lossy = {**older["frames"], "received": 3570, "missed": {"time-gap": 60}}
    assert keys(warnings_of_run({**older, "frames": lossy})) == {"frames-lost"}
    assert keys(warnings_of_run({**older, "status": "running"})) == {"not-ended"}
    assert [line.name for line in quality_lines(older, [])] == [say("quality.line-lost")]


def test_nothing_is_said_of_the_fraction_s_course_before_it_was_looked_at() -> None:
    def course(n: int) -> list[str]:
        run = record({"fraction_change": None}, fraction={"n": n})
        name = say("quality.line-course")
        return [line.value for line in quality_lines(run, []) if line.name == name]

    assert [course(n) for n in (0, 2, 49, 50)] == [[], [], [], [say("quality.value-no-change")]]


def test_a_share_of_white_is_said_without_powers_of_ten() -> None:
    said = [
        line.value
        for white in (0.0, 5.3e-7, 4e-4, 0.37, 1.0)
        for line in quality_lines(record({"light_grey": 120.0, "saturated_share": white}), [])
        if line.name == say("quality.line-white")
    ]
    assert said == ["0.04 %", "37 %", "100 %"]  # less is nothing amiss
    lost = record(frames={"received": 90_000, "processed": 90_000, "dropped": {}, "missed": {"overflow": 1}})
    assert [line.value for line in quality_lines(lost, [])] == [say("quality.under-a-share", least=0.01)]


def test_a_fraction_outside_its_own_interval_is_grave() -> None:
    """The later cells say what the anytime interval ruled out by the first: the run measured two things."""
    figure = {"n": 200, "estimate": 0.55, "low": 0.56, "high": 0.72, "level": 0.95, "method": "anytime"}
    assert keys(warnings_of_run(record(fraction=figure))) == {"fraction-left-interval"}
    assert keys(warnings_so_far(record(fraction=figure), seconds=30, open_tracks=9)) == {
        "fraction-left-interval"
    }
    assert warnings_of_run(record(fraction={**figure, "estimate": 0.56})) == []
    assert warnings_of_run(record(fraction={**figure, "estimate": None, "low": None, "high": None})) == []


def test_a_session_tells_each_warning_once_and_as_the_run_said_it() -> None:
    grave = RunWarning("flow-slow", Severity.WARNING, "The cells flow too slowly: 5.0.")
    run = record({"warnings": [grave.as_dict(), {"key": "?"}]}, warnings=[grave.sentence, "Mild."])
    assert [w.text for w in warnings_of_run(run)] == [
        "Warning. The cells flow too slowly: 5.0.",
        "Note. Mild.",
    ]


def test_a_run_that_ended_at_once_or_died_is_not_told_to_check_the_focus() -> None:
    """After 0.4 s, or where the process was killed, nobody knows anything of the focus."""
    few = {"tracked": 30, "unreliable": 4, "uncounted": 26}
    for cells in ({"tracked": 0}, few):
        run = record(cells=cells, fraction={"n": 0})
        assert keys(warnings_of_counts(run, seconds=0.4)) == {"brief"}
    assert keys(warnings_of_counts(record(cells={"tracked": 0}, fraction={"n": 0}), seconds=12)) == {
        "no-cell"
    }
    blurred = record(cells={**few, "unreliable": 40}, fraction={"n": 0})
    assert keys(warnings_of_counts(blurred, seconds=6)) == {"none-counted"}
    for cells in ({"tracked": 0}, few):
        died = record(status="failed", stop_reason="killed", cells=cells, fraction={"n": 0})
        assert keys(warnings_of_run(died)) == {"failed"}


def test_the_first_seconds_of_a_run_are_no_warning() -> None:
    run = record(cells={"tracked": 0}, fraction={"n": 0})
    assert warnings_so_far(run, seconds=5, open_tracks=0) == []
    assert keys(warnings_so_far(run, seconds=11, open_tracks=0)) == {"no-cell"}
    assert warnings_so_far(run, seconds=11, open_tracks=3) == []
    assert keys(warnings_so_far(run, seconds=61, open_tracks=3)) == {"none-counted"}


@pytest.mark.parametrize(
    ("change", "note", "warning"),
    [
        ({}, set(), set()),
        ({"shear_rate_per_s": 5.0}, set(), {"flow-slow"}),
        ({"shear_rate_per_s": 17.0}, set(), {"flow-fast"}),
        ({"shear_rate_per_s": 7.0}, {"flow-slow"}, set()),
        ({"shear_rate_per_s": 20.0, "shear_rate_set_per_s": 20.0}, set(), set()),
        ({"shear_rate_per_s": 5.0, "tracks_reliable": 5}, set(), set()),
        ({"speed_most_um_per_s": 1100.0}, {"flow-unsteady"}, set()),
        ({"reliable_share": 0.005}, set(), {"reliable-few"}),
        ({"reliable_share": 0.022}, set(), {"reliable-few"}),
        ({"reliable_share": 0.032}, {"reliable-few"}, set()),
        ({"reliable_share": 0.005, "tracks_judged": 100}, set(), set()),
        ({"reliable_share": 0.112}, {"reliable-many"}, set()),
        ({"reliable_share": 0.112, "tracks_judged": 299}, set(), set()),
        ({"reliable_share": 0.4}, set(), {"reliable-many"}),
        ({"counted_at_other_speeds_share": 0.495}, set(), {"speeds"}),
        ({"counted_at_other_speeds_share": 0.2}, {"speeds"}, set()),
        ({"counted_at_other_speeds_share": 0.495, "counted_with_speed": 19}, set(), set()),
        ({"light_grey": 15.0}, set(), {"light-dark"}),
        ({"light_grey": 215.0}, {"light-bright"}, set()),
        ({"black_share": 0.005}, {"light-dark"}, set()),
        ({"saturated_share": 0.001}, set(), {"light-saturated"}),
        ({"light_most_grey": 180.0}, {"light-changed"}, set()),
        ({"flicker_share": 0.05}, {"light-flicker"}, set()),
        ({"light_falloff_share": 0.4}, {"light-uneven"}, set()),
        ({"light_falloff_share": 0.8}, set(), {"light-uneven"}),
        ({"cells_per_papers_field": 320.0}, {"cells-dense"}, set()),
        ({"cells_per_papers_field": 600.0}, set(), {"cells-dense"}),
        ({"cells_per_papers_field": 10.0}, {"cells-sparse"}, set()),
        ({"neighbour_share": 0.29}, set(), {"cells-clumped"}),
        ({"rim_radius_um": 1.6}, set(), {"pixel-size"}),
        ({"rim_radius_um": None, "rim_radius_of_all_um": 4.5}, set(), {"pixel-size"}),
        ({"followed_share": 0.02}, set(), {"flow-nowhere"}),
        ({"followed_share": 0.6}, set(), set()),  # a blurred picture has as much
        ({"followed_share": 0.02, "objects_detected": 90}, set(), set()),
        ({"too_short_share": 0.8}, set(), set()),  # of few tracks, the short ones end first
        ({"fraction_change": {"before": 0.9, "after": 0.7, "at_cell": 80}}, set(), {"fraction-drifts"}),
        ({"fraction_change": {"before": 0.9, "after": 0.88, "at_cell": 8000}}, {"fraction-drifts"}, set()),
    ],
)
def test_a_measure_beyond_its_limit_is_said_with_what_to_do(
    change: dict[str, Any], note: set[str], warning: set[str]
) -> None:
    healthy = {
        "frames": 3600,
        "tracks": 6000,
        "tracks_judged": 5900,
        "tracks_reliable": 240,
        "reliable_share": 0.041,
        "too_short_share": 0.01,
        "objects_detected": 400_000,
        "followed_share": 0.98,
        "counted_with_speed": 230,
        "counted_at_other_speeds_share": 0.02,
        "speed_expected_um_per_s": 798.0,
        "cells_per_frame": 120.0,
        "cells_per_papers_field": 120.0,
        "neighbour_share": 0.12,
        "neighbour_share_by_chance": 0.1,
        "light_grey": 120.0,
        "saturated_share": 0.0,
        "black_share": 0.0,
        "flicker_share": 0.0005,
        "speed_um_per_s": 800.0,
        "shear_rate_per_s": 10.1,
        "shear_rate_set_per_s": 10.0,
        "focus_height_um": 60.0,
        "speed_least_um_per_s": 780.0,
        "speed_most_um_per_s": 830.0,
        "light_least_grey": 118.0,
        "light_most_grey": 122.0,
        "light_change_in_a_second_share": 0.01,
        "rim_radius_um": 3.2,
        "rim_radius_of_all_um": 2.9,
        "fraction_change": None,
    }
    said = warnings_of_figures({**healthy, **change})
    assert (keys(said, grave=False), keys(said)) == (note, warning)
    lines = quality_lines(record({**healthy, **change}), said)
    assert sum(line.severity is not None for line in lines) == len(note | warning)


SHARES, RATIOS = st.floats(0, 1), st.floats(1, 4)
FIGURES = st.fixed_dictionaries(
    {
        "reliable_share": SHARES | st.floats(0.03, 0.13),
        "counted_at_other_speeds_share": SHARES,
        "followed_share": st.floats(0, 1.1),
        "cells_per_papers_field": st.floats(0, 600),
        "neighbour_share": SHARES,
        "neighbour_share_by_chance": SHARES,
        "rim_radius_um": st.floats(2, 5) | st.none(),
        "rim_radius_of_all_um": st.floats(2, 5),
        "shear_rate_per_s": st.floats(1, 60),
        "shear_rate_set_per_s": st.sampled_from([3.0, 7.0, 10.0, 20.0]),
        "light_grey": st.floats(0, 255),
        "saturated_share": st.floats(0, 0.001) | SHARES,
        "black_share": st.floats(0, 0.003) | SHARES,
        "flicker_share": st.floats(0, 0.05),
        "light_falloff_share": SHARES,
        "speed_most_um_per_s": RATIOS.map(lambda times: 500 * times),
        "light_most_grey": RATIOS.map(lambda times: 60 * times),
        "light_change_in_a_second_share": SHARES,
        "not_analysed": st.integers(0, 9).map(lambda n: {"dark": n}),
        "fraction_change": st.none() | st.just({"before": 0.9, "after": 0.8, "at_cell": 80.0}),
        "n": st.sampled_from([0, 19, 20, 179, 180, 299, 300, 6000]),
    }
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def lies_in(value: str, usual: str) -> bool:
    """Read a line as a person does."""
    if usual == say("quality.usual-none"):
        return value == "0 %"
    if usual == say("quality.usual-course"):
        return value == say("quality.value-no-change")
    ends = [float(n) for n in NUMBER.findall(usual.partition("(")[0])]
    if value.startswith("under"):
        return True  # of shares that are usual up to more than that
    x = float(NUMBER.findall(value)[0])
    if usual.startswith("up to"):
        return x <= ends[0]
    return ends[0] <= x <= (ends[1] if len(ends) > 1 else 100)


@settings(max_examples=400)
@given(FIGURES, st.integers(0, 40))
def test_a_tick_stands_exactly_beside_what_lies_in_the_printed_range(
    figures: dict[str, Any], lost: int
) -> None:
    n = figures.pop("n")
    counts = (
        "frames",
        "tracks",
        "tracks_judged",
        "tracks_reliable",
        "objects_detected",
        "counted_with_speed",
    )
    rest = {"speed_um_per_s": 800.0, "speed_expected_um_per_s": 798.0, "speed_least_um_per_s": 500.0}
    rest |= {"light_least_grey": 60.0, "focus_height_um": 60.0, "cells_per_frame": 100.0}
    frames = {"received": 3600, "processed": 3600, "dropped": {}, "missed": {"time-gap": lost}}
    run = record(dict.fromkeys(counts, n) | rest | figures, frames=frames)
    warnings = warnings_of_run(run)
    lines = quality_lines(run, warnings)
    for line in lines:
        assert (line.severity is None) == lies_in(line.value, line.usual), line
    # Every grave warning has its sign at a line, but for those that are of no measure.
    of_no_measure = {"few-cells", "no-cell", "none-counted", "brief"}
    grave = [w for w in warnings if w.grave and w.key not in of_no_measure]
    assert sum(line.severity is Severity.WARNING for line in lines) == len({w.key for w in grave})


def test_black_in_a_bright_field_is_not_called_a_dark_field() -> None:
    """A black border: "too dark (128 of 255)" sent people to the lamp."""
    for grey, key in ((128.0, "quality.warn-light-dark-black"), (15.0, "quality.warn-light-dark")):
        (told,) = warnings_of_figures({"frames": 3600, "light_grey": grey, "black_share": 0.05})
        assert (told.key, told.grave) == ("light-dark", True)
        assert is_said(key, told.sentence, grey=grey)


@pytest.mark.parametrize(
    ("shear", "height"), [(0.0, 60.0), (float("nan"), 60.0), (10.0, -1.0), (10.0, 400.0)]
)
def test_a_flow_that_no_chamber_has_is_refused(shear: float, height: float) -> None:
    with refused(BadInput, "quality.flow-setting-outside"):
        SetFlow(shear_rate_per_s=shear, focus_height_um=height)


# ------------------------------------------------------------------ from frames


def run_of(
    two_stage: TwoStage,
    *,
    spoil: Spoil | None = None,
    pixel_size_um: float = 0.605,
    flow: Direction = "left-to-right",
    **changes: Any,
) -> tuple[list[RunWarning], list[tuple[RunWarning, ...]]]:
    """Track and judge a few seconds of a chamber whose cells all stand near the focus.

    Returns what is told at the end, and what was active at each look, thirty a second.
    """
    given: dict[str, Any] = {"height": 480, "width": 640, "cells_per_frame": 22.0, "seconds": 6.0, "seed": 4}
    near = {"lowest_um": 79.0, "highest_um": 96.0, "variety": 0.3}
    chamber = SimulatedChamber(ChamberSettings(**given | near | changes), paced=False)
    with chamber as info:
        tracker = Tracker(
            info.height,
            info.width,
            fps=info.fps,
            pixel_size_um=pixel_size_um,
            background=SlidingBackground(info.height, info.width, fps=info.fps),
            settings=TrackingSettings(direction=flow),
        )
        quality = RunQuality(replace(info, pixel_size_um=pixel_size_um))
        counted, frames, looks = bytearray(), 0, []

        def account() -> dict[str, Any]:
            return record(
                frames={"received": frames, "processed": frames, "dropped": {}, "missed": {}},
                fraction={"n": len(counted)},
            )

        def judge(tracks: list[Track]) -> None:
            judged: list[Judgement] = two_stage.judge(tracks)
            quality.add_tracks(zip(tracks, judged, strict=True))
            counted.extend(j.label is Label.TANK_TREADING for j in judged if j.p_tank_treading is not None)

        waiting: list[Track] = []
        for frame in chamber.frames():
            image = frame.image if spoil is None else spoil(frame.image)
            shown = type(frame)(frame.index, frame.time_s, image)
            waiting += tracker.process(shown)
            at = tracker.open_tracks()
            quality.add_frame(shown, at)
            frames += 1
            if frames % 2 == 0:
                judge(waiting)
                waiting.clear()
                seconds, open_tracks = frames / info.fps, len(at.cell)
                looks.append(quality.look(account(), counted, seconds=seconds, open_tracks=open_tracks))
        judge(waiting + tracker.finish("source-ended"))
    closed, told = quality.close(
        account(), counted, not_analysed=tracker.not_analysed, seconds=frames / info.fps
    )
    assert [RunWarning.of(w) for w in closed["warnings"]] == told
    return told, looks


CHAMBERS = {
    "whole": {"height": 1096, "width": 1376, "cells_per_frame": 115.0},
    "small": {"height": 384, "width": 640, "cells_per_frame": 30.0},
    "sparse": {"height": 384, "width": 640, "cells_per_frame": 8.0},
    "dense": {"height": 384, "width": 640, "cells_per_frame": 50.0},
    "slow": {"height": 384, "width": 640, "cells_per_frame": 30.0, "shear_rate_per_s": 4.0},
}
EVERY_HEIGHT = {"lowest_um": ChamberSettings().lowest_um, "highest_um": ChamberSettings().highest_um}


@pytest.mark.parametrize(
    ("kind", "seed", "seconds"),
    [
        ("whole", 2, 1.4),  # 75 % of the first eight tracks to end are short
        *(pytest.param("whole", seed, 3.0, marks=pytest.mark.slow) for seed in (1, 3, 4)),
        *(
            pytest.param(kind, 1, 4.0, marks=pytest.mark.slow)
            for kind in ("small", "sparse", "dense", "slow")
        ),
    ],
)
def test_cells_that_flow_as_set_are_never_said_to_flow_otherwise(
    kind: str, seed: int, seconds: float
) -> None:
    told, looks = run_of(SaysAll(), **CHAMBERS[kind], **EVERY_HEIGHT, seconds=seconds, seed=seed)
    assert "flow-nowhere" not in {w.key for look in (told, *looks) for w in look}


@pytest.mark.parametrize(
    "kind",
    ["small", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("whole", "sparse", "dense", "slow"))],
)
def test_a_flow_set_the_wrong_way_is_said_within_seconds(kind: str) -> None:
    chamber = {**CHAMBERS[kind], **EVERY_HEIGHT}
    told, looks = run_of(SaysAll(), **chamber, flow="right-to-left", seconds=4.0, seed=2)
    first = next(k for k, look in enumerate(looks) if "flow-nowhere" in keys(look))
    assert first / 30 <= 3.0
    assert all("flow-nowhere" in keys(look) for look in looks[first:])
    assert "flow-nowhere" in keys(told)


@pytest.mark.slow
def test_a_healthy_chamber_gets_no_grave_warning(two_stage: TwoStage) -> None:
    assert keys(run_of(two_stage)[0]) <= {"few-cells"}


@pytest.mark.slow
def test_half_the_flow_is_said(two_stage: TwoStage) -> None:
    assert "flow-slow" in keys(run_of(two_stage, shear_rate_per_s=5.0)[0])


@pytest.mark.slow
def test_a_picture_that_is_too_bright_is_said(two_stage: TwoStage) -> None:
    def brighter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        saturated: NDArray[np.uint8] = np.clip(image * 2.1, 0, 255).astype(np.uint8)
        return saturated

    assert "light-saturated" in keys(run_of(two_stage, spoil=brighter)[0])


@pytest.mark.slow
def test_a_wrong_pixel_size_is_said(two_stage: TwoStage) -> None:
    """With half the true pixel the networks take nearly every cell for a flipping one."""
    assert "pixel-size" in keys(run_of(two_stage, pixel_size_um=0.3025)[0])


# ------------------------------------------------------------------ where it is shown


def test_a_terminal_says_grave_warnings_before_the_number_on_the_same_stream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = [
        RunWarning("cells-sparse", Severity.NOTE, "Few cells."),
        RunWarning("flow-slow", Severity.WARNING, "The cells flow too slowly."),
    ]
    say_number("tank-treading 70.0 %", said)
    say_notes(said)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "Warning. The cells flow too slowly.",
        "tank-treading 70.0 % - read the warning above first",
    ]
    assert err == "Note. Few cells.\n"
    say_number("tank-treading 70.0 %", said[:1])
    assert capsys.readouterr().out == "tank-treading 70.0 %\n"
    say_number("tank-treading 70.0 %\nWilson's", said)  # the warning belongs to the number
    assert capsys.readouterr().out.splitlines()[1:] == [
        "tank-treading 70.0 % - read the warning above first",
        "Wilson's",
    ]


@pytest.mark.slow
def test_a_run_leaves_its_quality_in_the_session_and_says_it_while_it_goes_on(
    two_stage: TwoStage, tmp_path: Path
) -> None:
    settings = ChamberSettings(height=384, width=640, cells_per_frame=30.0, seconds=4.0, variety=0.3)
    flow = SetFlow(shear_rate_per_s=10.0, focus_height_um=60.0)
    run = Run(SimulatedChamber(settings, paced=False), tmp_path / "s", RunSettings(set_flow=flow), two_stage)
    run.start()
    assert run.wait(120)
    record = open_session(tmp_path / "s").run
    quality = record["quality"]
    assert quality["frames"] == record["frames"]["processed"] == 240
    assert quality["tracks"] == record["cells"]["tracked"]
    cells = open_session(tmp_path / "s").cells
    assert quality["tracks_judged"] == int(cells["p_reliable"].notna().sum())
    passed = cells["p_tank_treading"].notna() & (cells["reason"] != "stage-1")
    assert quality["tracks_reliable"] == int(passed.sum())
    assert quality["counted_with_speed"] == int(cells["label"].isin(["tank-treading", "flipping"]).sum())
    assert 90 < quality["light_grey"] < 150
    assert quality["shear_rate_set_per_s"] == record["parameters"]["shear_rate_per_s"] == 10.0
    sentences = [w["sentence"] for w in quality["warnings"]]
    assert set(sentences) <= set(record["warnings"])
    assert [w.sentence for w in run.progress().warned or ()] == sentences
    assert {line.name for line in run.progress().quality} >= {
        say("quality.line-light"),
        say("quality.line-lost"),
    }
    assert verify(tmp_path / "s").code == 0
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Quality of the run" in page
    assert all(page.count(escape(sentence)) == 1 for sentence in sentences)
    # A session of before this was measured opens and reports all the same.
    write_run(tmp_path / "s", {**record, "quality": {}, "warnings": ["The lamp is old."]})
    assert "The lamp is old." in write_report(tmp_path / "s").read_text()
