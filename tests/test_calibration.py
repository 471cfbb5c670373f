"""A laboratory's calibration from reviewed sessions, runs that take it, and reviewed tracks as a data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import FIRST, SOURCE, SaysAll, a_track, account_of, begin, chamber
from scipy.special import expit, logit
from sentence_keys import any_said, is_said, refused

from napari_rbcflow.classification.dataset import read_dataset
from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate import (
    Rate,
    ReviewedRun,
    ReviewPlan,
    corrected_fraction,
    known_well_enough,
    laboratory_rates,
    rates_of_review,
    try_on_held_back_days,
)
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.sentences import say
from napari_rbcflow.session import Calibration, Review, corrected_figure, open_session, read_run, verify
from napari_rbcflow.session.schema import write_run
from napari_rbcflow.types import Judgement, Label, Verdict

KINDS = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
QUALITY = {"light_grey": 120.0, "noise_grey": 1.8, "rim_contrast": 0.5, "speed_um_per_s": 800.0}
Command = Callable[..., tuple[int, str, str]]


def judged(n: int, fraction: float, seed: int) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Truth, the machine's label and its probabilities: 0.7 and 0.85 found, a leak of 0.03."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.4 * fraction, 0.4 * (1 - fraction), 0.6])
    score = logit(0.9) + logit([0.7, 0.85, 0.03])[truth] + rng.logistic(size=n)
    reliable = np.round(expit(score), 4)
    tank = np.round(expit(np.array([4.0, -4.0, 0.8])[truth] + rng.logistic(size=n)), 4)
    passes = reliable >= 0.9
    label = np.where(~passes, 2, np.where(tank >= 0.5, 0, 1))
    return truth, [str(KINDS[k]) for k in label], reliable, np.where(passes, tank, np.nan)


def reviewed(n: int, fraction: float, seed: int, checks: int = 100) -> tuple[ReviewedRun, dict[str, float]]:
    """A reviewed run, and the shares that are true of it."""
    truth, label, reliable, tank = judged(n, fraction, seed)
    plan = ReviewPlan(np.arange(n), label, reliable, tank, seed)
    labels: dict[int, list[str]] = {}
    while len(labels) < min(checks, n):
        labels |= {cell: [str(KINDS[truth[cell]])] for cell in plan.next(10, labels)}
    counted = np.array(label) != "unreliable"
    shares = {
        name: float(counted[truth == kind].mean())
        for kind, name in enumerate(("tank_treading_found", "flipping_found", "let_through"))
    }
    counts = [label.count(str(kind)) for kind in KINDS]
    return ReviewedRun(f"day {seed}", *counts, rates_of_review(plan, labels)), shares


def test_a_run_of_which_all_is_checked_gives_the_rates_that_are_true_of_it():
    run, shares = reviewed(800, 0.8, seed=1, checks=800)
    for name, share in shares.items():
        assert run.rates[name].value == pytest.approx(share, abs=0.01)
    # Known as well as so many cells know it, and no better.
    assert run.rates["tank_treading_found"].of == pytest.approx(800 * 0.4 * 0.8, rel=0.15)


def test_the_rates_of_a_part_that_is_checked_lie_where_their_counts_say():
    away = []
    for seed in range(25):
        run, shares = reviewed(800, 0.8, seed)
        for name, share in shares.items():
            rate = run.rates[name]
            assert rate.of <= 800
            smooth = (rate.hits + 0.5) / (rate.of + 1)
            away.append((smooth - share) / np.sqrt(smooth * (1 - smooth) / (rate.of + 2)))
    assert abs(np.mean(away)) < 0.5
    assert 0.4 < np.std(away) < 1.3


def test_days_correct_a_further_day_where_the_raw_number_is_wrong():
    """A quarter of the tank-treading cells more are missed than of the flipping ones."""
    runs = [reviewed(1300, fraction, seed)[0] for seed, fraction in enumerate((0.6, 0.8, 0.9))]
    rates = laboratory_rates(runs)
    assert rates.patients_of("let_through") == ["day 0", "day 1", "day 2"]
    held = raw_held = 0
    for seed in range(10, 22):
        _, label, *_ = judged(1300, 0.75, seed)
        k, m, others = (label.count(str(kind)) for kind in KINDS)
        found = corrected_fraction(k, m, others, rates)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.75 <= found.high
        raw_held += abs(k / (k + m) - 0.75) < 0.02
    assert held == 12
    assert raw_held < 10


def test_what_a_laboratory_is_worth_is_tried_on_its_own_days():
    runs = [reviewed(1300, 0.8, seed)[0] for seed in range(3)]
    assert known_well_enough(try_on_held_back_days(runs))
    assert not known_well_enough(try_on_held_back_days(runs[:1]))  # one day tells nothing of another
    blind = {name: Rate(3, 40) for name in runs[0].rates} | {"let_through": Rate(30, 40)}
    assert not known_well_enough(try_on_held_back_days([replace(run, rates=blind) for run in runs]))


# ------------------------------------------------------------------ sessions


def a_session(folder: Path, seed: int, day: int, **changes: Any) -> dict[int, str]:
    """Write a session that is judged so; return what each cell truly is."""
    truth, label, reliable, tank = judged(500, 0.8, seed)
    rng = np.random.default_rng(seed)
    pairs = []
    for at, kind in enumerate(label):
        cell = at + 1
        crops = rng.integers(100, 140, (12, 31, 31), dtype=np.uint8)
        p_tank = None if np.isnan(tank[at]) else float(tank[at])
        reason = "stage-1" if p_tank is None else "stage-2"
        said = Judgement(cell, Label(kind), float(reliable[at]), p_tank, reason)
        pairs.append((a_track(cell, crops=crops), said))
    given: dict[str, Any] = {"models": SaysAll.models, "patient": "P1", "parameters": {"least_frames": 6}}
    writer = begin(folder, **given | changes)
    writer.keep(pairs)
    account = account_of(pairs)
    writer.close(account, "finished", "source-ended")
    started = FIRST + timedelta(days=day)
    write_run(folder, read_run(folder) | {"started": started.isoformat(), "quality": dict(QUALITY)})
    return {at + 1: str(KINDS[kind]) for at, kind in enumerate(truth)}


def check(folder: Path, truth: dict[int, str], n: int = 100, by: str = "Ada") -> list[int]:
    """Check cells as a person does who is never wrong."""
    review, cells = Review(folder), []
    while len(cells) < n:
        some = review.sample(20, by)
        review.add({cell: truth[cell] for cell in some}, by)
        cells += some
    return cells


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three reviewed days of one microscope."""
    place = tmp_path_factory.mktemp("laboratory")
    for day in range(3):
        check(place / f"day-{day}", a_session(place / f"day-{day}", seed=day, day=day))
    return [place / f"day-{day}" for day in range(3)]


