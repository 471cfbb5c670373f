"""How fast the gallery of cells opens and scrolls in napari, and what its movement costs.

xvfb-run -a -s "-screen 0 1366x768x24" python benchmarks/gallery.py SESSION
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_rbcflow.session.browse import ALL
from napari_rbcflow.widgets.movie import CELLS, MovieWidget

viewer = napari.Viewer()
viewer.window._qt_window.resize(1366, 768)
widget = MovieWidget(viewer)
viewer.window.add_dock_widget(widget, area="right", name="Movie")
app = QApplication.instance()
assert app is not None


def wait(seconds: float) -> float:
    """Let the window live; the share of one core that it takes."""
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        app.processEvents()
        time.sleep(0.005)
    return (time.process_time() - cpu) / (time.perf_counter() - began)


widget.show_session(Path(sys.argv[1]))
while widget.job.busy:
    wait(0.1)
widget.tabs.setCurrentIndex(CELLS)
cells, gallery = widget.cell_viewer, widget.cell_viewer.gallery
cells.kind.setCurrentText(ALL)
wait(1.0)
began = time.perf_counter()
cells.gallery_button.click()
app.processEvents()
print(f"{len(gallery.cells.rows)} cells open in {time.perf_counter() - began:.2f} s", end="; ")
while gallery._wanted or gallery.crops.reading:
    app.processEvents()
print(f"those in sight are read after {time.perf_counter() - began:.2f} s")
bar, painted, whole = gallery.verticalScrollBar(), [], []
for _ in range(100):
    began = time.perf_counter()
    bar.setValue(bar.value() + 150)
    app.processEvents()
    whole.append(1000 * (time.perf_counter() - began))
    cpu = time.thread_time()
    gallery.viewport().grab()
    painted.append(1000 * (time.thread_time() - cpu))
print(
    f"a step of scrolling: {np.median(whole):.0f} ms, of which the tiles' drawing {np.median(painted):.1f} ms"
)
print(f"cores: playing {wait(5):.3f}", end=", ")
cells.play.setChecked(False)
print(f"still {wait(5):.3f}")
viewer.close()
