"""The speed that cells in focus share: when it is told, whom it sets aside, and that all agree on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import MODELS, Pair, a_track, begin
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rbcflow.estimate import StopRules
from napari_rbcflow.estimate.focus_speed import LEAST_SURE, FocusSpeed, SpeedsSeen
from napari_rbcflow.estimate.tally import FRAGMENT, OTHER_SPEED, Tally, counts
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure, RunSummary, SessionWriter, open_session, verify
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.session.counting import corrected_figure
from napari_rbcflow.session.recovery import close_interrupted
from napari_rbcflow.session.tables import speed_um_per_s
from napari_rbcflow.simulation import ChamberSettings, simulate_movie
from napari_rbcflow.sources.movie import open_movie
from napari_rbcflow.types import Judgement, Label, Track

PARAMETERS = {"fixed_n_interval": "wilson"}
UM_PER_S = 60.0 * 0.605


def of_speed(track: Track) -> float:
    return speed_um_per_s(track, fps=60.0, pixel_size_um=0.605)


def some_cells(
    n: int,
    seed: int = 0,
    *,
    shared: bool = True,
    false: float = 0.4,
    others: int = 6,
    continued: bool = False,
) -> list[Pair]:
    """`n` tracks that stage 1 passed, a share of them out of focus, and `others` times as many discarded.

    Those out of focus are called flipping, as most real ones are. `continued` tracks may be pieces of others.
    """
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for cell, k in enumerate(rng.permutation(n * (1 + others)).tolist(), start=1):
        good, bad = k < n * (1 - false), k < n
        slow, fast = (8.0, 60.0) if not good or not shared else (21.5, 26.5)
        v = float(rng.uniform(slow, fast))
        before = tuple(sorted({int(c) for c in rng.integers(max(1, cell - 9), cell, 2)})) if cell > 1 else ()
        before = before if continued and rng.random() < 0.4 else ()
        x = np.arange(12, dtype=np.float32) * np.float32(v)
        track = replace(a_track(cell, 12, x_px=x, may_continue=before), frames=np.arange(12) + cell)
        p = round(float(rng.uniform(0.96, 0.999) if good else rng.uniform(0.86, 0.985)), 4)
        if good and rng.random() < 0.8:
            said = Judgement(cell, Label.TANK_TREADING, p, 0.9, "stage-2")
        elif bad:
            said = Judgement(cell, Label.FLIPPING, p, 0.1, "stage-2")
        else:
            said = Judgement(cell, Label.UNRELIABLE, round(float(rng.uniform(0, 0.8)), 4), None, "stage-1")
        pairs.append((track, said))
    return pairs


def learnt(pairs: Sequence[Pair]) -> FocusSpeed:
    seen = SpeedsSeen()
    for track, said in pairs:
        assert said.p_reliable is not None
        seen.add(of_speed(track), said.p_reliable, said.p_tank_treading is not None)
    return seen.learn()


def told(
    pairs: Sequence[Pair], sizes: Sequence[int], rules: StopRules | None = None
) -> tuple[Tally, list[Judgement]]:
    """Count in batches of these sizes, again and again; return the labels as they were told on the way."""
    tally, at, k = Tally(rules or StopRules(), speed=of_speed), 0, 0
    settled: list[Judgement] = []
    while at < len(pairs):
        part = pairs[at : at + sizes[k % len(sizes)]]
        at, k = at + len(part), k + 1
        tracks = [track for track, _ in part]
        judged = [said for _, said in part][: len(tally.to_judge(tracks))]
        if k % 16 == 1:  # a batch that the disk did not take leaves no trace
            gone = part + pairs[-2:]
            lost = [track for track, _ in gone]
            tally.settle(lost, [said for _, said in gone][: len(tally.to_judge(lost))])
        now = tally.settle(tracks, judged)
        tally.count(now)
        settled += now
    tally.finish()
    return tally, settled


def final(tally: Tally, settled: Sequence[Judgement]) -> dict[int, tuple[Label, str]]:
    return {j.cell: (j.label, j.reason) for j in settled} | tally.changed()


# ------------------------------------------------------------------------------- what is learnt


def test_a_shared_speed_sets_aside_those_that_move_otherwise_and_neither_kind() -> None:
    aside = {True: [0, 0], False: [0, 0]}
    for seed in range(8):
        pairs = some_cells(200, seed)
        focus = learnt(pairs)
        assert focus.found
        assert focus.speed_um_per_s == pytest.approx(24 * UM_PER_S, rel=0.04)
        for track, said in pairs:
            if said.label is Label.TANK_TREADING:  # all of these are in focus
                aside[True][0] += focus.sets_aside(of_speed(track))
                aside[True][1] += 1
            elif said.label is Label.FLIPPING and not 21.4 < of_speed(track) / UM_PER_S < 26.6:
                aside[False][0] += focus.sets_aside(of_speed(track))
                aside[False][1] += 1
    assert aside[True][0] <= 0.02 * aside[True][1]
    assert aside[False][0] >= 0.8 * aside[False][1]
    # Of the others, those at the shared speed may be among the counted ones.
    speeds = [of_speed(track) for track, said in pairs if said.p_tank_treading is None]
    assert (
        focus.as_dict()["unreliable_there"] == sum(not focus.sets_aside(v) for v in speeds) < len(speeds) / 2
    )
    # It cannot prefer a kind: it is not told which one a cell is of, nor how sure stage 1 was of it.
    assert all(focus.sets_aside(-v) == focus.sets_aside(v) for v in (100.0, 870.0, 2000.0))


@pytest.mark.parametrize("seed", range(6))
def test_it_says_nothing_of_few_cells_or_of_none_that_share_a_speed(seed: int) -> None:
    few = some_cells(LEAST_SURE - 1, seed)
    assert not learnt(few).found
    assert "too few" in learnt(few).reason
    assert not learnt(some_cells(60, seed, others=0)).found  # nothing tells how others move
    assert not learnt(some_cells(300, seed, shared=False)).found
    # Two speeds, as where a pump was changed: neither is that of the cells in focus.
    a, b = some_cells(150, seed, false=0.1), some_cells(150, seed + 50, false=0.1)
    for track, _ in b:
        track.x_px *= np.float32(1.8)
    assert not learnt([*a, *b]).found


def test_a_long_run_is_no_less_sure_of_the_speed() -> None:
    """What one height leaves is flat rather than a bell: that many cells show it is no second speed."""
    assert learnt(some_cells(2000, others=2)).found


# ------------------------------------------------------------------------------- what is counted


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(30, 200))
def test_the_counts_are_those_of_the_tracks_in_their_order_whatever_the_batches(
    seed: int, sizes: list[int], enough: int
) -> None:
    pairs = some_cells(110, seed, continued=True)
    rules = StopRules(reliable=enough)
    tally, settled = told(pairs, sizes, rules)
    one, alone = told(pairs, [1], rules)
    assert (settled, final(tally, settled)) == (alone, final(one, alone))
    assert (tally.cells, tally.counted, tally.enough) == (one.cells, one.counted, one.enough)
    assert tally.focus.as_dict() == one.focus.as_dict()
    labels = final(tally, settled)
    assert tally.fraction.n == sum(label in ("tank-treading", "flipping") for label, _ in labels.values())
    # A speed that is learnt anew may bring several cells back at once: so there may be a few too many.
    assert (tally.fraction.n >= enough) == (tally.enough == "reliable")
    assert tally.fraction.n <= enough + 10
    assert tally.set_aside == sum(reason == OTHER_SPEED for _, reason in labels.values())
    for (track, said), (label, reason) in zip(pairs, labels.values(), strict=True):
        if label != "uncounted" and counts(said):
            assert (reason == OTHER_SPEED) == tally.focus.sets_aside(of_speed(track))
    by_cell = {track.cell: track for track, _ in pairs}
    for cell, (_, reason) in labels.items():
        if reason == FRAGMENT:  # of one that counts in the end, not of one that was set aside since
            behind, new = set(), set(by_cell[cell].may_continue)
            while new:
                behind |= new
                new = {c for k in new for c in by_cell[k].may_continue} - behind
            assert any(labels[c][0] in ("tank-treading", "flipping") for c in behind)


def test_the_first_cells_are_counted_again_once_the_speed_is_known() -> None:
    pairs = some_cells(150, 3)
    tally, settled = told(pairs, [16])
    said = sum(j.label is Label.FLIPPING for j in settled) / sum(map(counts, settled))
    assert tally.changed()
    assert set(tally.changed().values()) >= {(Label.UNRELIABLE, OTHER_SPEED)}
    true = sum(p[1].label is Label.TANK_TREADING for p in pairs) / 90
    assert abs(tally.fraction.estimate - true) < abs(1 - said - true)
    again, _ = told(some_cells(39, 3), [5])
    assert not again.changed()
    assert again.set_aside == 0


def test_a_piece_of_a_cell_that_was_set_aside_since_counts_at_once() -> None:
    pairs, tally = some_cells(150, 3), Tally(StopRules(), speed=of_speed)
    for track, said in pairs:
        tally.count(tally.settle([track], [said]))
        if tally.focus.found:
            break
    passed = [(track, said) for track, said in pairs[: tally.cells["tracked"]] if counts(said)]
    behind = next(track.cell for track, _ in passed if tally.focus.sets_aside(of_speed(track)))
    track, said = next(pair for pair in passed if not tally.focus.sets_aside(of_speed(pair[0])))
    n = tally.fraction.n
    piece = replace(track, cell=len(pairs) + 1, may_continue=(behind,))
    tally.count(tally.settle([piece], [replace(said, cell=piece.cell)]))
    assert tally.fraction.n == n + 1


# ------------------------------------------------------------------------------- what is on disk


def kept(folder: Path, pairs: Sequence[Pair], *, by_hand: int | None = None) -> tuple[SessionWriter, Tally]:
    """Keep tracks as a run does; a person may change a cell that was told as flipping."""
    writer = begin(folder, parameters=PARAMETERS, ring_frames=2)
    tally = Tally(StopRules(), speed=of_speed)
    for at in range(0, len(pairs), 20):
        part = pairs[at : at + 20]
        tracks = [track for track, _ in part]
        settled = tally.settle(tracks, [said for _, said in part])
        writer.keep(list(zip(tracks, settled, strict=True)))
        tally.count(settled)
        if by_hand in [track.cell for track in tracks]:
            assert by_hand is not None
            ChangeLog(folder).add(by_hand, "tank-treading", "P")
    return writer, tally


def close(writer: SessionWriter, tally: Tally) -> None:
    tally.finish()
    figure = FractionFigure.of(tally.fraction)
    account = RunSummary.of(
        received=9,
        processed=9,
        dropped={},
        missed={},
        cells=tally.cells,
        fraction=figure,
        fraction_corrected=corrected_figure(MODELS, tally.cells, figure, tally.focus.as_dict()),
        focus_speed={**tally.focus.as_dict(), "set_aside": tally.set_aside},
    )
    writer.close(account, "finished", "source-ended", "", tally.changed())


def test_a_session_closed_after_cells_were_set_aside_is_whole_and_all_readers_agree(tmp_path: Path) -> None:
    pairs = some_cells(120, 5, continued=True)
    first = next(
        t.cell
        for t, j in pairs
        if j.label is Label.FLIPPING and not 700 < of_speed(t) < 1100 and not t.may_continue
    )
    writer, tally = kept(tmp_path / "s", pairs, by_hand=first)
    close(writer, tally)
    assert tally.changed()[first] == (Label.UNRELIABLE, OTHER_SPEED)
    verdict = verify(writer.folder)
    assert verdict.code == 0, verdict.findings
    session = open_session(writer.folder)
    cells, run = session.cells.set_index("cell"), session.run
    aside = cells[cells.reason == OTHER_SPEED]
    assert len(aside) == run["focus_speed"]["set_aside"] == tally.set_aside > 20
    assert (aside.label == "unreliable").all()
    assert aside.p_tank_treading.notna().all()
    outside = ~cells.speed_um_per_s.between(
        run["focus_speed"]["low_um_per_s"], run["focus_speed"]["high_um_per_s"]
    )
    assert not (outside & cells.label.isin(["tank-treading", "flipping"])).any()
    n = int(cells.label.isin(["tank-treading", "flipping"]).sum())
    assert session.counted.sum() == run["cells"]["tank_treading"]
    assert len(session.counted) == run["fraction"]["n"] == run["fraction_unseen_flips"]["n"] == n
    assert session.fraction_by_hand is not None
    assert session.fraction_by_hand.n == n + 1  # a person's word stands above the speed
    page = (writer.folder / "report.html").read_text(encoding="utf-8")
    speed = run["focus_speed"]["speed_um_per_s"]
    assert say("report.focus-speed", speed=speed, cells=tally.set_aside) in page
    # A label that does not follow from the speeds is found.
    table = writer.folder / "cells.csv"
    table.write_text(table.read_text().replace(",unreliable,other-speed", ",flipping,stage-2", 1))
    assert any("speed of the cells in focus" in said for said in verify(writer.folder).findings)


def test_a_session_that_crashed_before_its_close_holds_the_labels_as_they_were_told(tmp_path: Path) -> None:
    writer, tally = kept(tmp_path / "s", some_cells(120, 6))
    assert tally.changed()
    assert tally.set_aside
    writer.ring.close()
    writer._marker._file.close()  # as the system does for a dead process
    session = open_session(writer.folder)
    cells = session.cells
    assert session.fraction.n == cells.label.isin(["tank-treading", "flipping"]).sum() > tally.fraction.n
    assert verify(writer.folder).code == 1
    close_interrupted(writer.folder, "The power went.")
    run = json.loads((writer.folder / "run.json").read_text())
    assert run["fraction"]["n"] == session.fraction.n
    assert run["focus_speed"]["said"] is False
    assert not [said for said in verify(writer.folder).findings if "counts" in said or "speed" in said]


class SeesFocus:
    """In the networks' place: takes cells at 900 to 1150 um/s for sharp, and some others."""

    device, fault, batch, linger_s = "cpu", "", 8, 0.0
    models = MODELS

    def warm_up(self) -> None: ...

    def judge(self, tracks: Sequence[Track], *, leave_out_intruded: bool = True) -> list[Judgement]:
        return [self._one(track) for track in tracks]

    def _one(self, track: Track) -> Judgement:
        if track.too_short:
            return Judgement(track.cell, Label.TOO_SHORT, None, None, "too-short")
        if 900 < of_speed(track) < 1150:
            return Judgement(track.cell, Label.TANK_TREADING, 0.99, 0.9, "stage-2")
        if track.cell % 6 == 0:
            return Judgement(track.cell, Label.FLIPPING, 0.9, 0.1, "stage-2")
        return Judgement(track.cell, Label.UNRELIABLE, 0.1, None, "stage-1")


