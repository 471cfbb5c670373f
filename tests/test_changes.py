"""What a person changes stands beside the machine's labels, on the disk, and never in their place."""

from __future__ import annotations

import contextlib
import csv
import errno
import html
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from factories import account_of, begin, some_pairs, swap_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_keys import any_said, refused
from small_chamber import SmallChamber

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import RunningFraction, wilson
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure, Session, open_session, report, verify
from napari_rbcflow.session.change_log import ChangeLog
from napari_rbcflow.session.label_edits import BY_HAND, STRUCK_OUT, LabelChange
from napari_rbcflow.session.report import write_report
from napari_rbcflow.types import Label

PAIRS = some_pairs(90)
MACHINE = {track.cell: str(said.label) for track, said in PAIRS}
JUDGED = sorted(cell for cell, label in MACHINE.items() if label in BY_HAND)
FLIPPING = [cell for cell in JUDGED if MACHINE[cell] == Label.FLIPPING]
TANK_TREADING = [cell for cell in JUDGED if MACHINE[cell] == Label.TANK_TREADING]
UNRELIABLE = [cell for cell in JUDGED if MACHINE[cell] == Label.UNRELIABLE]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A session that a writer still holds open."""
    writer = begin(tmp_path_factory.mktemp("session") / "S")
    writer.keep(PAIRS)
    yield writer.folder
    writer.close(account_of(PAIRS), "stopped", "user")


def of_counts(k: int, m: int) -> FractionFigure:
    if not k + m:
        return FractionFigure(None, None, None, 0.95, "wilson", 0)
    return FractionFigure(k / (k + m), *wilson(k, k + m), 0.95, "wilson", k + m)


def recount(labels: dict[int, str], *, one_by_one: bool = False) -> FractionFigure:
    """While a run goes on, the machine's interval is of every look, and one with changes of a single look."""
    fraction = RunningFraction()
    counted = [label for label in labels.values() if label in ("tank-treading", "flipping")]
    if not one_by_one:
        fraction.update(tank_treading=counted.count("tank-treading"), flipping=counted.count("flipping"))
    else:
        for label in counted:
            fraction.update(tank_treading=int(label == "tank-treading"), flipping=int(label == "flipping"))
    return FractionFigure.of(fraction, fraction.anytime_interval(), "anytime")


def shown(page: Path) -> str:
    """The words of a report."""
    text = page.read_text(encoding="utf-8")
    return " ".join(re.sub(r"<[^>]+>", " ", text[text.index("<body>") :]).split())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.lists(
        st.tuples(
            st.sampled_from(JUDGED),
            st.sampled_from(BY_HAND),
            st.text(st.characters(codec="utf-8"), max_size=8).map("A{}".format)
            | st.sampled_from(['A, "B"', "=1+1"]),
        ),
        max_size=12,
    )
)
def test_the_fraction_by_hand_is_that_of_a_recount(running: Path, wanted: list[tuple[int, str, str]]) -> None:
    (running / "changes.csv").unlink(missing_ok=True)
    log, labels, made = ChangeLog(running), dict(MACHINE), []
    for cell, now, by in wanted:
        if labels[cell] == now:
            with pytest.raises(BadInput) as error:
                log.add(cell, now, by)
            assert str(error.value) == say("session.label-unchanged", cell=cell, label=now)
            continue
        change = log.add(cell, now, by)
        assert (change.cell, change.was, change.now) == (cell, labels[cell], now)
        labels[cell] = now
        made.append(change)
    session = open_session(running)
    assert log.all() == session.changes_made == made
    assert all(change.by.strip() for change in made)
    changed = {cell: now for cell, now in labels.items() if now != MACHINE[cell]}
    assert log.labels() == changed
    assert dict(zip(session.cells["cell"], session.labels_by_hand, strict=True)) == labels
    assert dict(zip(session.cells["cell"], session.cells["label"], strict=True)) == MACHINE
    assert session.fraction_by_hand == (recount(labels) if changed else None)
    assert session.fraction == recount(MACHINE, one_by_one=True)
    k, m = len(TANK_TREADING), len(FLIPPING)
    assert log.figure(tank_treading=k, flipping=m) == session.fraction_by_hand

    # Everything taken back is the machine's again, and what was done stays written.
    for cell in changed:
        log.take_back(cell, "Anna")
    session = open_session(running)
    assert session.labels_by_hand.tolist() == session.cells["label"].tolist()
    assert session.fraction_by_hand is None
    assert len(session.changes) == len(made) + len(changed)


