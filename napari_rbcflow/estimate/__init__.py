"""From labels to the number: the fraction, its intervals, and when there are enough cells."""

from napari_rbcflow.estimate.fraction import RunningFraction
from napari_rbcflow.estimate.intervals import clopper_pearson, jeffreys, wilson
from napari_rbcflow.estimate.reported import Said, said
from napari_rbcflow.estimate.stopping import StopRules

__all__ = ["RunningFraction", "Said", "StopRules", "clopper_pearson", "jeffreys", "said", "wilson"]
