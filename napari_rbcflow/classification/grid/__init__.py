"""The paper's Tables 3 and 4: `run_grid` trains and scores their cells, `write_tables` lays them out.

`splits` holds data back, `grid` trains cell by cell and estimates the time left, `folder` keeps the cells and
formats the tables.
"""

from napari_rbcflow.classification.grid.folder import FRAMES, MODELS, SAMPLINGS, Cell, write_tables
from napari_rbcflow.classification.grid.grid import run_grid

__all__ = ["FRAMES", "MODELS", "SAMPLINGS", "Cell", "run_grid", "write_tables"]