@pytest.fixture(scope="module")
def calibration(days: list[Path]) -> Calibration:
    found = Calibration.of_sessions(days, days[0].parent / "calibration.json")
    found.write()
    return found


def test_calibrate_writes_what_it_found(days: list[Path], tmp_path: Path, rbcflow: Command):
    file = tmp_path / "lab.json"
    code, out, _ = rbcflow("calibrate", *days, "-o", file)
    assert code == 0
    assert say("cli.calibrate-hint", file=file) in out
    found = Calibration.read(file)
    assert (found.name, found.tracks, len(found.days), found.enough) == ("lab", 300, 3, True)
    assert found.holds_for["light_grey"] == (120.0, 120.0)
    assert found.rates.flipping_found.value > found.rates.tank_treading_found.value
    tried = [one for one in found.trial if one.corrected is not None and one.reviewed is not None]
    assert len(tried) >= 2
    for one in tried:  # what the other days say agrees with the day's own review
        assert one.corrected is not None
        assert one.reviewed is not None
        assert max(one.corrected[0], one.reviewed[0]) < min(one.corrected[1], one.reviewed[1])
    code, _, err = rbcflow("calibrate", *days, "-o", file)
    assert (code, say("cli.file-exists", file=file) in err) == (2, True)


def test_sessions_that_make_no_calibration_are_refused(days: list[Path], tmp_path: Path):
    out = tmp_path / "lab.json"
    other = {stage: {"name": "other", "hash": "1"} for stage in ("stage1", "stage2")}
    for name, changes in (
        ("unreviewed", {}),
        ("networks", {"models": other}),
        ("settings", {"source": replace(SOURCE, pixel_size_um=0.5)}),
    ):
        truth = a_session(tmp_path / name, seed=9, day=9, **changes)
        if name != "unreviewed":
            check(tmp_path / name, truth, 40)
    with refused(BadInput, "session.calibration-not-reviewed"):
        Calibration.of_sessions([days[0], tmp_path / "unreviewed"], out)
    with refused(BadInput, "session.calibration-networks-differ"):
        Calibration.of_sessions([days[0], tmp_path / "networks"], out)
    with refused(BadInput, "session.calibration-settings-differ"):
        Calibration.of_sessions([days[0], tmp_path / "settings"], out)
    with refused(BadInput, "session.calibration-twice"):
        Calibration.of_sessions([days[0], days[0]], out)
    assert not out.exists()


