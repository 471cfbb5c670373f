"""A run watched in a real napari window."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.estimate import StopRules
from napari_rbcflow.run import Run, RunSettings
from napari_rbcflow.sources.chamber import ChamberSettings, SimulatedChamber

pytest.importorskip("qtpy", reason="no Qt")
if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("no screen (install xvfb)", allow_module_level=True)


def test_cells_are_marked_and_the_fraction_shown_while_a_run_goes(
    tmp_path: Path, make_napari_viewer: Any, qtbot: Any
) -> None:
    from napari_rbcflow.widgets.live_view import LiveView

    settings = ChamberSettings(seed=2, height=548, width=688, cells_per_frame=40.0)
    run = Run(
        SimulatedChamber(settings),
        tmp_path / "s",
        RunSettings(stop=StopRules(seconds=6)),
        TwoStage.load("cpu"),
    )
    run.start()
    viewer = make_napari_viewer(show=True)
    view = LiveView(viewer, run)
    layers = list(viewer.layers)
    try:
        qtbot.waitUntil(lambda: run.progress().cells["tracked"] > 20, timeout=30_000)
        qtbot.waitUntil(lambda: len(np.unique(viewer.layers["not yet"].data, axis=0)) > 5, timeout=5_000)
        assert viewer.layers[0].data.max() > 0
        assert "tank-treading" in viewer.text_overlay.text or "no fraction" in viewer.text_overlay.text
        picture = viewer.screenshot(canvas_only=False, flash=False)
        assert picture.std() > 5
        if folder := os.environ.get("RBCFLOW_PICTURES"):
            from PIL import Image

            Image.fromarray(picture).save(Path(folder) / "live.png")
        assert run.wait(30)
        qtbot.waitUntil(lambda: "ended" in viewer.text_overlay.text, timeout=5_000)
    finally:
        run.stop()
        run.wait(10)
        view.close()
    assert list(viewer.layers) == layers
