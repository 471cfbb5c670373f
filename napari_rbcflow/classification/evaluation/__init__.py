"""How good the weights are, on labelled sequences: `evaluate`, which also draws errors and makes Table 5.

`scores` holds the measures.
"""

from napari_rbcflow.classification.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
