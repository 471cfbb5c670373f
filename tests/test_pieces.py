"""A cell that is lost and found again leaves two tracks, and counts once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import Pair, a_judgement, a_track, closed, some_pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rbcflow.errors import BadInput
from napari_rbcflow.estimate.stopping import StopRules
from napari_rbcflow.estimate.tally import FRAGMENT, Tally
from napari_rbcflow.sentences import say
from napari_rbcflow.session import verify
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.session.schema import read_run, write_run
from napari_rbcflow.session.tables import behind, read_links
from napari_rbcflow.tracking.background import SlidingBackground
from napari_rbcflow.tracking.crops import TrackStore
from napari_rbcflow.tracking.fragments import EndedTracks
from napari_rbcflow.tracking.initiation import initial_motion
from napari_rbcflow.tracking.linker import Linker
from napari_rbcflow.tracking.motion import End, FlowDetections, Motion
from napari_rbcflow.tracking.settings import TrackingSettings
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import FRAGMENTS_REMEMBERED, Floats, Ints, Judgement, Label, Track

COUNTED = (Label.TANK_TREADING, Label.FLIPPING)
LENGTH = 1376.0
Detection = tuple[float, float]


# ------------------------------------------------------------------------------- what counts


def piece(cell: int, before: Sequence[int] = (), reason: str = "lost") -> Track:
    return a_track(cell, 1, may_continue=tuple(before), reason=reason)


def told(tracks: Sequence[Track], labels: Sequence[Label], sizes: Sequence[int], rules: StopRules) -> Tally:
    """Count tracks in batches of these sizes, again and again; the judgements are left in `settled`."""
    tally, at, k = Tally(rules), 0, 0
    settled: list[Judgement] = []
    while at < len(tracks):
        part = tracks[at : at + sizes[k % len(sizes)]]
        at, k = at + len(part), k + 1
        judged = [a_judgement(t.cell, labels[t.cell]) for t in tally.to_judge(part)]
        tally.settle(part, judged)  # a batch that the disk did not take leaves no trace
        now = tally.settle(part, judged)
        tally.count(now)
        settled += now
    tally.settled = settled  # type: ignore[attr-defined]
    return tally


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Track], list[Label]]:
    n = draw(st.integers(0, 40))
    tracks = []
    for cell in range(n):
        before = draw(st.sets(st.integers(max(0, cell - 6), cell - 1), max_size=3)) if cell else set()
        tracks.append(piece(cell, sorted(before), "cut-by-stop" if cell > n - 4 else "lost"))
    return tracks, draw(st.lists(st.sampled_from([*Label][:4]), min_size=n, max_size=n))


@settings(max_examples=300, deadline=None)
@given(chains(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 20))
def test_of_one_chain_at_most_one_counts_however_the_tracks_are_batched(
    case: tuple[list[Track], list[Label]], sizes: list[int], enough: int
) -> None:
    tracks, labels = case
    tally = told(tracks, labels, sizes, StopRules(reliable=enough))
    settled: list[Judgement] = tally.settled  # type: ignore[attr-defined]
    assert [j.cell for j in settled] == [t.cell for t in tracks]
    links = {t.cell: t.may_continue for t in tracks}
    counted = {j.cell for j in settled if j.label in COUNTED}
    for judgement in settled:
        taken = behind(judgement.cell, links) & counted
        if judgement.label in COUNTED:
            assert not taken
        elif judgement.reason == FRAGMENT:
            assert judgement.label is Label.UNCOUNTED
            assert labels[judgement.cell] in COUNTED
            assert taken
        elif judgement.label is Label.UNCOUNTED:
            assert tally.enough or judgement.reason == "cut-by-stop"
        else:
            assert (
                judgement.label is labels[judgement.cell]
            )  # too short and unreliable ones stay what they are
    assert tally.fraction.n == len(counted) == min(enough, tally.fraction.n)
    one_by_one = told(tracks, labels, [1], StopRules(reliable=enough))
    assert settled == one_by_one.settled  # type: ignore[attr-defined]
    assert tally.cells == one_by_one.cells


def test_a_piece_counts_where_none_before_it_did() -> None:
    tracks = [piece(0), piece(1, [0]), piece(2, [1]), piece(3, [2]), piece(4)]
    tank, unreliable = Label.TANK_TREADING, Label.UNRELIABLE
    tally = told(tracks, [unreliable, tank, unreliable, tank, tank], [2], StopRules())
    labels = [(j.label, j.reason) for j in tally.settled]  # type: ignore[attr-defined]
    assert labels == [
        (unreliable, "stage-2"),
        (tank, "stage-2"),
        (unreliable, "stage-2"),
        (Label.UNCOUNTED, FRAGMENT),  # through the unreliable one
        (tank, "stage-2"),
    ]


def test_no_chain_breaks_at_a_piece_that_is_too_pale_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pale = np.full((6, 31, 31), 120, np.uint8)
    clear = pale.copy()
    clear[:, 12:19, 12:19] = 60
    monkeypatch.setattr(
        TrackStore, "end", lambda _, slot, cell, *__: a_track(cell, crops=pale if cell == 2 else clear)
    )
    tracker = Tracker(
        384, 640, fps=60.0, pixel_size_um=0.605, background=SlidingBackground(384, 640, fps=60.0)
    )
    ends = [End(0, 1, 5, "lost"), End(1, 2, 9, "lost", (1,)), End(2, 3, 20, "left-field", (2,))]
    assert [(t.cell, t.may_continue) for t in tracker._finished(ends)] == [(1, ()), (3, (1,))]
    assert tracker.too_pale == 1


def test_the_tally_forgets_what_is_not_named_again() -> None:
    tally = Tally(StopRules())
    tracks = [piece(k, range(max(0, k - 2), k)) for k in range(FRAGMENTS_REMEMBERED + 500)]
    for at in range(0, len(tracks), 100):
        part = tracks[at : at + 100]
        tally.count(tally.settle(part, [a_judgement(t.cell, Label.FLIPPING, 0.1) for t in part]))
    assert tally.fraction.n == 1
    assert len(tally._now.taken_before) == FRAGMENTS_REMEMBERED


# ------------------------------------------------------------------------------- what continues what


class Elsewhere:
    """What lies where nothing was detected: nothing, or the same everywhere."""

    def __init__(self, log_energy: float) -> None:
        self.log_energy = log_energy

    def log_energy_at(self, x: Floats, y: Floats) -> Floats:
        return np.full(len(x), self.log_energy)

    def relative_contrasts(self, frame: int, detections: Ints) -> Floats:
        return np.full(len(detections), 2.0)

    def relative_contrast_at(self, frame: int, x: float, y: float) -> float:
        return 0.0


def in_flow(t: int, detections: Sequence[Detection]) -> FlowDetections:
    """Detections of one energy."""
    x, y = np.array([s[0] for s in detections]), np.array([s[1] for s in detections])
    return FlowDetections(t, x, y, np.full(len(x), 3.0))


def ends_of(frames: Sequence[Sequence[Detection]], log_energy: float = -9.0) -> tuple[list[End], Linker]:
    """Link detections, all of one energy; elsewhere there is nothing, or as much everywhere."""
    linker, ends = Linker(LENGTH, fps=60, settings=TrackingSettings()), []
    for t, detections in enumerate(frames):
        ends += linker.step(in_flow(t, detections), Elsewhere(log_energy)).ended
    return ends + linker.finish("source-ended"), linker


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(4, 60), st.integers(0, 15), st.integers(7, 40)), min_size=1, max_size=8),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_every_piece_of_a_cell_is_known_and_no_other_cell_s(
    cells: list[tuple[float, int, int]], seed: int
) -> None:
    """Cells in lanes of their own, each unseen for 7 to 40 frames, now and again."""
    rng = np.random.default_rng(seed)
    frames: list[list[Detection]] = [[] for _ in range(120)]
    for lane, (v, first, gap) in enumerate(cells):
        for t in range(first, 120):
            x = 5 + v * (t - first)
            if x < LENGTH and (t - first) % (gap + 12) < 12:
                frames[t].append((x + rng.normal(0, 0.3), 60.0 * lane + 30 + rng.normal(0, 0.3)))
    links: dict[int, tuple[int, ...]] = {}
    lanes: dict[int, int] = {}
    before: dict[int, int] = {}
    ends, linker = ends_of(frames)
    starts = _first_detections(frames)
    for end in ends:
        lanes[end.cell] = starts[end.cell]
        links[end.cell] = end.may_continue
        lane = lanes[end.cell]
        assert {lanes[c] for c in end.may_continue} <= {lane}
        if lane in before:
            assert before[lane] in behind(end.cell, links)
        before[lane] = end.cell
    again, _ = ends_of(frames)
    assert again == ends
    assert len(linker.motion) == 0


def _first_detections(frames: Sequence[Sequence[Detection]]) -> dict[int, int]:
    """The lane of each track, by its number, from a run of its own."""
    linker, lanes = Linker(LENGTH, fps=60, settings=TrackingSettings()), {}
    for t, detections in enumerate(frames):
        linker.step(in_flow(t, detections), Elsewhere(-9.0))
        lanes |= {
            int(c): int(height // 60) for c, height in zip(linker.motion.cell, linker.motion.y, strict=True)
        }
    return lanes


def test_of_two_that_could_not_be_told_apart_both_are_possible() -> None:
    frames: list[list[Detection]] = []
    for t in range(40):
        x = 20.0 + 10 * t
        if t < 10:
            frames.append([(x, 100.0), (x + 10, 100.0)])
        elif t < 13:
            frames.append([(x + 5, 100.0)])
        else:  # they part upwards and downwards: either can be either
            frames.append([(x + 5, 96.0), (x + 5, 104.0)])
    ends, _ = ends_of(frames, 3.0)
    assert [(e.cell, e.reason) for e in ends][:2] == [(1, "ambiguous"), (2, "ambiguous")]
    later = [e for e in ends if e.cell > 2]
    assert len(later) == 2
    for end in later:
        assert set(end.may_continue) >= {1, 2}


def test_what_continues_one_of_a_pair_may_continue_the_other() -> None:
    """A later track that by its height fits one of the two only."""

    def going(cell: int, first: int, y: float) -> Motion:
        return initial_motion([{t: (20.0 * t, y, 3.0) for t in range(first, first + 8)}], [(cell, cell)])

    named = []
    for alike in ([], [(0, 1)]):
        gone = EndedTracks(LENGTH)
        pair = going(1, 0, 100.0)
        pair.extend(going(2, 0, 115.0))
        assert gone.end(7, pair, np.arange(2), alike) == [(), ()]
        (one,) = gone.end(20, going(3, 13, 119.5), np.array([0]))
        named.append(one)
        assert gone.end(21, going(4, 14, 200.0), np.array([0])) == [()]
    assert named == [(2,), (1, 2)]


@pytest.mark.parametrize("both", [False, True])
def test_two_tracks_that_see_one_cell_by_turns_are_one_and_two_cells_side_by_side_are_two(both: bool) -> None:
    """A cell far out of focus shows now its one side, now the other, ten pixels apart."""
    frames: list[list[Detection]] = []
    for t in range(50):
        sides = [(20.0 + 20 * t, 100.0), (20.0 + 20 * t, 110.0)]
        frames.append(sides if both or t < 3 else [sides[t // 4 % 2]])
    ends, _ = ends_of(frames, 3.0)
    named = [end.may_continue for end in ends]
    assert named == [(), ()] if both else len(ends) > 1 and all(named[1:])


def test_a_cell_that_must_have_left_is_forgotten() -> None:
    """A cell lost in mid field every four frames, for a while: what is remembered does not grow."""
    frames: list[list[Detection]] = [[] for _ in range(1500)]
    for t0 in range(0, 1500, 4):
        for t in range(t0, min(t0 + 8, 1500)):
            frames[t].append((5 + 20.0 * (t - t0), 30 + 60.0 * (t0 // 4 % 17)))
    linker, most = Linker(LENGTH, fps=60, settings=TrackingSettings()), 0
    for t, detections in enumerate(frames):
        linker.step(in_flow(t, detections), Elsewhere(-9.0))
        most = max(most, len(linker._past_tracks))
    assert 5 < most < 40  # 66 frames through the field, and a few for what is not known of the speed
    assert linker._next_cell > 370


# ------------------------------------------------------------------------------- on the disk


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A session with a chain: an unreliable track, a counted one, one held back."""
    pairs = some_pairs(60, seed=5)

    def take(label: Label) -> tuple[int, Pair]:
        at = next(k for k, (_, said) in enumerate(pairs) if said.label is label and k not in used)
        used.append(at)
        return at, pairs[at]

    used: list[int] = []
    (_, (a, _)), (second, (b, _)) = take(Label.UNRELIABLE), take(Label.TANK_TREADING)
    third, (c, _) = take(Label.FLIPPING)
    pairs[second] = (replace(b, may_continue=(a.cell,)), pairs[second][1])
    pairs[third] = (
        replace(c, may_continue=(b.cell,)),
        Judgement(c.cell, Label.UNCOUNTED, None, None, FRAGMENT),
    )
    folder = closed(tmp_path_factory.mktemp("pieces") / "S", pairs)
    return folder, {"unreliable": a.cell, "counted": b.cell, "held": c.cell}


