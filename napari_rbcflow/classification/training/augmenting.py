"""Augmentation: the variety that training adds to few cells.

Before sampling, on raw crops: a cut in time, reversed time, a passing neighbour, JPEG as in the published
strips. After sampling, on levelled tensors: flips, shift, zoom, small rotation, jitter, contrast, light from
a side, a gradient of the light, noise. And sequences that no one could judge, made from reliable ones.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from napari_rbcflow.classification.dataset import LabelledSequence

LEAST_PART = 11  # no published reliable sequence is shorter


def vary(
    sequence: LabelledSequence,
    donors: Sequence[LabelledSequence],
    rng: np.random.Generator,
    switched: float = 0.0,
    shortened: float = 0.4,
) -> NDArray[np.uint8]:
    """Return one raw variant of a sequence, with the same label.

    `donors` are cells that may pass by. `switched` is the chance that another cell's frames are at one end,
    as the tracker of the published data left them: the experts judged the cell by the rest. `shortened` is
    the chance of a cut in time, 0 if the experts may have judged the cell by its length.
    """
    crops = sequence.crops
    if rng.random() < 0.5:
        crops = crops[::-1]
    if not sequence.sampled and len(crops) > LEAST_PART and sequence.label != 1 and rng.random() < shortened:
        # A flipping cell that is cut in time may no longer show its turn.
        n = int(rng.integers(max(LEAST_PART, len(crops) // 2), len(crops) + 1))
        start = int(rng.integers(0, len(crops) - n + 1))
        crops = crops[start : start + n]
    passes = 0.1 if sequence.composed else 0.3  # in a composed movie, others pass anyway
    if donors and rng.random() < passes:
        crops = with_neighbour(crops, donors[int(rng.integers(len(donors)))].crops, rng, share=0.12)
    if donors and rng.random() < switched:
        crops = ending_elsewhere(crops, donors[int(rng.integers(len(donors)))].crops, rng)
    if not sequence.sampled and rng.random() < 0.5:
        crops = through_jpeg(crops)
    return crops


def with_neighbour(
    crops: NDArray[np.uint8], donor: NDArray[np.uint8], rng: np.random.Generator, share: float
) -> NDArray[np.uint8]:
    """Paste another cell, drifting past the central one, into a `share` of the frames."""
    n, side, _ = crops.shape
    length = max(1, min(n, round(share * n * rng.uniform(0.5, 1.5))))
    start = int(rng.integers(0, n - length + 1))
    picture = donor[int(rng.integers(len(donor)))].astype(np.float32)
    picture -= np.median(picture)
    yy, xx = np.mgrid[:side, :side] - (side - 1) / 2
    picture *= np.clip((14.0 - np.hypot(yy, xx)) / 4.0, 0, 1)
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(9, 15)
    y, x = far * math.sin(angle), far * math.cos(angle)
    drift = 0.0 if share >= 0.5 else rng.uniform(-4, 4)
    out = crops.astype(np.float32)
    for step in range(length):
        shift = np.asarray([[1, 0, x + drift * (step - length / 2)], [0, 1, y]], np.float32)
        out[start + step] += cv2.warpAffine(picture, shift, (side, side))
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def ending_elsewhere(
    crops: NDArray[np.uint8], donor: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Replace up to a fifth of the frames, at one end, by another cell's."""
    n = min(max(1, round(len(crops) * rng.uniform(0.05, 0.2))), len(donor), len(crops) - 1)
    if n < 1:
        return crops
    start = int(rng.integers(0, len(donor) - n + 1))
    other = donor[start : start + n].astype(np.float32)
    other = np.clip(np.rint(other + np.median(crops) - np.median(other)), 0, 255).astype(np.uint8)
    return np.concatenate([other, crops[n:]] if rng.random() < 0.5 else [crops[:-n], other])


