"""The networks, by name from `building`: a prepared sequence in, two logits out.

`blend` is what is shipped: learned features beside `handcrafted` ones. Beside it the two networks of
Darrin et al. (Table 1). `ensemble` holds the tensors of several, and makes PyTorch's modules of them.

All take ``(images, mask)``, float32 of shape (tracks, K, 31, 31) and (tracks, K), the mask 1 for frames and 0
for padding, which is at the end, and return logits of shape (tracks, 2).
"""

import lazy_loader

# __init__.pyi lists what others may use; each part is imported on first use: PyTorch only where a module is.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
