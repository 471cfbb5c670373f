"""What is known of a run beside its frames: a laboratory's template, what is refused, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from factories import SOURCE, account_of, begin, closed, no_screen, some_pairs, swap_text
from sentence_keys import any_said, is_said, refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session import (
    ChangeLog,
    RecordTemplate,
    RunRecord,
    open_session,
    read_run,
    read_signatures,
    record_lines,
    sign,
    verify,
    write_run,
)

TEMPLATE = """
[fields.haematocrit_percent]
label = "Haematocrit"
unit = "%"
least = 5
most = 70
required = true
[fields.consent]
choices = ["yes", "no"]
[fields.operator]
required = true
"""


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "laboratory.toml"
    path.write_text(TEMPLATE, "utf-8")
    return path


def test_a_record_holds_what_was_given_in_its_fields_kinds(tmp_path, template):
    (tmp_path / "today.json").write_text(json.dumps({"medium_lot": "M 7", "temperature_c": 21.5}))
    texts = (str(tmp_path / "today.json"), "haematocrit_percent=41,5", "operator= A.  Smith ", "medium=")
    record = RunRecord.parse((*texts, "drawn=2026-03-02 08:15+01:00", "consent=yes"), template)
    assert record.values == {
        **{"operator": "A. Smith", "drawn": "2026-03-02T08:15+01:00", "medium_lot": "M 7"},
        **{"temperature_c": 21.5, "haematocrit_percent": 41.5, "consent": "yes"},
    }
    assert not record.missing
    folder = closed(tmp_path / "S", some_pairs(3), record=record)
    assert verify(folder).code == 0
    run = open_session(folder).run
    assert run["record"] == record.values
    assert ("Haematocrit (%)", "41.5") in record_lines(run)
    assert "Haematocrit (%)" in (folder / "report.html").read_text("utf-8")
    assert "Lot of the medium" in (folder / "report.html").read_text("utf-8")
    assert open_session(closed(tmp_path / "without", [])).run["record"] == {}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("temperature_c=warm", "record-not-a-number"),
        ("temperature_c=nan", "record-not-a-number"),
        ("temperature_c=3000", "record-outside"),
        ("haematocrit_percent=415", "record-outside"),
        ("drawn=this morning", "record-not-a-time"),
        ("drawn=0001-01-01", "record-not-a-time"),
        ("consent=perhaps", "record-not-a-choice"),
        ("operater=A. Smith", "record-unknown"),
        ("medium=" + "x" * 201, "record-too-long"),
        ("no-such-file.toml", "record-file-unreadable"),
    ],
)
def test_what_a_record_cannot_hold_is_refused_in_one_sentence(text, key, template):
    with refused(BadInput, f"session.{key}"):
        RunRecord.parse([text], template)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("fields = 3", "template-without-fields"),
        ("[fields.Haematocrit]", "template-name"),
        ("[fields.patient]", "template-name"),
        ("[fields.hb]\nrequired = 'yes'", "template-entry"),
        ("[fields.hb]\nkind = 'date'", "template-entry"),
        ("[fields.hb]\nneeded = true", "template-unknown-entry"),
        ("[fields.hb", "template-unreadable"),
    ],
)
def test_what_a_template_cannot_say_is_refused_in_one_sentence(text, key, tmp_path):
    (tmp_path / "t.toml").write_text(text)
    with refused(BadInput, f"session.{key}"):
        RecordTemplate.read(tmp_path / "t.toml")


def test_no_run_begins_without_a_field_that_is_required(tmp_path, template, rbcflow):
    movie = tmp_path / "m.tif"
    code, _, said = rbcflow(
        "analyze", movie, "-o", tmp_path / "S", "--record-template", template, "--record", "operator=A"
    )
    assert code == 2
    assert "Haematocrit (%)" in said
    assert "\n" not in said.strip()
    assert not (tmp_path / "S").exists()


# ---------------------------------------------------------------------- signed off


def test_a_report_is_signed_by_name_and_whatever_changes_afterwards_is_said(copied, rbcflow):
    code, out, _ = rbcflow("sign", copied, "--by", " A.  O'Smith <MD> ")
    assert code == 0
    assert is_said("session.signed-unchanged", out, by="A. O'Smith <MD>")
    assert verify(copied).findings == []
    page = (copied / "report.html").read_text("utf-8")
    assert is_said("session.signed-unchanged", page, by="A. O&#39;Smith &lt;MD&gt;")
    with refused(BadInput, "session.sign-again"):
        sign(copied, "a. o'smith <md>")
    sign(copied, "B. Jones")
    assert verify(copied).findings == []
    assert len(read_signatures(copied)) == 2
    cell = open_session(copied).cells.query("label == 'flipping'")["cell"].iloc[0]
    ChangeLog(copied).add(int(cell), "tank-treading", "C. Brown")
    findings = verify(copied).findings
    assert any_said("session.signed-changed", findings, by="B. Jones", names="changes.csv, report.html")
    assert is_said("session.signed-changed", (copied / "report.html").read_text("utf-8"), by="B. Jones")
    sign(copied, "B. Jones")  # the change was looked at
    assert verify(copied).findings == []


@pytest.mark.parametrize(("by", "key"), [("  ", "sign-by-nobody"), ("A. Smith", "sign-not-whole")])
def test_nobody_signs_what_is_not_whole_or_without_a_name(by, key, copied):
    if key == "sign-not-whole":
        swap_text(copied / "cells.csv", "flipping", "tank-treading")
    with refused(BadInput, f"session.{key}"):
        sign(copied, by)
    assert not (copied / "signatures.csv").exists()


def test_an_edited_signature_and_an_edited_report_are_found(copied):
    sign(copied, "A. Smith")
    sign(copied, "B. Jones")
    whole = (copied / "signatures.csv").read_text("utf-8")
    swap_text(copied / "signatures.csv", "A. Smith", "A. Smyth")
    assert any_said("session.signatures-edited", verify(copied).findings, by="B. Jones")
    first, _, second = whole.splitlines(keepends=True)
    (copied / "signatures.csv").write_text(first + second)  # a line removed
    assert any_said("session.signatures-edited", verify(copied).findings, by="B. Jones")
    (copied / "signatures.csv").write_text(whole)
    assert verify(copied).findings == []
    swap_text(copied / "report.html", "</h1>", " (edited)</h1>")
    assert any_said("session.signed-changed", verify(copied).findings, names="report.html")
    assert any_said("session.found-report-edited", verify(copied).findings)
    # With the last lines, or the whole file, gone, the page still shows who signed.
    for left in (first, None):
        (copied / "signatures.csv").unlink() if left is None else (copied / "signatures.csv").write_text(left)
        assert any_said("session.found-signature-behind", verify(copied).findings)


def test_what_was_edited_in_a_page_or_in_run_json_is_found_though_nobody_signed(copied):
    page, run = (copied / "report.html").read_bytes(), read_run(copied)
    for old, new in (("</h1>", " (edited)</h1>"), ("<p>", ""), ("%", "1 %"), ("</html>", "</html> ")):
        swap_text(copied / "report.html", old, new)
        assert verify(copied).findings == [say("session.found-report-edited")]
        (copied / "report.html").write_bytes(page)
    for entry in (
        {"patient": "XY"},
        {"sample": ""},
        {"record": {"operator": "Anna"}},
        {"ended": run["started"]},
    ):
        write_run(copied, run | entry)
        assert verify(copied).findings == [say("session.found-report-of-another-run")]
    # Who looks at it and signs answers for it.
    sign(copied, "A. Smith")
    assert verify(copied).findings == []
    # A page of an earlier version says nothing of it.
    swap_text(copied / "report.html", "<!-- Made from", "<!-- Made of")
    assert not any_said("session.found-report-edited", verify(copied).findings)


def test_a_sample_that_was_drawn_after_the_signature_is_told_on_the_page(copied):
    sign(copied, "A. Smith")
    open_session(copied).review_sample(5)
    (finding,) = verify(copied).findings
    assert is_said("session.signed-changed", finding, names="review.json")


def test_a_session_that_says_another_source_than_its_frames_is_not_whole(tmp_path):
    pairs, folder = some_pairs(40), tmp_path / "S"
    writer = begin(folder, source=replace(SOURCE, simulated=True))
    writer.keep(pairs)
    writer.close(account_of(pairs), "finished", "source-ended")
    assert verify(folder).findings == []
    run = read_run(folder)
    write_run(folder, run | {"simulated": False})
    assert any_said("session.found-simulated", verify(folder, only_number=True).findings)
    write_run(folder, run | {"parameters": run["parameters"] | {"pixel_size_um": 0.3}})
    assert any_said("session.found-other-source", verify(folder).findings, name="pixel_size_um", told=0.3)


def test_verify_shows_the_chain_from_frame_to_number(copied, rbcflow):
    code, out, _ = rbcflow("verify", copied)
    assert code == 0
    parts = ("frames", "crops", "tables", "number", "people", "report")
    assert all(is_said(f"session.chain-{part}", out) for part in parts)
    swap_text(copied / "cells.csv", "flipping", "tank-treading")
    code, out, _ = rbcflow("verify", copied)
    assert code == 1
    broken = [
        part for part in parts if say("session.chain-broken", part=say(f"session.chain-part-{part}")) in out
    ]
    assert broken == ["tables"] or broken == ["tables", "number"]


# ---------------------------------------------------------------------- in the forms


@pytest.mark.skipif(no_screen(), reason="no screen")
def test_the_forms_ask_for_what_the_template_requires(template, tmp_path, qtbot, take_picture):
    from napari_rbcflow.widgets.live_form import CameraForm
    from napari_rbcflow.widgets.movie_form import MovieForm
    from napari_rbcflow.widgets.remembered import Settings, save_settings

    save_settings(Settings(record_template=str(template), sessions_folder=tmp_path))
    for form in (CameraForm(), MovieForm(lambda: [])):
        record = form.record
        widget = form if isinstance(form, CameraForm) else form.container.native
        qtbot.addWidget(widget)
        widget.show()
        assert record.fields["operator"].isHidden() or not record.fold.isChecked()
        assert record.fold.text() == say("forms.record-to-fill", fields=2)
        with refused(BadInput, "session.record-missing"):
            form.run_settings()
        assert record.fold.isChecked()
        assert record.fields["operator"].isVisible()
        record.fields["operator"].setText("A. Smith")
        record.fields["haematocrit_percent"].setText("41,5")
        record.fields["drawn"].setText("2026-03-02 08:15")
        record.fields["consent"].setCurrentIndex(1)
        take_picture(widget, f"record-{type(form).__name__}.png")
        found = form.run_settings().run_record.values
        assert (found["operator"], found["haematocrit_percent"], found["consent"]) == (
            "A. Smith",
            41.5,
            "yes",
        )
        record.fold.setChecked(False)
        assert "A. Smith" in record.fold.text()
        patient = form.patient
        patient.setText("Next") if isinstance(form, CameraForm) else setattr(patient, "value", "Next")
        assert "drawn" not in form.run_settings().run_record.values
        # Another template, chosen meanwhile, keeps what is filled in.
        save_settings(Settings(sessions_folder=tmp_path))
        assert form.run_settings().run_record.values == {"operator": "A. Smith"}
        save_settings(Settings(record_template=str(template), sessions_folder=tmp_path))