def test_a_finished_session_tells_of_its_changes(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: (copied / name).read_bytes() for name in ("cells.csv", "tracks.csv", "run.json", "run.log")}
    machine = open_session(copied).fraction
    assert machine.estimate is not None
    log = ChangeLog(copied)
    before = datetime.now().astimezone()
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    log.add(FLIPPING[1], "tank-treading", "Bo <b>, MD")
    log.add(FLIPPING[2], "unreliable", "Anna")
    log.take_back(FLIPPING[2], "Anna")
    assert log.report_fault == ""
    with (copied / "changes.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["changed", "by", "cell", "was", "now"]
    assert [row[1:] for row in rows] == [
        ["Anna", str(FLIPPING[0]), "flipping", "struck-out"],
        ["Bo <b>, MD", str(FLIPPING[1]), "flipping", "tank-treading"],
        ["Anna", str(FLIPPING[2]), "flipping", "unreliable"],
        ["Anna", str(FLIPPING[2]), "unreliable", "flipping"],
    ]
    assert all(datetime.fromisoformat(row[0]) >= before.replace(microsecond=0) for row in rows)

    session = open_session(copied)
    assert session.changes["cell"].tolist() == [FLIPPING[0], FLIPPING[1], FLIPPING[2], FLIPPING[2]]
    assert session.fraction == machine
    figure = session.fraction_by_hand
    assert figure == of_counts(len(TANK_TREADING) + 1, len(FLIPPING) - 2)
    assert figure.estimate is not None
    said = shown(copied / "report.html")
    assert f"With 2 changes by hand by Anna, Bo &lt;b&gt;, MD: {100 * figure.estimate:.1f} %" in said
    excluded = say("report.by-hand-excluded", cells=1)
    relabelled = say("report.by-hand-relabelled", cells=1, machine="flipping", now="tank-treading")
    assert f"{excluded}, {relabelled}" in said
    assert said.index(f"{100 * machine.estimate:.1f} %") < said.index("changes by hand")
    assert verify(copied).findings == []
    assert {name: (copied / name).read_bytes() for name in kept} == kept
    if folder := os.environ.get("RBCFLOW_PICTURES"):
        shutil.copy(copied / "report.html", Path(folder) / "report_with_changes.html")

    for cell in (FLIPPING[0], FLIPPING[1]):
        log.take_back(cell, "Anna")
    undone = say("report.by-hand-undone", names="Anna, Bo <b>, MD")
    assert undone in html.unescape(shown(copied / "report.html"))
    assert open_session(copied).fraction_by_hand is None
    assert verify(copied).code == 0

    with refused(BadInput, "session.review-by-nobody"):  # not signed with whoever is logged in
        log.add(FLIPPING[0], STRUCK_OUT, " ")
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    for cell in TANK_TREADING[9:] + FLIPPING[1:]:
        log.add(cell, "struck-out", "Anna")
    page = (copied / "report.html").read_text()
    assert say("session.too-few-to-act-on", cells=9, least=30) in page
    assert '<p class="by-hand" data-changes=' in page
    for cell in TANK_TREADING[:9]:
        log.add(cell, "struck-out", "Anna")
    assert open_session(copied).fraction_by_hand == FractionFigure(None, None, None, 0.95, "wilson", 0)
    assert "no number , because no cell is left to count" in shown(copied / "report.html")


def test_several_cells_are_changed_together_or_not_at_all(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ChangeLog(copied)
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    before = (copied / "changes.csv").read_bytes()
    too_short = next(cell for cell, label in MACHINE.items() if label == Label.TOO_SHORT)
    for wrong, key in (
        ({FLIPPING[1]: "unreliable", too_short: "unreliable"}, "session.cannot-be-changed"),
        ({FLIPPING[1]: "unreliable", 1000: "unreliable"}, "session.no-such-cell"),
        ({FLIPPING[1]: "unreliable", FLIPPING[2]: "sphere"}, "session.not-a-label"),
    ):
        with refused(BadInput, key):
            log.add_all(wrong, "Anna")
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with refused(RunFailed, "session.records-disk-full"):
        log.add_all(dict.fromkeys(FLIPPING, STRUCK_OUT), "Anna")
    monkeypatch.setattr(os, "fsync", fsync)
    assert (copied / "changes.csv").read_bytes() == before

    made = log.add_all(dict.fromkeys(FLIPPING, STRUCK_OUT), "Anna")
    assert [change.cell for change in made] == FLIPPING[1:]  # the first one is excluded already
    assert log.all()[1:] == made
    assert open_session(copied).fraction_by_hand == of_counts(len(TANK_TREADING), 0)
    assert log.add_all(dict.fromkeys(FLIPPING, STRUCK_OUT), "Anna") == []
    log.add_all({FLIPPING[0]: "tank-treading", **dict.fromkeys(FLIPPING[1:])}, "Anna")
    assert log.labels() == {FLIPPING[0]: "tank-treading"}
    assert verify(copied).findings == []


def test_a_session_without_changes_is_as_before(whole: Path) -> None:
    session = open_session(whole)
    assert session.changes.empty
    assert session.changes.columns.tolist() == ["changed", "by", "cell", "was", "now"]
    assert session.fraction_by_hand is None
    assert "by hand" not in shown(whole / "report.html")
    assert verify(whole).findings == []
    assert not (whole / "changes.csv").exists()


def test_changes_while_the_run_goes_on_are_in_its_report(tmp_path: Path) -> None:
    writer = begin(tmp_path / "S")
    writer.keep(PAIRS[:60])
    kept = [track.cell for track, _ in PAIRS[:60]]
    log = ChangeLog(writer.folder)
    cell = next(cell for cell in kept if cell in FLIPPING)
    later = next(cell for cell in FLIPPING if cell not in kept)
    log.add(cell, STRUCK_OUT, "Anna")
    with refused(BadInput, "session.no-such-cell"):
        log.add(later, STRUCK_OUT, "Anna")
    assert not (writer.folder / "report.html").exists()
    writer.keep(PAIRS[60:])
    log.add(later, "tank-treading", "Anna")
    writer.close(account_of(PAIRS), "stopped", "user")
    assert verify(writer.folder).findings == []
    assert "With 2 changes by hand by Anna" in shown(writer.folder / "report.html")


def test_a_change_in_the_moment_of_the_close_is_told_too(copied: Path) -> None:
    page = (copied / "report.html").read_bytes()
    log = ChangeLog(copied)
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    (copied / "report.html").write_bytes(page)
    assert say("session.found-report-behind") in verify(copied).findings
    log.bring_report_up_to_date()
    assert verify(copied).findings == []
    page = (copied / "report.html").stat()
    log.bring_report_up_to_date()
    assert (copied / "report.html").stat() == page  # written once


def test_a_report_that_cannot_be_written_keeps_the_change(copied: Path) -> None:
    (copied / "report.html").unlink()
    (copied / "report.html").mkdir()
    log = ChangeLog(copied)
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    assert any_said("session.report-not-updated", [log.report_fault])
    assert log.labels() == {FLIPPING[0]: STRUCK_OUT}
    (copied / "report.html").rmdir()
    log.add(FLIPPING[1], STRUCK_OUT, "Anna")
    assert log.report_fault == ""
    assert verify(copied).code == 0


@pytest.mark.parametrize("lost", range(1, 60, 7))
def test_a_line_cut_by_a_crash_counts_for_nothing_and_spoils_no_other(copied: Path, lost: int) -> None:
    log = ChangeLog(copied)
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    log.add(FLIPPING[1], "tank-treading", "Anna")
    path = copied / "changes.csv"
    first_two = path.read_bytes().splitlines(keepends=True)[:2]
    os.truncate(path, path.stat().st_size - lost)
    assert log.labels() == {FLIPPING[0]: STRUCK_OUT}
    assert open_session(copied).fraction_by_hand == of_counts(len(TANK_TREADING), len(FLIPPING) - 1)
    assert say("session.records-line-cut", name="changes.csv", line=3) in verify(copied).findings
    log.add(FLIPPING[2], "unreliable", "Anna")
    assert log.labels() == {FLIPPING[0]: STRUCK_OUT, FLIPPING[2]: "unreliable"}
    assert path.read_bytes().splitlines(keepends=True)[:2] == first_two
    assert verify(copied).findings == [say("session.records-line-cut", name="changes.csv", line=3)]


def test_a_first_line_cut_by_a_crash(copied: Path) -> None:
    (copied / "changes.csv").write_text("changed,by,ce")
    assert open_session(copied).changes.empty
    assert verify(copied).findings == [say("session.records-line-cut", name="changes.csv", line=1)]
    ChangeLog(copied).add(FLIPPING[0], STRUCK_OUT, "Anna")
    assert verify(copied).findings == []


def test_many_writers_one_after_the_other(copied: Path) -> None:
    for cell in FLIPPING[:2]:
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from napari_rbcflow.session.change_log import ChangeLog\n"
                "ChangeLog(sys.argv[1]).add(int(sys.argv[2]), 'struck-out', 'Anna')",
                str(copied),
                str(cell),
            ],
            check=True,
        )
    assert sorted(ChangeLog(copied).labels()) == FLIPPING[:2]
    assert verify(copied).findings == []


