"""The networks, by name from `building`: a prepared sequence in, two logits out.

`blend` is what is shipped: learned features beside `handcrafted` ones. `papers` has the two networks of
Darrin et al. (Table 1).

All take ``(images, mask)``, float32 of shape (tracks, K, 31, 31) and (tracks, K), the mask 1 for frames and 0
for padding, which is at the end, and return logits of shape (tracks, 2).
"""

from napari_rbcflow.classification.networks.building import MODELS, Model, build, n_parameters

__all__ = ["MODELS", "Model", "build", "n_parameters"]
