"""Handcrafted features of a track: a second opinion beside the features that a network learns.

With a few hundred labelled cells, features that a microscopist would name (how bright the rings around the
centre are, how long the cell is and how it is turned, how sharp it is, how much of that changes) generalise
to another patient as well as learned ones, and fail on other cells.

Moments: Hu, IRE Transactions on Information Theory 8 (1962) 179. Sharpness from gradient and Laplacian:
Pertuz, Puig and Garcia, Pattern Recognition 46 (2013) 1415.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from napari_rbcflow.classification.networks.measures import AWAY_SHARES, SHARES, STEP_SHARES, TINY, maps
from napari_rbcflow.types import CROP_SIDE


class HandcraftedFeatures(nn.Module):
    """Features of a track, from the levelled images that the networks see; nothing in it is trained.

    Of every image: mean and spread of the light in eight rings; its first and second circular harmonics in
    the core and in the rim (asymmetry, and the twofold symmetry of a cell that turns); centroid, both axes,
    elongation and direction from the second moments of its contrast; sharpness inside and outside from
    gradient and Laplacian; extremes. Over time: deciles, quartiles and median, change from frame to frame,
    difference between first and last third; the same features of the mean image, how far the frames are from
    it, and how symmetric it is.
    """

    _light: Tensor
    _rings: Tensor
    _moments: Tensor
    _disc: Tensor
    _cell: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, pixels in maps().items():
            self.register_buffer(f"_{name}", torch.tensor(pixels), persistent=False)
        with torch.no_grad():
            blank = torch.zeros(1, 2, CROP_SIDE, CROP_SIDE)
            self.number = int(self(blank, torch.ones(1, 2)).shape[1])

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Features (tracks, `number`) of images (tracks, K, 31, 31) with a mask (tracks, K)."""
        if images.shape[1] == 1:  # one frame has no steps: add an empty one
            images, mask = (torch.cat([of, torch.zeros_like(of)], 1) for of in (images, mask))
        tracks, frames, height, width = images.shape
        # A row that pads a batch holds no frame: its first, empty one is used, so that all is finite.
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], 1)
        weight = mask[:, :, None]
        count = mask.sum(1)
        mean = (images * weight[..., None]).sum(1) / count[:, None, None]
        each = self._of_images(images.reshape(tracks * frames, height, width)).reshape(tracks, frames, -1)
        low, quarter, middle, upper, high = _quantiles(each, mask, SHARES)
        # The first step also counts if there is only one frame, so that there is always one.
        stepped = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 2:]], 1)
        moved = (each[:, 1:] - each[:, :-1]).abs() * mask[:, 1:, None]
        steps = _quantiles(moved, stepped, STEP_SHARES)
        away = (((images - mean[:, None]) ** 2 * self._disc).mean((2, 3)) + TINY).sqrt()[:, :, None]
        place = torch.arange(frames, device=images.device)[None]
        third = (count / 3).ceil()[:, None]
        first, last = (
            (each * part[:, :, None]).sum(1) / part.sum(1).clamp(min=1)[:, None]
            for part in ((place < third) * mask, (place >= count[:, None] - third) * mask)
        )
        mirrored = [(mean - mean.flip(over)).abs().mean((1, 2))[:, None] for over in ([1], [2], [1, 2])]
        return torch.cat(
            [
                *(middle, high - low, upper - quarter, low, high),
                *steps,
                (first - last).abs(),
                self._of_images(mean),
                *_quantiles(away, mask, AWAY_SHARES),
                *mirrored,
            ],
            1,
        )

    def _of_images(self, images: Tensor) -> Tensor:
        flat = images.reshape(len(images), -1)
        light = linear(flat, self._light)
        means, waves = light[:, : len(self._rings)], light[:, len(self._rings) :]
        spreads = (linear(flat * flat, self._rings) - means * means).clamp(min=1e-6).sqrt()
        heights = (waves.reshape(len(flat), -1, 2) ** 2).sum(2).clamp(min=TINY).sqrt()
        moments = linear(flat.abs(), self._moments)
        contrast = moments[:, :1] + 1e-3
        y, x = moments[:, 1:2] / contrast, moments[:, 2:3] / contrast
        yy, xx = moments[:, 3:4] / contrast - y**2, moments[:, 4:5] / contrast - x**2
        yx = moments[:, 5:6] / contrast - y * x
        size = (yy + xx) / 2 + 1e-3
        longer = (((yy - xx) / 2) ** 2 + yx**2).clamp(min=TINY).sqrt()
        down = images[:, 1:, :-1] - images[:, :-1, :-1]
        right = images[:, :-1, 1:] - images[:, :-1, :-1]
        slope = (down * down + right * right).clamp(min=TINY).sqrt()
        inside = self._disc[:-1, :-1]
        bend = (
            images[:, 1:-1, 2:]
            + images[:, 1:-1, :-2]
            + images[:, 2:, 1:-1]
            + images[:, :-2, 1:-1]
            - 4 * images[:, 1:-1, 1:-1]
        )
        cell = flat[:, self._cell]
        return torch.cat(
            [
                *(means, spreads, waves, heights, contrast / 100, y, x),
                *((size + longer).sqrt(), (size - longer).clamp(min=1e-3).sqrt(), longer / size),
                *((xx - yy) / 2 / size, yx / size, yx.abs() / size),
                (slope * inside).sum((1, 2))[:, None] / 100,
                (slope * (1 - inside)).sum((1, 2))[:, None] / 100,
                (bend * bend * self._disc[1:-1, 1:-1]).mean((1, 2)).clamp(min=TINY).sqrt()[:, None],
                *(cell.amax(1, keepdim=True), cell.amin(1, keepdim=True)),
            ],
            1,
        )


def _quantiles(values: Tensor, mask: Tensor, shares: tuple[float, ...]) -> list[Tensor]:
    """Quantiles over the frames of each track, (tracks, features) each."""
    ordered = values.masked_fill(mask[:, :, None] == 0, torch.inf).sort(1).values
    last = mask.sum(1) - 1
    out = []
    for share in shares:
        place = last * share
        below = place.floor()
        part = (place - below)[:, None]
        low, high = (
            ordered.gather(1, at.long()[:, None, None].expand(-1, 1, ordered.shape[2]))[:, 0]
            for at in (below, torch.minimum(below + 1, last))
        )
        out.append(low * (1 - part) + high * part)
    return out