def test_a_session_holds_its_pieces_and_says_so(kept: tuple[Path, dict[str, int]]) -> None:
    folder, cells = kept
    assert verify(folder).findings == []
    assert dict(read_links(folder)) == {
        cells["counted"]: [cells["unreliable"]],
        cells["held"]: [cells["counted"]],
    }
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert say("report.cells-fragments") in page


def test_a_cell_cannot_be_made_to_count_twice_by_hand(
    kept: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    folder, cells = kept
    changes = ChangeLog(shutil.copytree(folder, tmp_path / "S"))
    with pytest.raises(BadInput) as not_judged:
        changes.add(cells["held"], "flipping", "Anna")
    why = say("session.not-judged-fragment")
    assert str(not_judged.value) == say("session.cannot-be-changed", cell=cells["held"], why=why)
    with pytest.raises(BadInput) as twice:
        changes.add(cells["unreliable"], "flipping", "Anna")
    pair = {"cell": cells["unreliable"], "other": cells["counted"]}
    assert str(twice.value) == say("session.counted-as-another-fragment", **pair)
    changes.add(cells["counted"], "struck-out", "Anna")
    with pytest.raises(BadInput) as twice:
        changes.add_all({cells["unreliable"]: "flipping", cells["counted"]: None}, "Anna")
    assert twice.value.key == "session.counted-as-another-fragment"
    changes.add(cells["unreliable"], "flipping", "Anna")
    with pytest.raises(BadInput) as twice:
        changes.take_back(cells["counted"], "Anna")
    pair = {"cell": cells["counted"], "other": cells["unreliable"]}
    assert str(twice.value) == say("session.counted-as-another-fragment", **pair)
    assert verify(changes.folder).findings == []
    path = changes.folder / "changes.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    by_hand = say("session.found-counted-twice-by-hand", cell=cells["counted"])
    assert by_hand in verify(changes.folder).findings


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("counted", "session.found-fragments-counted"),
        ("alone", "session.found-fragments-left-out"),
        ("stranger", "session.found-fragments-unknown"),
        ("garbage", "session.not-two-numbers"),
    ],
)
def test_fragments_that_cannot_be_are_found(
    kept: tuple[Path, dict[str, int]], tmp_path: Path, damage: str, key: str
) -> None:
    folder, cells = kept
    folder = Path(shutil.copytree(folder, tmp_path / "S"))
    path = folder / "pieces.csv"
    text = path.read_text()
    if damage == "counted":
        other = next(
            line.split(",")[0]
            for line in (folder / "cells.csv").read_text().splitlines()
            if ",tank-treading," in line and not line.startswith(f"{cells['counted']},")
        )
        text += f"{other},{cells['counted']}\n"
    elif damage == "alone":
        text = text.replace(f"{cells['held']},{cells['counted']}\n", "")
    else:
        text += f"{cells['held']},99999\n" if damage == "stranger" else "1,x\n"
    path.write_text(text)
    values = {"path": path} if damage == "garbage" else {"cells": 1, "first": ""}
    expected = say(key, **values).partition(" (first")[0]
    assert any(expected in finding for finding in verify(folder).findings)


def test_a_session_from_before_there_were_pieces_is_whole(tmp_path: Path) -> None:
    folder = closed(tmp_path / "S", some_pairs(20, seed=8), 20)
    run = read_run(folder)
    del run["files"]["pieces.csv"]
    write_run(folder, run)
    (folder / "pieces.csv").unlink()
    assert verify(folder, only_number=True).findings == []