def test_two_windows_change_a_cell_in_the_same_moment(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, others, slow = FLIPPING[0], [], ChangeLog(copied)
    other = threading.Thread(
        target=lambda: others.append(ChangeLog(copied).add(cell, Label.UNRELIABLE, "Ben").was)
    )
    read = slow.all

    def read_and_wait() -> list[LabelChange]:
        found = read()
        if not other.ident:
            other.start()
            other.join(2)  # it waits for its turn
        return found

    monkeypatch.setattr(slow, "all", read_and_wait)
    slow.add(cell, STRUCK_OUT, "Ann")
    other.join()
    assert others == [STRUCK_OUT]
    assert verify(copied).findings == []


def test_of_two_reports_that_are_written_at_once_the_last_shows_everything(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, once = report._contents, iter([True])

    def contents(session: Session) -> dict[str, object]:
        found = write(session)
        if next(once, False):  # another program is done before this page is
            ChangeLog(copied).add(FLIPPING[1], STRUCK_OUT, "Ben")
        return found

    monkeypatch.setattr(report, "_contents", contents)
    assert not report.write_report_again(copied)
    assert next(once, None) is None
    assert verify(copied).findings == []


def test_what_is_refused(copied: Path, tmp_path: Path) -> None:
    log = ChangeLog(copied)
    too_short = next(cell for cell, label in MACHINE.items() if label == Label.TOO_SHORT)
    uncounted = next(cell for cell, label in MACHINE.items() if label == Label.UNCOUNTED)
    in_under_6 = say("session.not-judged-too-short", frames=6)
    at_the_stop = say("session.not-judged-cut-by-stop")
    labels = "tank-treading, flipping, unreliable"
    for cell, now, said in (
        (1000, "flipping", say("session.no-such-cell", folder=copied, cell=1000)),
        (0, "flipping", say("session.no-such-cell", folder=copied, cell=0)),
        (FLIPPING[0], "sphere", say("session.not-a-label", label="sphere", labels=labels, last=STRUCK_OUT)),
        (
            FLIPPING[0],
            "uncounted",
            say("session.not-a-label", label="uncounted", labels=labels, last=STRUCK_OUT),
        ),
        (too_short, "flipping", say("session.cannot-be-changed", cell=too_short, why=in_under_6)),
        (uncounted, "tank-treading", say("session.cannot-be-changed", cell=uncounted, why=at_the_stop)),
        (FLIPPING[0], "flipping", say("session.label-unchanged", cell=FLIPPING[0], label="flipping")),
    ):
        with pytest.raises(BadInput) as error:
            log.add(cell, now, "Anna")
        assert str(error.value) == said
    assert not (copied / "changes.csv").exists()
    with refused(BadInput, "session.not-a-session"):
        ChangeLog(tmp_path)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere; for a moment, be somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="rights of another user are POSIX's here")
def test_a_session_that_one_may_only_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied)  # the folders above are closed to others
    copied.chmod(0o555)
    try:
        with as_nobody(), pytest.raises(BadInput) as error:
            ChangeLog(Path()).add(FLIPPING[0], STRUCK_OUT, "Anna")
        assert error.value.key == "session.records-no-right"
    finally:
        copied.chmod(0o755)
    assert not (copied / "changes.csv").exists()


