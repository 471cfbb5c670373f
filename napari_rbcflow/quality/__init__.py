"""How good a run is: measures of light, focus, flow and cells, and warnings in plain words.

`monitor` follows a run and holds its one list of warnings; `summary` gives the measures in words.
"""

from napari_rbcflow.quality.meter import SetFlow
from napari_rbcflow.quality.warning import RunWarning, Severity

__all__ = ["RunWarning", "SetFlow", "Severity"]