def test_a_damaged_calibration_is_refused(calibration: Calibration, tmp_path: Path):
    record = json.loads(calibration.file.read_text(encoding="utf-8"))
    bad = tmp_path / "bad.json"
    for spoilt in ("{", "[]", json.dumps(record | {"rates": {}}), json.dumps(record | {"rates": {"x": 1}})):
        bad.write_text(spoilt, encoding="utf-8")
        with refused(BadInput, "session.calibration-damaged"):
            Calibration.read(bad)
    with refused(BadInput, "session.calibration-unreadable"):
        Calibration.read(tmp_path / "none.json")
    assert Calibration.read(calibration.file).hash == calibration.hash


def like(calibration: Calibration, **quality: float) -> dict[str, Any]:
    parameters = dict(calibration.settings)
    run = {"parameters": parameters, "quality": QUALITY | quality, "simulated": False, "status": "finished"}
    return run | {"models": SaysAll.models}


def test_a_run_unlike_the_days_is_told_and_why(calibration: Calibration):
    assert calibration.record(like(calibration, light_grey=140.0))["applies"]
    for name, value in (
        ("light_grey", 60.0),
        ("noise_grey", 4.0),
        ("rim_contrast", 0.2),
        ("speed_um_per_s", 1500.0),
    ):
        record = calibration.record(like(calibration, **{name: value}))
        what = say(f"session.measure-{name.replace('_', '-')}")
        assert not record["applies"]
        assert record["why"] == [
            say("session.calibration-outside", what=what, value=value, low=QUALITY[name], high=QUALITY[name])
        ]
    early = like(calibration, light_grey=60.0, tracks_reliable=3) | {"status": "running"}
    assert calibration.record(early)["applies"]  # nothing is known yet
    other = like(calibration)
    other["parameters"]["fps"] = 30.0
    assert any_said("session.calibration-other-setting", calibration.unlike(other))
    simulated = like(calibration) | {"simulated": True}
    assert any_said("session.calibration-of-real-cells", calibration.unlike(simulated))


def test_a_new_run_gets_a_result_without_a_review(calibration: Calibration, tmp_path: Path):
    folder = tmp_path / "S"
    a_session(folder, seed=7, day=7)
    run = read_run(folder)
    record = calibration.record(run)
    figure = corrected_figure(
        run["models"], run["cells"], open_session(folder).fraction, run["focus_speed"], record
    )
    assert figure.method == "calibrated"
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= 0.8 <= figure.high
    told = asdict(figure)
    write_run(folder, run | {"calibration": record, "fraction_corrected": told})
    assert open_session(folder).conclusion.verdict is Verdict.RESULT
    wrong = "session.found-corrected-differs"
    assert not any_said(wrong, verify(folder).findings)
    write_run(folder, run | {"calibration": record, "fraction_corrected": told | {"low": 0.1}})
    assert any_said(wrong, verify(folder).findings)


def test_a_run_takes_the_calibration_and_says_whether_it_holds(calibration: Calibration, tmp_path: Path):
    settings = RunSettings(calibration=calibration.file, device="cpu")
    run = Run(chamber(3.0), tmp_path / "S", settings, SaysAll())
    run.start()
    assert run.wait(60)
    told = read_run(tmp_path / "S")["calibration"]
    assert (told["name"], told["hash"], told["tracks"]) == ("calibration", calibration.hash, 300)
    assert not told["applies"]  # a simulated chamber is no microscope
    assert say("session.calibration-of-real-cells") in told["why"]
    assert any_said("session.calibration-does-not-hold", read_run(tmp_path / "S")["warnings"])
    assert not any_said("session.found-corrected-differs", verify(tmp_path / "S").findings)


