"""Go on from trained weights with a laboratory's own labelled tracks: ``rbcflow train --from``.

A few hundred tracks are too few to train on alone, and enough to forget by. So the steps are few and small,
every weight is pulled back to where it began (L2-SP: Li, Grandvalet and Davoine, arXiv 1802.01483), and what
comes out lies half-way between the old weights and the new ones (Wortsman and others, arXiv 2109.01903, who
call it WiSE-FT). Calibration and thresholds stay the card's: so few tracks cannot set them anew.

First it is tried: of the tracks, runs (or, where there is one run only, fifths of its cells) are held back in
turn. Where networks that went on do not tell these apart better than the old ones, nothing is written.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_rbcflow.classification.dataset import LabelledSequence, refuse_unnamed
from napari_rbcflow.classification.evaluation.scores import auc, calibrate
from napari_rbcflow.classification.training.fitting import Recipe, fit, logits, targets
from napari_rbcflow.classification.training.model_card import count_labels, figures
from napari_rbcflow.classification.training.train import Progress, gather, has_both_classes, new_folder
from napari_rbcflow.classification.two_stage import choose_device
from napari_rbcflow.classification.weight_files import (
    TrainedStage,
    calibrated,
    load_weights,
    save_weights,
    shortness,
)
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.sentences import say

EPOCHS, RATE, ANCHOR = 10, 1e-3, 0.01
"""Chosen on patient BG with weights that had not seen BG (benchmarks/RESULTS.md)."""
OF_THE_WAY = 0.5  # share of the way from the old weights to the new ones
_PARTS = 5


class Tried(NamedTuple):
    """The old and the new networks on held-back tracks."""

    split: str
    loss_before: float
    loss: float
    gain: float
    error: float
    auc_before: float | None
    auc: float | None
    held_logits: NDArray[np.float64]
    per_member: NDArray[np.float64]

    @property
    def better(self) -> bool:
        """Whether the networks tell the kinds apart better, beyond chance, and say no worse how surely.

        The gain is compared with its own standard error, after each was calibrated on these tracks: else
        networks that only became less sure would seem better.
        """
        return self.gain > self.error and self.loss <= self.loss_before


def train_further(
    datasets: Sequence[Path],
    out: Path,
    *,
    start: Path,
    stage: int,
    epochs: int | None = None,
    without: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Go on from weights with labelled tracks, such as those that ``rbcflow export`` writes; return the card.

    `start` is a ``.safetensors`` file with its card. The rest is as in `train`, but ``validation`` counts
    among the tracks and ``test`` is left out. RunFailed where the new weights are no better on held-back
    tracks; nothing is left behind.
    """
    report: Progress = progress or (lambda _: None)
    old = load_weights(Path(start), stage)
    recipe = recipe_of(old, epochs or EPOCHS)
    with new_folder(Path(out)):
        where = torch.device(choose_device(device))
        train, validation, _ = gather(datasets, stage, without)
        tracks = [*train, *validation]
        refuse_unnamed(tracks)
        tried = _try(old, tracks, recipe, where, report)
        told = {"before": tried.loss_before, "after": tried.loss, "split": tried.split}
        if not tried.better:
            raise RunFailed("classification.further-no-better", **told)
        report(say("classification.further-better", **told))
        networks = go_on(old, tracks, recipe, where, report)
        card = _card(old, tracks, recipe, tried, start)
        card["device"] = where.type if where.type == "cpu" else torch.cuda.get_device_name(where)
        return save_weights(Path(out) / f"stage{stage}.safetensors", networks, card)


def recipe_of(old: TrainedStage, epochs: int) -> Recipe:
    told = dict(old.card["recipe"])
    known = {field.name for field in fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in told.items() if name in known})
    # Nothing but the given tracks: a simulated cell says nothing of this laboratory.
    return replace(
        recipe, epochs=epochs, learning_rate=RATE, anchor=ANCHOR, simulated=0.0, composed=0.0, decay=0.0
    )


def go_on(
    old: TrainedStage,
    tracks: Sequence[LabelledSequence],
    recipe: Recipe,
    device: torch.device,
    progress: Progress,
) -> list[nn.Module]:
    """Train each member further, and go back half of the way."""
    found = []
    for member, network in enumerate(old.networks):
        new = fit(tracks, [], recipe, member, device, start=network).network.cpu()
        found.append(_between(network, new))
        progress(say("classification.further-member", member=member + 1, members=len(old.networks)))
    return found


