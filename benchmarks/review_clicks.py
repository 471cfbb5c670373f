"""How long the program takes from a person's key to the next cell on the screen, in a check by eye.

    xvfb-run -a -s "-screen 0 1366x768x24" python benchmarks/review_clicks.py SESSION
        [--cells 60] [--look 1.5] [--size 1366x728] [--picture FILE.png]

Works on a copy of the session. Opens napari with the dock "Check cells", and a scripted person looks at each
cell for `--look` seconds and presses T, F or U with real keys. It needs a screen, or Xvfb.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_rbcflow.widgets import review_page

KEYS = (Qt.Key.Key_T, Qt.Key.Key_F, Qt.Key.Key_U)
PICTURE_AT = 24


def wait(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.002)


def main() -> None:
    """Check cells and print what it took, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("session", type=Path)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--look", type=float, default=1.5)
    parser.add_argument("--size", default="1366x728")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    painted: list[float] = []
    paint = review_page.LargePlayer.paintEvent

    def noted(player: Any, event: Any) -> None:
        paint(player, event)
        painted.append(time.perf_counter())

    review_page.LargePlayer.paintEvent = noted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(shutil.copytree(given.session, Path(made) / "S"))
        viewer = napari.Viewer(title="napari-rbcflow")
        viewer.window.resize(*map(int, given.size.split("x")))
        _, dock = viewer.window.add_plugin_dock_widget("napari-rbcflow", "Check cells")
        QApplication.setActiveWindow(viewer.window._qt_window)
        wait(1)
        dock.open_session(folder)
        dock.cells.value = given.cells
        dock.name.value = "scripted person"
        began = time.perf_counter()
        dock.start_button.click()
        opened_s = time.perf_counter() - began
        took_ms, key_ms = [], []
        rng = np.random.default_rng(0)
        while dock.pages.currentWidget() is dock.check:
            wait(given.look)
            if len(took_ms) == PICTURE_AT and given.picture:
                viewer.screenshot(str(given.picture), canvas_only=False, flash=False)
            painted.clear()
            pressed = time.perf_counter()
            QTest.keyClick(QApplication.focusWidget(), KEYS[int(rng.integers(3))])
            key_ms.append(1000 * (time.perf_counter() - pressed))
            while not painted and dock.pages.currentWidget() is dock.check:
                QApplication.processEvents()
            if painted:
                took_ms.append(1000 * (painted[0] - pressed))
        all_s = time.perf_counter() - began
        rows = len((folder / "reviews.csv").read_text().splitlines()) - 1
        viewer.close()
    p50, p95 = np.percentile(took_ms, [50, 95])
    print(
        json.dumps(
            {
                "cells": rows,
                "opened_ms": round(1000 * opened_s),
                "key_to_next_cell_ms": {
                    "p50": round(p50, 1),
                    "p95": round(p95, 1),
                    "max": round(max(took_ms), 1),
                },
                "of_that_answer_saved_ms": {"p50": round(float(np.median(key_ms)), 1)},
                "look_s": given.look,
                "all_s": round(all_s, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