@pytest.mark.parametrize(
    ("old", "new", "key", "values"),
    [
        ("changed,by", "when,by", "session.records-first-line", {"columns": "changed,by,cell,was,now"}),
        (",struck-out", ",struck", "session.records-not-a-label", {}),
        (",Anna,", ",,", "session.records-nobody", {}),
        ("T", " of ", "session.records-not-a-time", {}),
        ("Anna", 'An"na"', None, {}),
        (f",{FLIPPING[0]},", ",first,", "session.records-not-a-cell", {}),
        (f",{FLIPPING[0]},", ",999,", "session.changes-unknown-cell", {"cell": 999}),
        (",flipping,", ",unreliable,", "session.changes-do-not-follow", {"present": "flipping"}),
    ],
)
def test_a_file_that_was_tampered_with(
    copied: Path, old: str, new: str, key: str | None, values: dict[str, object]
) -> None:
    log = ChangeLog(copied)
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    swap_text(copied / "changes.csv", old, new)
    findings = verify(copied).findings
    if key is None:
        assert findings == []
        return
    assert any_said(key, findings, **values), findings
    page = write_report(copied)
    if key in ("session.changes-unknown-cell", "session.changes-do-not-follow"):
        return
    with pytest.raises(RunFailed) as error:
        _ = open_session(copied).fraction_by_hand
    assert error.value.key == "session.records-unusable"
    with refused(RunFailed, "session.records-unusable"):
        log.add(FLIPPING[1], STRUCK_OUT, "Anna")
    assert any_said("session.records-unusable", [html.unescape(shown(page))])
    assert open_session(copied).fraction == of_counts(len(TANK_TREADING), len(FLIPPING))


