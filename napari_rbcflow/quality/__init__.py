"""How good a run is: measures of light, focus, flow and cells, and warnings in plain words.

`watch` is the door of a run, `of_run` that of whoever shows one; `lines` are the measures in words.
"""

from napari_rbcflow.quality.flow import SetFlow as SetFlow
from napari_rbcflow.quality.warning import RunWarning as RunWarning
from napari_rbcflow.quality.warning import Severity as Severity
