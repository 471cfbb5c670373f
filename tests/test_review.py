"""A person's check of a random sample: chosen by the program, kept for good, and proven from the files."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import account_of, begin, closed, some_pairs, swap_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_keys import any_said, is_said, refused
from sklearn.metrics import cohen_kappa_score

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import FRAGMENT, ReviewPlan
from napari_rbcflow.sentences import say
from napari_rbcflow.session import ChangeLog, Review, open_session, schema, verify
from napari_rbcflow.session import review as review_module
from napari_rbcflow.session.review import population, seed_of
from napari_rbcflow.types import Label, Verdict

PAIRS = some_pairs(300)
MACHINE = {track.cell: said for track, said in PAIRS}
JUDGED = {c for c, said in MACHINE.items() if said.label in ("tank-treading", "flipping", "unreliable")}
LABELS = ("tank-treading", "flipping", "unreliable")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return closed(tmp_path_factory.mktemp("session") / "S", PAIRS, batch=100)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "S"))


def seen(cell: int, wrong: int = 7) -> str:
    """What a person says: mostly what the machine says, and every now and then another thing."""
    label = str(MACHINE[cell].label)
    return LABELS[(LABELS.index(label) + (cell % wrong == 0)) % 3]


def lines(folder: Path) -> list[bytes]:
    return (folder / "reviews.csv").read_bytes().splitlines(keepends=True)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "review.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def fresh(folder: Path) -> None:
    """Take the review of the example before away."""
    for name in ("reviews.csv", "review.json"):
        (folder / name).unlink(missing_ok=True)


def unchanged(folder: Path) -> dict[str, bytes]:
    names = ("cells.csv", "run.json", "tracks.csv", "reviews.csv", "review.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


# ------------------------------------------------------------------ from the command line


def test_a_review_from_the_command_line(folder: Path, tmp_path: Path, rbcflow: Run) -> None:
    machine = unchanged(folder)
    code, out, _ = rbcflow("review", folder)
    assert code == 0
    assert any_said("cli.review-none", [out])
    assert unchanged(folder) == machine  # to ask how it stands writes nothing
    chosen = tmp_path / "chosen.csv"
    assert rbcflow("review", folder, "--sample", 60, "--csv", chosen)[0] == 0

    # Blind: numbers of cells and nothing else, each once.
    assert chosen.read_text().splitlines()[0] == "cell"
    cells = [int(line) for line in chosen.read_text().splitlines()[1:]]
    assert len(set(cells)) == len(cells) == 60
    assert set(cells) <= JUDGED
    again = tmp_path / "again.csv"
    assert rbcflow("review", folder, "--sample", 60, "--csv", again)[0] == 0
    assert again.read_bytes() == chosen.read_bytes()  # nobody can draw until it pleases
    code, _, err = rbcflow("review", folder, "--sample", 5, "--csv", chosen)
    assert code == 2
    assert any_said("cli.file-exists", [err])

    # As a spreadsheet saves it: a mark in front, other ends of lines, other columns, not all of them filled.
    table = tmp_path / "labels.csv"
    rows = "".join(f"sharp;{seen(cell).title()};{cell}\r\n" for cell in cells[:12])
    rest = "".join(f";;{cell}\r\n" for cell in cells[12:])
    table.write_bytes(("note;Label;CELL\r\n" + rows + rest + ";;\r\n").encode("utf-8-sig"))
    code, out, _ = rbcflow("review", folder, "--labels", table, "--by", "Anna")
    assert code == 0
    assert say("cli.review-stands", reviewed=12, chosen=60) in out
    assert Review(folder).labels == {"Anna": {cell: seen(cell) for cell in cells[:12]}}
    assert Review(folder).figure.n == 12

    (tmp_path / "all.csv").write_text("cell,label\n" + "".join(f"{c},{seen(c)}\n" for c in cells))
    code, out, _ = rbcflow("review", folder, "--labels", tmp_path / "all.csv", "--by", "anna ")
    assert code == 0
    assert len(lines(folder)) == 61  # what she said before is not said again
    assert list(Review(folder).labels) == ["Anna"]
    assert any_said("cli.review-person", [out], by="Anna", cells=60)
    assert Verdict(record(folder)["verdict"]) is Verdict.RESULT
    assert Review(folder).conclusion.reason in out
    assert rbcflow("verify", folder)[0] == 0
    assert {name: (folder / name).read_bytes() for name in machine} == machine


@pytest.mark.parametrize(
    ("line", "key", "values"),
    [
        ("{cell},round", "session.not-a-label", {}),
        ("{cell},uncounted", "session.not-a-label", {}),
        ("{other},flipping", "session.review-not-chosen", {}),
        ("{unjudged},flipping", "session.review-not-chosen", {}),
        ("99999,flipping", "session.no-such-cell", {}),
        ("first,flipping", "cli.labels-not-a-cell", {}),
        ("{first},flipping", "cli.labels-twice", {"first": 2}),
    ],
)
def test_one_wrong_line_and_nothing_is_saved(
    folder: Path, tmp_path: Path, rbcflow: Run, line: str, key: str, values: dict[str, object]
) -> None:
    first, cell = Review(folder).sample(2)
    other = next(c for c in sorted(JUDGED) if c not in (first, cell))
    unjudged = next(c for c in sorted(MACHINE) if c not in JUDGED)
    before = unchanged(folder)
    table = tmp_path / "labels.csv"
    line = line.format(first=first, cell=cell, other=other, unjudged=unjudged)
    table.write_text(f"cell,label\n{first},flipping\n{line}\n")
    code, _, err = rbcflow("review", folder, "--labels", table, "--by", "Anna")
    assert code == 2
    assert any_said(key, [err], **values), err
    assert any_said("cli.labels-line", [err], file=table, line=3), err
    assert len(err.splitlines()) == 1
    assert unchanged(folder) == before


def test_what_the_command_refuses(folder: Path, tmp_path: Path, rbcflow: Run) -> None:
    cells = Review(folder).sample(3)
    table, empty, other = tmp_path / "labels.csv", tmp_path / "empty.csv", tmp_path / "other.csv"
    table.write_text("cell,label\n" + "".join(f"{c},flipping\n" for c in cells))
    empty.write_text("cell,label\n" + "".join(f"{c},\n" for c in cells))
    other.write_text("name,kind\na,b\n")
    before = unchanged(folder)
    for arguments, key in (
        ([folder, "--labels", table], "session.review-by-nobody"),
        ([folder, "--labels", table, "--by", " \n "], "session.review-by-nobody"),
        ([folder, "--labels", table, "--by", "A", "--sample", 3], "cli.review-sample-or-labels"),
        ([folder, "--sample", 3], "cli.review-sample-and-csv"),
        ([folder, "--csv", tmp_path / "new.csv"], "cli.review-sample-and-csv"),
        ([folder, "--labels", empty, "--by", "A"], "cli.labels-none"),
        ([folder, "--labels", other, "--by", "A"], "cli.labels-no-columns"),
        ([folder, "--labels", tmp_path / "none.csv", "--by", "A"], "cli.labels-unreadable"),
        ([tmp_path], "session.not-a-session"),
    ):
        code, _, err = rbcflow("review", *arguments)
        assert code == 2
        said = say(key).replace("`by`", "--by") if key == "session.review-by-nobody" else err
        assert said in err if key == "session.review-by-nobody" else any_said(key, [err]), (key, err)
    assert unchanged(folder) == before
    Review(folder).sample(1000)
    Review(folder).add(dict.fromkeys(Review(folder).sample(1000), "flipping"), "Anna")
    code, _, err = rbcflow("review", folder, "--sample", 3, "--csv", tmp_path / "new.csv")
    assert code == 2
    assert any_said("cli.review-all-checked", [err])
    assert not (tmp_path / "new.csv").exists()
    assert "rbcflow review monday" in rbcflow("review", "--help")[1]


# ------------------------------------------------------------------ from Python


def test_a_review_from_python(folder: Path) -> None:
    session = open_session(folder)
    assert session.fraction_reviewed is None
    assert session.conclusion.verdict is Verdict.PROVISIONAL
    cells = session.review_sample(60)
    assert session.fraction_reviewed is None
    page = (folder / "report.html").read_bytes()
    figure = session.review({cell: seen(cell) for cell in cells}, by="Anna")
    assert session.fraction_reviewed == open_session(folder).fraction_reviewed == figure
    assert session.conclusion.headline == figure
    assert (folder / "report.html").read_bytes() != page
    assert (figure.method, figure.n, figure.level) == ("reviewed", 60, 0.95)

    judged = session.cells[population(session.cells, {})].sort_values("cell")
    plan = ReviewPlan(
        judged["cell"].to_numpy(),
        judged["label"].tolist(),
        judged["p_reliable"].to_numpy(),
        judged["p_tank_treading"].to_numpy(),
        seed_of(session.cells),
    )
    assert plan.next(60) == cells
    right = plan.estimate({cell: [seen(cell)] for cell in cells})
    assert (figure.estimate, figure.low, figure.high) == (right.estimate, right.low, right.high)
    told = record(folder)
    assert told["fraction_reviewed"]["estimate"] == figure.estimate
    assert told["reviewers"]["Anna"]["reviewed"] == 60
    assert sum(stratum["tracks"] for stratum in told["design"]["strata"]) == len(JUDGED)
    assert sum(stratum["reviewed"] for stratum in told["design"]["strata"]) == 60

    # Changes by hand choose their cells, so they move no result.
    ChangeLog(folder).add(cells[0], "struck-out", "Bo")
    assert Review(folder).figure == figure
    assert Review(folder).sample(5) == Review(folder).sample(5)
    assert verify(folder).findings == []


def test_the_sample_is_of_the_session_and_of_nobody_s_choice(made: Path) -> None:
    session = open_session(made)
    # Nor of the moment at which the movie was analysed: else whoever analyses it again draws again.
    assert seed_of(session.cells) == seed_of(session.cells[::-1])
    other = session.cells.copy()
    other.loc[other["label"] == "flipping", "p_tank_treading"] += 0.0001
    assert seed_of(other) != seed_of(session.cells)


def test_each_cell_is_in_the_population_once() -> None:
    judged = [
        (1, Label.TANK_TREADING, ""),
        (2, Label.UNRELIABLE, ""),  # goes on as 3, which was counted
        (3, Label.FLIPPING, ""),
        (4, Label.UNRELIABLE, ""),  # may continue 1
        (5, Label.UNCOUNTED, FRAGMENT),
        (6, Label.UNRELIABLE, ""),
        (7, Label.UNRELIABLE, ""),  # may continue 6
        (8, Label.TOO_SHORT, ""),
        (9, Label.UNRELIABLE, ""),  # may continue 6 by way of one too short
        (10, Label.UNRELIABLE, ""),
        (11, Label.UNCOUNTED, "cut-by-stop"),
    ]
    cells = pd.DataFrame(judged, columns=["cell", "label", "reason"])
    links = {3: [2], 4: [1], 5: [3], 7: [6], 8: [6], 9: [8]}
    assert cells["cell"][population(cells, links)].tolist() == [1, 3, 6, 10]
    assert cells["cell"][population(cells[::-1], links)[::-1]].tolist() == [1, 3, 6, 10]


def test_a_run_that_goes_on_and_one_that_was_interrupted(tmp_path: Path) -> None:
    writer = begin(tmp_path / "S")
    writer.keep(PAIRS)
    review = Review(writer.folder)
    with refused(BadInput, "session.review-running"):
        review.sample(3)
    with refused(BadInput, "session.review-running"):
        review.add({1: "flipping"}, "Anna")
    (tmp_path / "crashed").mkdir()
    for name in ("run.json", "cells.csv"):
        shutil.copy(writer.folder / name, tmp_path / "crashed")
    with refused(BadInput, "session.review-interrupted"):
        Review(tmp_path / "crashed").sample(3)
    writer.close(account_of(PAIRS), "stopped", "user")
    assert len(review.sample(3)) == 3  # the same review, after the end


def test_what_is_refused(folder: Path) -> None:
    review = Review(folder)
    cells = review.sample(10)
    before = unchanged(folder)
    for labels, by, key in (
        ({cells[0]: "flipping", cells[1]: "round"}, "Anna", "session.not-a-label"),
        ({cells[0]: "flipping", cells[1]: "withdrawn"}, "Anna", "session.not-a-label"),
        ({cells[0]: "flipping", 99999: "flipping"}, "Anna", "session.no-such-cell"),
        (
            {cells[0]: "flipping", next(iter(JUDGED - set(cells))): "flipping"},
            "A",
            "session.review-not-chosen",
        ),
        ({cells[0]: "flipping"}, "", "session.review-by-nobody"),
    ):
        with refused(BadInput, key):
            review.add(labels, by)
    with refused(BadInput, "session.review-nothing-to-withdraw"):
        review.withdraw(cells[0], "Anna")
    with refused(BadInput, "session.review-sample-of-none"):
        review.sample(0)
    assert unchanged(folder) == before
    assert review.labels == {}


# ------------------------------------------------------------------ persons


def test_two_persons_check_the_same_cells_and_each_has_an_equal_say(folder: Path, rbcflow: Run) -> None:
    review = Review(folder)
    cells = review.sample(40, by="Anna")
    review.add({cell: seen(cell) for cell in cells}, "Anna")
    assert review.agreement == []
    assert not set(review.sample(40, by="Anna")) & set(cells)
    assert review.sample(30, by="Bo") == cells[:30]
    review.add({cell: seen(cell, wrong=3) for cell in cells[:30]}, "Bo")
    assert review.sample(20, by="Bo")[:10] == cells[30:]
    (pair,) = review.agreement
    both = [(seen(cell), seen(cell, wrong=3)) for cell in cells[:30]]
    assert (pair.between, pair.cells) == (("Anna", "Bo"), 30)
    assert pair.equal == sum(a == b for a, b in both) < 30
    assert pair.kappa == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)))
    # Whoever labels only some cells could choose them: they show how far two persons agree, and count only
    # once all are labelled.
    for last, others in ((30, []), (40, cells)):
        review.add({cell: seen(cell, wrong=3) for cell in cells[:last]}, "Bo")
        said = {cell: [seen(cell), *([seen(cell, wrong=3)] if cell in others else [])] for cell in cells}
        figure, right = review.figure, review.plan.estimate(said)
        assert (figure.estimate, figure.low, figure.high) == (right.estimate, right.low, right.high)
        assert figure.n == 40
    (pair,) = review.agreement
    assert record(folder)["agreement"][0]["kappa"] == pytest.approx(pair.kappa)
    review.finish()
    out = rbcflow("review", folder)[1]
    assert any_said("cli.review-agreement-kappa", [out], one="Anna", other="Bo", cells=40)
    assert verify(folder).findings == []

    review.add({cells[0]: "flipping"}, "Cy")
    assert [pair.kappa for pair in review.agreement if "Cy" in pair.between].count(None) <= 2


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    done=st.lists(
        st.tuples(
            st.integers(0, 11), st.sampled_from([*LABELS, None]), st.sampled_from(["Anna", "anna", "Bo"])
        ),
        max_size=12,
    )
)
def test_a_person_s_last_word_counts(folder: Path, done: list[tuple[int, str | None, str]]) -> None:
    fresh(folder)
    review, right = Review(folder), dict[str, dict[int, str]]()
    cells = review.sample(12)
    for at, label, by in done:
        own = right.setdefault(by.title(), {})
        if label is not None:
            review.add({cells[at]: label}, by)
            own[cells[at]] = label
        elif cells[at] in own:
            review.withdraw(cells[at], by)
            del own[cells[at]]
    said = {name.title(): own for name, own in review.labels.items()}
    assert said == {by: own for by, own in right.items() if own}
    assert Review(folder).figure == review.figure
    assert (folder / "review.json").exists()
    fraction = record(folder)["fraction_reviewed"]
    assert (fraction["estimate"], fraction["n"]) == (review.figure.estimate, review.figure.n)
    assert set(review_module.findings(folder)) <= {say("session.found-report-without-review")}


def test_who_leaves_out_a_cell_gets_no_result(folder: Path, rbcflow: Run) -> None:
    review = Review(folder)
    cells = review.sample(60)
    first, left_out = cells[0], int(review.plan.strata[0].cells[0])
    review.add({cell: seen(cell) for cell in cells if cell != left_out}, "Anna")
    assert (review.figure.n, review.passed_over) == (59, [left_out])
    assert review.conclusion == open_session(folder).conclusion
    assert review.conclusion.verdict is Verdict.PROVISIONAL
    assert review.conclusion.why == say("session.why-passed-over", cells=1)
    code, out, _ = rbcflow("review", folder)
    assert code == 0
    assert say("cli.review-passed-over", cells=left_out) in out
    assert review.sample(20)[0] == left_out  # it is asked for again, first
    review.add({left_out: "unreliable"}, "Anna")
    assert review.passed_over == []
    assert review.conclusion.verdict is Verdict.RESULT
    # A sample that was begun is finished, or it gives no result; also where a label was withdrawn again.
    more = [cell for cell in review.sample(20) if cell != left_out]
    review.add({cell: seen(cell) for cell in more[:5]}, "Anna")
    assert review.conclusion.verdict is Verdict.PROVISIONAL
    assert len(review.passed_over) == 14  # of the 19 that were new when 20 were asked for
    assert set(review.passed_over) <= set(more)
    review.add({cell: seen(cell) for cell in review.passed_over}, "Anna")
    assert review.conclusion.verdict is Verdict.RESULT
    review.withdraw(first, "Anna")
    assert review.passed_over == [first]
    review.finish()
    assert verify(folder).findings == []


# ------------------------------------------------------------------ what may break


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_at_any_byte_it_is_a_readable_review(folder: Path, data: st.DataObject) -> None:
    fresh(folder)
    review = Review(folder)
    cells = review.sample(8)
    for cell in cells[:3]:
        review.add({cell: seen(cell)}, "Anna, the 1st")
    told = (folder / "review.json").read_bytes()
    size = (folder / "reviews.csv").stat().st_size
    review.add({cell: seen(cell) for cell in cells[3:6]}, "Anna, the 1st")
    kept = (folder / "reviews.csv").read_bytes()
    (folder / "review.json").write_bytes(told)  # the crash came before it was written again
    end = data.draw(st.integers(0, len(kept)))
    os.truncate(folder / "reviews.csv", end)
    whole = max(0, kept[:end].count(b"\n") - 1)
    right = {cell: seen(cell) for cell in cells[:whole]}
    assert Review(folder).labels == ({"Anna, the 1st": right} if right else {})
    assert Review(folder).figure.n == whole
    found = list(review_module.findings(folder))
    found = [sentence for sentence in found if sentence != say("session.found-report-without-review")]
    is_cut = end > 0 and kept[end - 1 : end] != b"\n"
    assert any_said("session.records-line-cut", found) == is_cut
    if end < size:  # lines that were shown as saved are gone
        assert any_said("session.found-reviews-edited", found)
        with refused(RunFailed, "session.reviews-edited"):
            review.add({cells[7]: "flipping"}, "Anna, the 1st")
        return
    assert any_said("session.found-review-behind", found) == (end > size)
    review.add({cells[7]: "flipping"}, "Anna, the 1st")
    assert Review(folder).labels == {"Anna, the 1st": {**right, cells[7]: "flipping"}}
    assert (folder / "reviews.csv").read_bytes().startswith(kept[:end])
    review.finish()
    assert len(list(review_module.findings(folder))) == is_cut


def test_a_crash_between_the_line_and_the_number(
    folder: Path, rbcflow: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = Review(folder)
    cells = review.sample(6)
    review.add({cells[0]: "flipping"}, "Anna")
    with monkeypatch.context() as crash:
        crash.setattr(
            review_module, "replace_file", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "x"))
        )
        with refused(RunFailed, "session.review-not-written"):
            review.add({cells[1]: "flipping"}, "Anna")
    assert Review(folder).labels == {"Anna": {cells[0]: "flipping", cells[1]: "flipping"}}
    found = verify(folder).findings
    assert found == [say("session.found-report-without-review"), say("session.found-review-behind")]
    assert rbcflow("review", folder)[0] == 0  # whoever asks how it stands brings it up to date
    assert record(folder)["reviewers"]["Anna"]["reviewed"] == 2
    assert verify(folder).findings == []


def test_a_full_disk_leaves_the_table_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    review = Review(folder)
    cells = review.sample(6)
    review.add({cells[0]: "flipping"}, "Anna")
    before = unchanged(folder)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with refused(RunFailed, "session.records-disk-full"):
            review.add(dict.fromkeys(cells, "flipping"), "Anna")
    assert unchanged(folder) == before
    review.add({cells[1]: "flipping"}, "Anna")
    review.finish()
    assert verify(folder).findings == []


@pytest.mark.parametrize(
    ("file", "old", "new", "key"),
    [
        ("reviews.csv", ",flipping\n", ",unreliable\n", "session.found-reviews-edited"),
        ("reviews.csv", ",Anna,", ",Bo,", "session.found-reviews-edited"),
        ("reviews.csv", ",flipping\n", ",round\n", "session.records-not-a-label"),
        ("reviews.csv", "reviewed,by", "when,by", "session.records-first-line"),
        ("review.json", '"n": 30', '"n": 31', "session.found-review-fraction"),
        ("review.json", '"estimate": 0.', '"estimate": 0.0', "session.found-review-fraction"),
        ("review.json", '"verdict": "', '"verdict": "no-', "session.found-review-differs"),
        ("review.json", '"tracks": ', '"tracks": 9', "session.found-review-differs"),
        ("review.json", '"seed": ', '"seed": 1', "session.found-review-differs"),
        ("review.json", '"reviewed": 30', '"reviewed": 29', "session.found-review-differs"),
        ("review.json", "{", "", "session.found-review-damaged"),
    ],
)
def test_what_was_edited_is_found(folder: Path, file: str, old: str, new: str, key: str) -> None:
    review = Review(folder)
    review.add({cell: seen(cell) for cell in review.sample(30)}, "Anna")
    review.finish()
    assert verify(folder).findings == []
    swap_text(folder / file, old, new)
    assert any_said(key, verify(folder).findings), verify(folder).findings
    if key.startswith("session.records"):
        with refused(RunFailed, "session.records-unusable"):
            _ = Review(folder).figure
    if file == "reviews.csv":
        with refused(RunFailed, "session.records-unusable" if "records" in key else "session.reviews-edited"):
            review.add({review.plan.strata[0].cells[0]: "unreliable"}, "Anna")


def test_a_cell_that_nobody_was_asked_for_is_found(folder: Path) -> None:
    review = Review(folder)
    cells = review.sample(10)
    review.add({cell: seen(cell) for cell in cells}, "Anna")
    stratum = review.plan.strata[0].cells
    assert not review.passed_over
    figure = review.figure
    with (folder / "reviews.csv").open("a", newline="") as file:
        line = lines(folder)[-1].decode()
        _, by, _, label = next(csv.reader(io.StringIO(line)))
        file.write(f"2026-03-02T10:00:00.000+01:00,{by},{stratum[-1]},{label}\n")
    assert any_said("session.found-review-outside", verify(folder).findings, cells=1, first=stratum[-1])
    assert Review(folder).figure == figure  # and it does not count
    Review(folder).finish()
    assert any_said("session.found-review-outside", verify(folder).findings)
    assert any_said("report.reviewed-by", [(folder / "report.html").read_text(encoding="utf-8")])


def test_a_stranger_s_labels_of_chosen_cells_move_nothing(folder: Path) -> None:
    """Somebody who calls only the flipping cells unreliable, under three more names."""
    review = Review(folder)
    review.add({cell: seen(cell) for cell in review.sample(60)}, "Anna")
    figure = review.figure
    flipping = [cell for cell, label in review.labels["Anna"].items() if label == "flipping"]
    assert flipping
    for name in ("Bo", "Cy", "Di"):
        review.add(dict.fromkeys(flipping, "unreliable"), name)
    assert review.figure == figure


def test_a_review_whose_record_is_gone_is_not_begun_anew(folder: Path) -> None:
    """Else whoever edits the labels and deletes the record would not be noticed."""
    review = Review(folder)
    review.add({cell: seen(cell) for cell in review.sample(60)}, "Anna")
    (folder / "review.json").unlink()
    with refused(RunFailed, "session.reviews-edited"):
        Review(folder).finish()
    assert verify(folder).findings


def test_few_checks_give_no_result(folder: Path) -> None:
    """However narrow the interval is: whoever stops when it looks narrow stops at the luckiest moment."""
    review = Review(folder)
    review.add(dict.fromkeys(review.sample(20), "tank-treading"), "Anna")
    assert review.conclusion.verdict is Verdict.PROVISIONAL
    assert is_said("session.why-few-checked", review.conclusion.why)


def test_two_programs_that_check_at_once_write_one_review(folder: Path) -> None:
    cells = Review(folder).sample(60)
    parts = {"Zoë": cells[:30], "Zoe\u0308": cells[20:50], "Anna": cells[40:]}  # the first two are one person
    failed: list[Exception] = []

    def check(by: str) -> None:
        try:
            review = Review(folder)
            for k in range(0, len(parts[by]), 5):
                review.add({cell: seen(cell) for cell in parts[by][k : k + 5]}, by)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=check, args=(by,)) for by in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    review = Review(folder)
    assert set(review.labels) == {"Zoë", "Anna"}
    assert (len(lines(folder)), review.reviewed) == (1 + 50 + 20, 60)
    assert record(folder)["reviewers"]["Zoë"]["reviewed"] == 50
    review.finish()
    assert verify(folder).findings == []


def test_a_program_that_holds_the_review_for_too_long_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_S", 0.05)
    with schema.locked(folder / "cells.csv"):
        assert not Review(folder).labels  # reading waits for nobody
        with refused(RunFailed, "session.review-busy"):
            Review(folder).sample(5)