def test_a_line_taken_out_is_found(copied: Path) -> None:
    log = ChangeLog(copied)
    log.add(FLIPPING[0], STRUCK_OUT, "Anna")
    log.add(FLIPPING[0], "tank-treading", "Anna")
    path = copied / "changes.csv"
    header, _, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + second)
    assert any_said("session.changes-do-not-follow", verify(copied).findings)
    assert say("session.found-report-behind") in verify(copied).findings


def test_an_uncounted_cell_never_comes_to_count(copied: Path) -> None:
    """Not by an editor either."""
    uncounted = next(cell for cell, label in MACHINE.items() if label == Label.UNCOUNTED)
    ChangeLog(copied).add(FLIPPING[0], STRUCK_OUT, "Anna")
    swap_text(
        copied / "changes.csv", f",{FLIPPING[0]},flipping,struck-out", f",{uncounted},flipping,tank-treading"
    )
    assert open_session(copied).fraction_by_hand is None
    assert any_said("session.changes-unjudged-cell", verify(copied).findings)


@pytest.mark.slow
def test_while_another_process_writes_the_session(tmp_path: Path) -> None:
    from napari_rbcflow.pipeline.client import Worker
    from napari_rbcflow.pipeline.messages import RunRequest
    from napari_rbcflow.pipeline.settings import RunSettings

    folder = tmp_path / "S"
    worker = Worker()
    try:
        run = worker.start(RunRequest(SmallChamber(), folder, RunSettings(device="cpu")))  # type: ignore[arg-type]
        counted: list[int] = []
        end = time.monotonic() + 120
        while len(counted) < 3 and not run.ended and time.monotonic() < end:
            judged, _ = run.take()
            counted += [one.cell for one in judged if one.label in (Label.TANK_TREADING, Label.FLIPPING)]
            time.sleep(0.05)
        log = ChangeLog(folder)
        for cell in counted[:3]:
            log.add(cell, STRUCK_OUT, "Anna")
        assert open_session(folder).run["status"] == "running"
        run.stop()
        assert run.wait(60)
    finally:
        worker.close()
    log.bring_report_up_to_date()
    session = open_session(folder)
    assert sorted(log.labels()) == sorted(counted[:3])
    assert session.fraction_by_hand is not None
    assert session.fraction_by_hand.n == session.fraction.n - 3
    assert "With 3 changes by hand by Anna" in shown(folder / "report.html")
    assert verify(folder).findings == []
