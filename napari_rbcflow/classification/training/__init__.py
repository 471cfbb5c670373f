"""From labelled sequences to weights with a card: `train`.

`augmenting` varies the sequences, `composed` adds tracks of our own tracker, `fitting` trains one network,
`model_card` sets thresholds and scores held-back judgements, and `train` combines them. `further` goes on
from weights with a laboratory's own tracks.
"""

from napari_rbcflow.classification.training.further import train_further
from napari_rbcflow.classification.training.train import (
    cross_validate,
    default_recipe,
    gather,
    hold_out,
    train,
)

__all__ = ["cross_validate", "default_recipe", "gather", "hold_out", "train", "train_further"]
