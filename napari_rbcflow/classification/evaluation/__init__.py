"""How good the weights are, on labelled sequences: `evaluate`.

`scores` holds the measures; `evaluate` also draws confusions and the worst errors, and makes the paper's
table of tank-treading shares.
"""

from napari_rbcflow.classification.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
