"""From labelled sequences to weights with a card: `train`.

`augmenting` varies the sequences, `fitting` trains one network on them at the pace of `learning_rates`,
`holding_back` says what is held back, `train` brings it all together, `model_card` writes what the weights
can do.
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
