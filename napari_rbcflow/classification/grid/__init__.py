"""The paper's Tables 3 and 4 anew: `run_grid` trains and scores their cells, `write_tables` lays them out.

`splits` says what is held back, `grid` trains cell by cell and tells how long it may still take, `folder`
keeps the cells and prints the tables.
"""

from napari_rbcflow.classification.grid.folder import FRAMES, MODELS, SAMPLINGS, Cell, write_tables
from napari_rbcflow.classification.grid.grid import run_grid

__all__ = ["FRAMES", "MODELS", "SAMPLINGS", "Cell", "run_grid", "write_tables"]
