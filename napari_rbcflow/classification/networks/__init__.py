"""The networks, by name from `building`: a prepared sequence in, two logits out.

`blend` is what is shipped: what it learns to look at, beside measures made by hand (`handcrafted`).
`papers` has the two of Darrin et al. (Table 1).

All take ``(images, mask)`` - float32 of shape (tracks, K, 31, 31) and (tracks, K), 1 where there is a
frame - and give logits of shape (tracks, 2). Padded frames come at the end.
"""

from napari_rbcflow.classification.networks.building import MODELS, Model, build, n_parameters

__all__ = ["MODELS", "Model", "build", "n_parameters"]