@pytest.mark.slow
def test_a_run_tells_its_speed_and_a_replay_says_the_same(tmp_path: Path) -> None:
    """Batches and the moments at which cells are judged are others; labels, counts and speed are not."""
    chamber = ChamberSettings(seed=2, height=384, width=640, cells_per_frame=50.0, variety=0.3)
    simulate_movie(tmp_path / "m.tif", seconds=9, settings=chamber)
    records, tables = [], []
    for name, paced in (("analyzed", False), ("live", True)):
        source = open_movie(tmp_path / "m.tif", paced=paced)
        settings_ = RunSettings(background="sliding")
        run = Run(source, tmp_path / name, settings_, SeesFocus())  # type: ignore[arg-type]
        run.start()
        assert run.wait(160)
        assert verify(run.folder).findings == []
        assert bytes(open_session(run.folder).counted) == bytes(run.stages.tally.counted)
        records.append(json.loads((run.folder / "run.json").read_text()))
        tables.append((run.folder / "cells.csv").read_bytes())
    record = records[0]
    assert record["focus_speed"]["said"], record["focus_speed"]
    assert record["focus_speed"]["set_aside"] > 5
    assert record["cells"]["flipping"] < record["focus_speed"]["set_aside"]
    assert tables[0] == tables[1]
    for key in ("focus_speed", "cells", "fraction"):
        assert records[0][key] == records[1][key]
