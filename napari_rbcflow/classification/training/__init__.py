"""From labelled sequences to weights with a card: `train`.

`augmenting` varies the sequences, `composed` adds what our own tracker cuts, `fitting` trains one network on
them, `train` holds sequences back and brings it all together, `model_card` sets thresholds and writes what
the weights can do.
"""

from napari_rbcflow.classification.training.train import (
    cross_validate,
    default_recipe,
    draw_simulated,
    gather,
    hold_out,
    train,
)

__all__ = ["cross_validate", "default_recipe", "draw_simulated", "gather", "hold_out", "train"]
