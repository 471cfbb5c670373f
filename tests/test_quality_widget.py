"""The quality of a run in napari: a row a measure, and warnings that stand with the number."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import no_screen, progress

from napari_rbcflow.quality import RunWarning, Severity
from napari_rbcflow.quality.summary import QualityLine
from napari_rbcflow.types import Verdict

if no_screen():
    pytest.skip("no screen (install xvfb)", allow_module_level=True)

from napari_rbcflow.widgets.result import ResultPanel
from napari_rbcflow.widgets.result_parts import QualityTable

LIGHT = QualityLine("light", "116 of 255", "100 to 150", None)
FLOW = QualityLine("shear rate, by the speed", "5.1 per s (406 µm/s)", "10 per s", Severity.WARNING)
DENSE = QualityLine("cells in 830 x 655 µm", "320", "100 to 250", Severity.NOTE)


def test_rows_come_go_and_change_without_being_made_anew(qtbot: Any) -> None:
    table = QualityTable()
    qtbot.addWidget(table)
    table.show_lines([LIGHT, FLOW, DENSE])
    made = list(table._rows)
    assert [row[0].text() for row in made] == ["✓", "⚠", "▲"]
    table.show_lines([replace(LIGHT, value="117 of 255")])
    assert table._rows == made
    assert made[0][2].text() == "117 of 255"
    assert [row[1].isVisibleTo(table) for row in made] == [True, False, False]
    table.clear()
    assert table.isHidden()
    assert table.lines == ()


def test_what_the_quality_says_stands_above_and_beside_the_number(qtbot: Any) -> None:
    panel = ResultPanel()
    qtbot.addWidget(panel)
    panel.resize(520, 1200)
    panel.show()
    slow = RunWarning("flow-slow", Severity.WARNING, "The cells flow too slowly: check the pump.")
    dense = RunWarning("cells-dense", Severity.NOTE, "Too many cells: dilute the sample further.")
    panel.show_progress(
        progress(warned=(slow, dense), quality=(LIGHT, FLOW, DENSE), verdict=Verdict.NO_RESULT),
        b"\x01" * 96 + b"\x00" * 24,
        ["Old lamp."],
    )
    assert panel.warnings.grave == (slow.sentence,)
    assert panel.notes.sentences == (dense.sentence, "Old lamp.")
    assert panel.verdict.verdict is Verdict.NO_RESULT
    assert panel.quality.lines == (LIGHT, FLOW, DENSE)
    if folder := os.environ.get("RBCFLOW_PICTURES"):
        panel.grab().save(str(Path(folder) / "quality.png"))
    at = progress(warned=(), quality=(LIGHT,), verdict=Verdict.PROVISIONAL)
    panel.show_progress(at, b"", [])
    panel.draw_now()
    assert panel.warnings.grave == ()
    assert panel.verdict.verdict is Verdict.PROVISIONAL


def test_of_long_names_patient_and_sample_are_both_seen(qtbot: Any) -> None:
    panel = ResultPanel()
    qtbot.addWidget(panel)
    panel.show_whose("Ada Lovelace 1815-12-10", "before transfusion 2")
    metrics, whole = panel.whose.fontMetrics(), panel.whose.text()
    room = metrics.horizontalAdvance(whole)
    assert panel.whose.shown(room) == whole
    shown = panel.whose.shown(3 * room // 4)
    patient, sample = shown.split(" · ")
    assert (patient[:3], patient[-2:], sample[:3], sample[-2:]) == ("Ada", "10", "bef", " 2")
    assert metrics.horizontalAdvance(shown) <= 3 * room // 4
