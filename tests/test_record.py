"""What is known of a run beside its frames: a laboratory's template, what is refused, what is kept."""

from __future__ import annotations

import json

import pytest
from factories import closed, some_pairs
from sentence_keys import refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.session import RecordTemplate, RunRecord, open_session, record_lines, verify

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