def test_a_run_with_other_networks_is_refused_before_it_starts(calibration: Calibration, tmp_path: Path):
    class Others(SaysAll):
        models = {stage: {"name": "other", "hash": "1"} for stage in ("stage1", "stage2")}  # noqa: RUF012

    for networks, settings, key in (
        (Others(), RunSettings(calibration=calibration.file), "session.calibration-of-other-networks"),
        (SaysAll(), RunSettings(calibration=tmp_path / "no.json"), "session.calibration-unreadable"),
    ):
        with refused(BadInput, key):
            Run(chamber(1.0), tmp_path / "S", settings, networks).start()
        assert not (tmp_path / "S").exists()


# ------------------------------------------------------------------ export


def test_reviewed_tracks_become_a_data_set(days: list[Path], tmp_path: Path, rbcflow: Command):
    code, out, _ = rbcflow("export", *days, "-o", tmp_path / "cells")
    assert code == 0
    sequences = read_dataset(tmp_path / "cells")
    assert len(sequences) == 300
    assert {s.patient for s in sequences} == {"PB"}
    assert len({s.acquisition for s in sequences}) == len({s.date for s in sequences}) == 3
    labels = [s.label for s in sequences]
    counts = dict(zip(("tank_treading", "flipping", "unreliable"), map(labels.count, range(3)), strict=True))
    assert say("cli.exported", out=tmp_path / "cells", sessions=3, **counts) in out
    one = next(s for s in sequences if s.acquisition == sequences[0].acquisition)
    shown = open_session(days[0]).sequence(int(one.name.rsplit("_", 1)[1]))
    assert len(one.crops) in (len(shown.crops), int((~shown.intruded).sum()))
    code, _, _ = rbcflow(
        "evaluate", tmp_path / "cells", "--json", tmp_path / "scores.json", "--device", "cpu"
    )
    assert code == 0
    assert json.loads((tmp_path / "scores.json").read_text())["stage1"]["n"] == 300


def test_where_persons_differ_the_label_of_most_is_exported(tmp_path: Path, rbcflow: Command):
    folder = tmp_path / "S"
    truth = a_session(folder, seed=3, day=0)
    first, second, third = check(folder, truth, 20)[:3]
    others = {cell: next(str(kind) for kind in KINDS if kind != truth[cell]) for cell in (first, second)}
    Review(folder).add(others, "Bob")
    Review(folder).add({second: others[second], third: truth[third]}, "Cy")
    code, _, err = rbcflow("export", folder, "-o", tmp_path / "cells")
    assert code == 0
    assert say("cli.export-ties", cells=1) in err
    found = {int(s.name.rsplit("_", 1)[1]): str(KINDS[s.label]) for s in read_dataset(tmp_path / "cells")}
    assert first not in found
    assert found[second] == others[second]
    assert found[third] == truth[third]


def test_nothing_is_left_of_an_export_that_fails(days: list[Path], tmp_path: Path, rbcflow: Command):
    a_session(tmp_path / "unreviewed", seed=3, day=0)
    for folders, key in (
        ([tmp_path / "unreviewed"], "session.export-of-nothing"),
        ([days[0], days[0]], "session.export-twice"),
    ):
        code, _, err = rbcflow("export", *folders, "-o", tmp_path / "cells")
        assert code == 2
        assert is_said(key, err)
        assert not (tmp_path / "cells").exists()


# ------------------------------------------------------------------ napari


def test_the_settings_give_the_calibration_to_every_new_run(calibration: Calibration, qtbot: Any):
    from napari_rbcflow.widgets.live_form import CameraForm
    from napari_rbcflow.widgets.movie_form import MovieForm
    from napari_rbcflow.widgets.settings import SettingsWidget

    widget, live, movie = SettingsWidget(), CameraForm(), MovieForm(list)
    for one in (widget, live, movie.container.native):
        qtbot.addWidget(one)
    assert live.run_settings().calibration is None
    widget.calibration.line_edit.value = str(calibration.file)
    widget.save_button.click()
    assert live.run_settings().calibration == movie.run_settings().calibration == calibration.file