def through_jpeg(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give raw crops the artefacts of the published JPEG strips, so that these do not become a label."""
    n, side, _ = crops.shape
    strip = Image.fromarray(np.ascontiguousarray(crops.transpose(1, 0, 2).reshape(side, n * side)))
    file = io.BytesIO()
    strip.convert("RGB").save(file, "JPEG", quality=75)
    back = np.asarray(Image.open(file).convert("L"))
    return back.reshape(side, n, side).transpose(1, 0, 2)


def spoil(
    sequence: LabelledSequence, others: Sequence[LabelledSequence], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn a reliable sequence into one that no one could judge.

    Another cell's track from the middle on (a changed identity), a neighbour that stays, a blur like strong
    defocus, or a crop that shows only part of the cell.
    """
    crops = sequence.crops
    other = others[int(rng.integers(len(others)))].crops
    kind = rng.integers(4)
    if kind == 0:
        at = int(len(crops) * rng.uniform(0.35, 0.65))
        rest = other[: max(4, len(crops) - at)].astype(np.float32)
        rest += np.median(crops) - np.median(rest)
        return np.concatenate([crops[:at], np.clip(rest, 0, 255).astype(np.uint8)])
    if kind == 1:
        return with_neighbour(crops, other, rng, share=1.0)
    if kind == 2:
        sigma = rng.uniform(2.2, 4.0)
        gain = rng.uniform(1.5, 3.0)  # light gathers: defocused cells are not paler than sharp ones
        level = float(np.median(crops))
        soft = [cv2.GaussianBlur(c.astype(np.float32) - level, (0, 0), sigma) * gain + level for c in crops]
        noisy = np.stack(soft) + rng.normal(0, 1.6, crops.shape)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(8, 12)
    shift = np.asarray([[1, 0, far * math.cos(angle)], [0, 1, far * math.sin(angle)]], np.float32)
    return np.stack(
        [cv2.warpAffine(c, shift, c.shape[::-1], borderMode=cv2.BORDER_REFLECT_101) for c in crops]
    )


MOST_SHIFT_PX = 4.0  # a neighbour can shift a track's crops this far


def jiggle(images: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Vary levelled tracks: each in place, size, contrast, light and noise, and each frame by a jitter.

    Takes and returns images (tracks, K, 31, 31); padded frames are zero.
    """
    tracks, frames, height, _ = images.shape

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    def some(share: float) -> Tensor:
        return (torch.rand(tracks, generator=generator) < share).float()

    pixel = 2.0 / (height - 1)
    angle = uniform(tracks, low=-0.15, high=0.15)
    zoom = uniform(tracks, low=-0.1, high=0.1).exp()
    flip_y = torch.randint(0, 2, (tracks,), generator=generator) * 2.0 - 1
    flip_x = torch.randint(0, 2, (tracks,), generator=generator) * 2.0 - 1
    matrix = torch.zeros(tracks, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = zoom * angle.cos() * flip_x, -zoom * angle.sin() * flip_y
    matrix[:, 1, 0], matrix[:, 1, 1] = zoom * angle.sin() * flip_x, zoom * angle.cos() * flip_y
    # Most crops are within a pixel of the cell's centre; those that are not must be judged too.
    far = torch.where(some(0.3) > 0, MOST_SHIFT_PX, 2.0)[:, None]
    matrix[:, :, 2] = uniform(tracks, 2, low=-1, high=1) * far * pixel
    per_frame = matrix[:, None].repeat(1, frames, 1, 1)
    moved = (torch.rand(tracks, 1, generator=generator) < 0.5).float() * pixel
    per_frame[..., 2] += uniform(tracks, frames, 2, low=-0.8, high=0.8) * moved[:, :, None]
    flat = images.reshape(tracks * frames, 1, height, height)
    grid = functional.affine_grid(per_frame.reshape(-1, 2, 3), list(flat.shape), align_corners=True)
    out = functional.grid_sample(flat, grid, padding_mode="border", align_corners=True)
    out = out.reshape(images.shape)
    out = lit_from_a_side(
        out, uniform(tracks, low=0.0, high=1.2) * some(0.4), uniform(tracks, low=0.0, high=6.28)
    )
    out = out * uniform(tracks, low=-0.35, high=0.35).exp()[:, None, None, None]
    ramp = torch.linspace(-0.5, 0.5, height)
    slope = uniform(2, tracks, 1, 1, 1, low=-0.25, high=0.25)
    out = out + uniform(tracks, low=-0.1, high=0.1)[:, None, None, None]
    out = out + slope[0] * ramp[:, None] + slope[1] * ramp
    noise = uniform(tracks, low=0.0, high=0.25)[:, None, None, None]
    out = out + noise * torch.randn(out.shape, generator=generator)
    return out * mask[:, :, None, None]


def lit_from_a_side(images: Tensor, strength: Tensor, direction: Tensor) -> Tensor:
    """Add a relief, as from oblique light: a cell is bright on the side of the light and dark on the other.

    The gradient of the blurred contrast replaces that of a cell's thickness, which is unknown. `strength` is
    the ratio of the relief to the image, both root mean square, and `direction` is in radians, one each a
    track.
    """
    tracks, frames, height, _ = images.shape
    at = torch.arange(-4.0, 5.0)
    bell = torch.exp(-(at**2) / 8)
    bell = bell / bell.sum()
    slope = -at / 4 * bell
    flat = images.abs().reshape(tracks * frames, 1, height, height)

    def blurred(rows: Tensor, columns: Tensor) -> Tensor:
        padded = functional.pad(flat, (4, 4, 4, 4), mode="replicate")
        out = functional.conv2d(functional.conv2d(padded, rows.view(1, 1, 9, 1)), columns.view(1, 1, 1, 9))
        return out.reshape(images.shape)

    each = (tracks, 1, 1, 1)
    relief = direction.sin().view(each) * blurred(slope, bell) + direction.cos().view(each) * blurred(
        bell, slope
    )
    size, relief_size = ((of**2).mean((1, 2, 3), keepdim=True).sqrt() + 1e-6 for of in (images, relief))
    share = strength.view(each)
    return (1 - 0.35 * share) * images + share * size / relief_size * relief
