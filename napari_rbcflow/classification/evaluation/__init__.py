"""How good the weights are, on labelled sequences: `evaluate`.

`scores` holds the measures, `pictures` draws confusions and the worst errors, `table5` is the paper's
table of tank-treading shares.
"""

from napari_rbcflow.classification.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
