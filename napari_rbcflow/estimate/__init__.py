"""From labels to the number: the fraction, its intervals, and when there are enough cells."""

from napari_rbcflow.estimate.fraction import RunningFraction, wilson
from napari_rbcflow.estimate.stopping import StopRules

__all__ = ["RunningFraction", "StopRules", "wilson"]