@torch.no_grad()
def _between(old: nn.Module, new: nn.Module) -> nn.Module:
    mixed = copy.deepcopy(new)
    for own, was, now in zip(mixed.parameters(), old.parameters(), new.parameters(), strict=True):
        own.copy_(was + OF_THE_WAY * (now - was))
    return mixed.eval()


def _try(
    old: TrainedStage,
    tracks: Sequence[LabelledSequence],
    recipe: Recipe,
    device: torch.device,
    progress: Progress,
) -> Tried:
    """Judge every track by networks that went on without its run."""
    parts, split = _parts(tracks, recipe.stage)
    held = np.full((len(old.networks), len(tracks)), np.nan)
    for part in sorted(set(parts.tolist())):
        own = parts == part
        rest = [track for track, is_held in zip(tracks, own, strict=True) if not is_held]
        if not has_both_classes(rest, recipe.stage):
            continue
        judged = [track for track, is_held in zip(tracks, own, strict=True) if is_held]
        for member, network in enumerate(go_on(old, rest, recipe, device, lambda _: None)):
            held[member, own] = logits(network, judged, recipe)
        progress(say("classification.further-tried", part=part, tracks=len(judged)))
    known = np.isfinite(held).all(0)
    before = np.stack([logits(network, tracks, recipe) for network in old.networks]).mean(0)
    truth = targets(tracks, recipe.stage)
    short = old.short * shortness([len(track.crops) for track in tracks], recipe.frames)
    mean = held.mean(0)
    if not known.any():
        raise RunFailed("classification.further-untried")

    def losses(of: NDArray[np.float64], slope: float, offset: float) -> NDArray[np.float64]:
        p = np.clip(calibrated(of[known], slope, offset), 1e-4, 1 - 1e-4)
        return np.asarray(-np.log(np.where(truth[known] == 1, p, 1 - p)), np.float64)

    was, now = (losses(of, *calibrate(truth[known], of[known])[:2]) for of in (before - short, mean - short))
    return Tried(
        split,
        float(losses(before - short, old.slope, old.offset).mean()),
        float(losses(mean - short, old.slope, old.offset).mean()),
        float((was - now).mean()),
        float((was - now).std() / np.sqrt(len(now))),
        auc(truth[known], (before - short)[known]),
        auc(truth[known], (mean - short)[known]),
        mean - short,
        held - short,
    )


def _parts(tracks: Sequence[LabelledSequence], stage: int) -> tuple[NDArray[np.str_], str]:
    """Return which tracks are held back together: those of a run, or fifths of the only run's cells."""
    names = np.array([track.acquisition for track in tracks])
    rest = [[t for t, n in zip(tracks, names, strict=True) if n != name] for name in set(names.tolist())]
    if len(rest) > 1 and any(has_both_classes(some, stage) for some in rest):
        return names, say("classification.split-further-runs")
    order = np.random.default_rng(0).permutation(len(tracks))
    labels = np.array([track.label for track in tracks])[order]
    parts = np.empty(len(tracks), int)
    for label in np.unique(labels):  # each part has its share of every label
        at = order[labels == label]
        parts[at] = np.arange(len(at)) % _PARTS
    return parts.astype(str), say("classification.split-further-cells")


def _card(
    old: TrainedStage,
    tracks: Sequence[LabelledSequence],
    recipe: Recipe,
    tried: Tried,
    start: Path,
) -> dict[str, Any]:
    """Return the old card with what is new: its counts are of the new networks on held-back tracks."""
    known = np.isfinite(tried.held_logits)
    judged = [track for track, k in zip(tracks, known, strict=True) if k]
    kept = (
        *("stage", "purpose", "data", "licence", "caution", "slope", "offset", "short", "threshold"),
        *("thresholds", "threshold_rule", "told_from", "parameters"),
    )
    card = {name: old.card[name] for name in kept if name in old.card}
    scores = figures(
        *(recipe, judged, tried.held_logits[known], tried.per_member[:, known]),
        *(old.slope, old.offset, old.threshold),
        thresholds=old.thresholds,
    )
    return card | {
        "name": f"{old.name}-further",
        "split": tried.split,
        "recipe": {field.name: getattr(recipe, field.name) for field in fields(recipe)},
        "seeds": list(range(len(old.networks))),
        "figures": {say("classification.figures-further", split=tried.split): scores},
        "trained_on": count_labels(tracks),
        "acquisitions": sorted({*old.card.get("acquisitions", []), *(track.acquisition for track in tracks)}),
        "started_from": {"name": old.name, "sha256": old.sha256, "file": Path(start).name},
        "held_back_log_loss": [tried.loss_before, tried.loss],
        "held_back_auc": [tried.auc_before, tried.auc],
    }
