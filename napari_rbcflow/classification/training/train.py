"""Train a stage, hold whole acquisitions back, and leave weights with a card."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_rbcflow.classification.dataset import (
    UNRELIABLE,
    LabelledSequence,
    read_all,
    refuse_unknown,
    refuse_unnamed,
)
from napari_rbcflow.classification.networks import MODELS, n_parameters
from napari_rbcflow.classification.sampling import Sampling
from napari_rbcflow.classification.training.composed import tracked_sequences
from napari_rbcflow.classification.training.fitting import Fitted, Recipe, fit, logits, targets
from napari_rbcflow.classification.training.model_card import count_labels, figures, make_card
from napari_rbcflow.classification.two_stage import choose_device
from napari_rbcflow.classification.weight_files import save_weights
from napari_rbcflow.errors import BadInput


def gather(
    datasets: Sequence[Path], stage: int, without: Sequence[str] = ()
) -> tuple[list[LabelledSequence], list[LabelledSequence], list[LabelledSequence]]:
    """Read datasets into train, validation and test; stage 2 takes the reliable sequences only.

    What belongs to a patient, date or acquisition named in `without` is left out.

    Raises
    ------
    BadInput
        For unreadable datasets, a sequence given twice, or a class that is missing.
    """
    read = read_all(datasets)
    refuse_unknown(without, [s for part in read.values() for s in part])
    parts = {
        name: [s for s in part if (stage == 1 or s.reliable) and not set(s.groups) & set(without)]
        for name, part in read.items()
    }
    require_both_classes(parts["train"], stage, "train on")
    return parts["train"], parts["validation"], parts["test"]


def has_both_classes(sequences: Sequence[LabelledSequence], stage: int) -> bool:
    """Whether both classes of a stage are there."""
    return len(set(targets(sequences, 1 if stage == 1 else 2).tolist())) == 2


def require_both_classes(sequences: Sequence[LabelledSequence], stage: int, what_for: str) -> None:
    """Refuse what lacks a class of a stage: nothing could be learnt or said of it."""
    if not has_both_classes(sequences, stage):
        wanted = "reliable and unreliable" if stage == 1 else "tank-treading and flipping"
        raise BadInput(f"Stage {stage} needs {wanted} sequences to {what_for}; one of them is lacking.")


def hold_out(
    sequences: Sequence[LabelledSequence], stage: int
) -> tuple[list[LabelledSequence], list[LabelledSequence]]:
    """Split off every fifth acquisition, or one of fewer than five: of both classes, as the rest.

    Raises
    ------
    BadInput
        Where there is only one, or none leaves both classes on either side.
    """
    refuse_unnamed(sequences)
    if len({s.acquisition for s in sequences}) == 1:
        raise BadInput("All sequences are of one acquisition; none could be held back for validation.")
    kept = every_nth(sequences, stage, 5)
    if not kept:
        raise BadInput(
            "No acquisition can be held back so that both classes are there to train on and to validate on; "
            "label more of each, or give train and validation folders."
        )
    held = [s for s in sequences if s.acquisition in kept]
    return [s for s in sequences if s.acquisition not in kept], held


def every_nth(sequences: Sequence[LabelledSequence], stage: int, n: int) -> list[str]:
    """Every n-th acquisition, or one of fewer, such that both sides hold both classes; empty if none does."""
    names = sorted({s.acquisition for s in sequences})
    for first in range(min(n, len(names))):
        kept = names[first::n]
        held = [s for s in sequences if s.acquisition in kept]
        if has_both_classes(held, stage) and has_both_classes(
            [s for s in sequences if s.acquisition not in kept], stage
        ):
            return kept
    return []


Group = Literal["acquisition", "date", "patient"]
Progress = Callable[[str], None]


def default_recipe(
    stage: int, model: str, sampling: Sampling | None = None, frames: int | None = None
) -> Recipe:
    """Return the recipe of a model: ours, or the paper's.

    Raises
    ------
    BadInput
        For a stage, model, sampling or K that does not exist.
    """
    if stage not in (1, 2):
        raise BadInput(f"There is no stage {stage}; choose 1 (reliable or not) or 2 (flipping or not).")
    if model not in MODELS:
        raise BadInput(f"There is no model {model!r}; choose one of {', '.join(MODELS)}.")
    if sampling not in (None, "uniform", "similarity"):
        raise BadInput(f"There is no sampling {sampling!r}; choose uniform or similarity.")
    if frames is not None and not 1 <= frames <= 200:
        raise BadInput(f"A sequence cannot be reduced to {frames} frames; choose between 1 and 200.")
    if model in ("blend", "small"):
        recipe = Recipe(
            1 if stage == 1 else 2,
            model=model,
            sampling="similarity" if stage == 1 else "uniform",
            epochs=20 if stage == 1 else 60,
            learning_rate=3e-3,
            decay=1e-4,
            spoiled=0.2 if stage == 1 else 0.0,
            switched=0.0 if stage == 1 else 0.25,
            # Experts judge no cell that they saw only briefly: its length is a part of what it is.
            shortened=0.0 if stage == 1 else 0.4,
            simulated=0.35 if stage == 1 else 0.0,
            composed=1.0,
            # What tells flipping from tank-treading lies inside the cell; what tells reliable, round it too.
            options={} if stage == 1 else {"widths": [8, 16, 32, 48], "strides": [1, 2, 1, 2], "side": 23},
        )
    else:
        recipe = Recipe(
            1 if stage == 1 else 2,
            model=model,
            sampling="uniform" if stage == 1 else "similarity",
            frames=50 if stage == 1 else 20,
            scale="grey",
            batch=64,
            epochs=30,
            schedule="triangular",
            balance="down" if model == "cnn" else ("both" if stage == 1 else "up"),
            redraw=False,
            augment=False,
            clip=0.0,
        )
    return replace(recipe, sampling=sampling or recipe.sampling, frames=frames or recipe.frames)


def train(
    datasets: Sequence[Path],
    out: Path,
    *,
    stage: int,
    model: str = "blend",
    sampling: Sampling | None = None,
    frames: int | None = None,
    epochs: int | None = None,
    seeds: Sequence[int] = (0,),
    folds: Group | None = None,
    device: str = "auto",
    recipe: Recipe | None = None,
    simulated: float | None = None,
    composed: float | None = None,
    keep_folds: bool = False,
    without: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a stage on datasets in the published layout and write its weights and card.

    Sequences are held back by acquisition, date or patient, never one by one. With `folds`, each group is
    judged by networks that have not seen it, threshold and calibration come from these judgements, and the
    weights are then trained on all of it for the same number of epochs. Without, the ``validation`` split
    (or every fifth acquisition, where there is none) chooses the best epoch, threshold and calibration.
    A ``test`` split is only ever scored.

    Parameters
    ----------
    datasets : sequence of Path
        Folders with ``dataset.csv`` and ``img``, with ``train``, ``validation`` and ``test`` of these, or
        with ``TankTreading`` and ``Flipping`` (strips of 20 frames: K above 20 gains nothing from them).
    out : Path
        Folder to make, before the training, with its parents; must not exist.
    stage : {1, 2}
    model : {'blend', 'small', 'c-rnn', 'cnn'}
    sampling : {'uniform', 'similarity'}, optional
        By default the model's own.
    frames, epochs : int, optional
    seeds : sequence of int
        One network each; their logits are averaged.
    folds : {'acquisition', 'date', 'patient'}, optional
    device : {'auto', 'cpu', 'cuda'}
    recipe : Recipe, optional
        Instead of the model's own; `model`, `sampling`, `frames` are then ignored.
    simulated : float, optional
        Sequences of the simulated chamber in an epoch, as a share of the real ones; by default the
        recipe's own. They are trained on, never judged on.
    composed : float, optional
        The same of tracks that our own tracker cuts out of composed movies (`training.composed`). Those of
        what is held back are judged, and set calibration and thresholds.
    keep_folds : bool
        With `folds`, also write the networks that have not seen each group, into ``without-GROUP`` in `out`,
        with calibration and thresholds from the other groups' judgements.
    without : sequence of str
        Patients (``BG``), dates (``BG1017``) or acquisitions (``BG1017_10s02``) that are left out of it
        all, threshold and calibration too: to be evaluated on afterwards.
    progress : callable, optional
        Called with a sentence now and then.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    BadInput
        For datasets or options that cannot be used, or a folder that cannot be made; nothing is left
        behind.
    """
    say: Progress = progress or (lambda _: None)
    recipe = recipe or default_recipe(stage, model, sampling, frames)
    if epochs is not None:
        if epochs < 1:
            raise BadInput("At least one epoch is needed.")
        recipe = replace(recipe, epochs=epochs)
    out = Path(out)
    if not datasets:
        raise BadInput("Give at least one dataset to train on.")
    if not seeds:
        raise BadInput("Give at least one seed.")
    if simulated is not None:
        if not 0 <= simulated <= 10:
            raise BadInput(f"The share of simulated sequences lies between 0 and 10, not {simulated:g}.")
        recipe = replace(recipe, simulated=simulated)
    if composed is not None:
        if not 0 <= composed <= 10:
            raise BadInput(f"The share of composed sequences lies between 0 and 10, not {composed:g}.")
        recipe = replace(recipe, composed=composed)
    with _made(out):
        where = choose_device(device)
        train_set, validation, test = gather(datasets, recipe.stage, without)
        drawn = draw_simulated(recipe, len(train_set) + len(validation))
        cut = draw_composed(recipe, [*train_set, *validation], datasets, without, say)
        fold_networks: dict[str, list[nn.Module]] = {}
        if folds is not None:
            train_set, validation = [*train_set, *validation], []
            held = cross_validate(
                *(train_set, recipe, seeds, folds, where, say, drawn), composed=cut, networks=fold_networks
            )
            judged, held_logits, split = [*train_set, *cut], held.mean(0), f"leave one {folds} out, then all"
            per_seed = held
            if keep_folds:
                _write_folds(out, recipe, judged, per_seed, seeds, folds, fold_networks)
        else:
            if not validation:
                train_set, validation = hold_out(train_set, recipe.stage)
                split = "every fifth acquisition held back for validation"
            else:
                split = "train and validation as given"
            require_both_classes(validation, recipe.stage, "validate on")
            validated = {s.patient for s in validation}
            cut = [s for s in cut if s.patient not in validated]
            judged, held_logits, per_seed = validation, np.zeros(0), np.zeros((0, 0))
        fitted: list[Fitted] = []
        for seed in seeds:
            fitted.append(fit(train_set, validation, recipe, seed, where, _epochs(say, seed), drawn, cut))
        if folds is None:
            per_seed = np.stack([logits(f.network, judged, recipe) for f in fitted])
            held_logits = per_seed.mean(0)
        card = make_card(recipe, judged, held_logits, per_seed, seeds, split)
        card["epochs_kept"] = [f.epoch for f in fitted]
        card["parameters"] = n_parameters(fitted[0].network)
        card["trained_on"] = count_labels(train_set)
        card["acquisitions"] = sorted({s.acquisition for s in (*train_set, *validation)})
        if without:
            card["without"] = sorted(without)
        if drawn:
            card["simulated"] = (
                f"{len(drawn)} sequences of the simulated chamber, {count_labels(drawn)}; never judged on"
            )
        if cut:
            card["composed"] = f"{len(cut)} tracks cut out of composed movies, {count_labels(cut)}"
        card["device"] = where.type if where.type == "cpu" else torch.cuda.get_device_name(where)
        if test:
            on_test = np.stack([logits(f.network, test, recipe) for f in fitted])
            card["figures"]["test split, never trained on"] = figures(
                recipe, test, on_test.mean(0), on_test, card["slope"], card["offset"], card["threshold"]
            )
        return save_weights(out / f"stage{recipe.stage}.safetensors", [f.network for f in fitted], card)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder before the work whose fruit it takes; with its parents it goes where that fails."""
    made: list[Path] = []
    try:
        try:
            if folder.exists():
                raise BadInput(f"{folder} exists already; give a folder that does not.")
            lacking = [folder]
            while not (parent := lacking[-1].parent).exists() and parent != lacking[-1]:
                lacking.append(parent)
            for one in reversed(lacking):
                one.mkdir()
                made.append(one)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else None
            raise BadInput(
                f"The folder {str(folder)!r} cannot be made ({said or error}); "
                "give one in a place that you may write to."
            ) from None
        yield
    except BaseException:
        if folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        for one in reversed(made):
            with contextlib.suppress(OSError):  # gone already, or others have put something there
                one.rmdir()
        raise


_ASLANT, _STRAIGHT = 0.75, 0.25
"""Greatest strength of light from a side in simulated sequences; share of those without."""
MOVIES = 4
"""Composed movies a patient."""


def draw_composed(
    recipe: Recipe,
    sequences: Sequence[LabelledSequence],
    datasets: Sequence[Path] = (),
    without: Sequence[str] = (),
    say: Progress = lambda _: None,
) -> list[LabelledSequence]:
    """Return tracks that our tracker cuts out of composed movies of these cells; none if not asked for.

    Stage 2 learns from reliable cells only; the unreliable ones of `datasets` flow beside them all the same.
    """
    if not recipe.composed:
        return []
    refuse_unnamed(sequences)
    if recipe.stage == 2 and datasets:
        parts = read_all(datasets)
        flowing = (*parts["train"], *parts["validation"])
        beside = [s for s in flowing if not s.reliable and not set(s.groups) & set(without)]
        sequences = [*sequences, *beside]
    found = tracked_sequences(sequences, seed=300, movies=MOVIES, progress=say)
    return [s for s in found if recipe.stage == 1 or s.reliable]


def _write_folds(
    out: Path,
    recipe: Recipe,
    judged: Sequence[LabelledSequence],
    per_seed: NDArray[np.float64],
    seeds: Sequence[int],
    group: Group,
    networks: Mapping[str, Sequence[nn.Module]],
) -> None:
    """Write the networks of each fold, with a card from the judgements of the other groups."""
    names = np.asarray([getattr(s, group) for s in judged])
    for name, members in networks.items():
        others = np.where(names == name, np.nan, per_seed)
        mean = others.mean(0)
        if not has_both_classes(
            [s for s, known in zip(judged, np.isfinite(mean), strict=True) if known], recipe.stage
        ):
            continue
        card = make_card(recipe, judged, mean, others, seeds, f"leave one {group} out, of all but {name}")
        card["without"] = [name]
        card["acquisitions"] = sorted(
            {s.acquisition for s, n in zip(judged, names, strict=True) if n != name}
        )
        folder = out / f"without-{name}"
        folder.mkdir()
        save_weights(folder / f"stage{recipe.stage}.safetensors", members, card)


def draw_simulated(recipe: Recipe, n_real: int) -> list[LabelledSequence]:
    """Return simulated sequences to train on, two to three for every real one; none if not asked for.

    Two thirds of them are unreliable, many of those just out of focus: what the real data has least of.
    Stage 2 takes the others. Of three in four the light comes in aslant, from any side.
    """
    if not recipe.simulated:
        return []
    from napari_rbcflow.simulation import simulate_sequences

    n = math.ceil(2.7 * n_real)
    return [
        LabelledSequence(f"SIMULATED_{i}", s.label, s.crops)
        for i, s in enumerate(
            simulate_sequences(n, seed=300, shares=(0.2, 0.15, 0.65), aslant=_ASLANT, straight=_STRAIGHT)
        )
        if recipe.stage == 1 or s.label != UNRELIABLE
    ]


def cross_validate(
    sequences: Sequence[LabelledSequence],
    recipe: Recipe,
    seeds: Sequence[int],
    group: Group,
    device: torch.device | None = None,
    progress: Progress | None = None,
    simulated: Sequence[LabelledSequence] = (),
    composed: Sequence[LabelledSequence] = (),
    networks: dict[str, list[nn.Module]] | None = None,
) -> NDArray[np.float64]:
    """Judge every sequence by networks that saw nothing of its group.

    In stage 1 the sequences of a group without unreliable ones are never judged: NaN. Its reliable composed
    tracks are: they tell whether as many are found of either kind. Of composed movies nothing is trained on
    that holds cells of a patient who is judged.

    Parameters
    ----------
    sequences, recipe, seeds, group, device, progress, simulated
        As in `train` and `fit`.
    composed : sequence of LabelledSequence
        Tracks of composed movies, judged as the sequences of their group are.
    networks : dict, optional
        Takes the networks that have not seen each group.

    Returns
    -------
    ndarray of float64, shape (seeds, sequences + composed)
        Logit differences.

    Raises
    ------
    BadInput
        Where no group can be held back.
    """
    refuse_unnamed(sequences)
    names = np.asarray([getattr(s, group) for s in sequences])
    labels = targets(sequences, recipe.stage)
    every = [*sequences, *composed]
    names_of_all = np.asarray([getattr(s, group) for s in every])
    cut = np.asarray([s.composed and s.reliable for s in every])
    out = np.full((len(seeds), len(every)), np.nan)
    for name in sorted(set(names.tolist())):
        rest = [s for s, n in zip(sequences, names, strict=True) if n != name]
        judged = names_of_all == name
        if recipe.stage == 1 and not (labels[names == name] == 0).any():
            judged &= cut
        held = [s for s, j in zip(every, judged, strict=True) if j]
        if not held or not has_both_classes(rest, recipe.stage):
            continue
        patients = {s.patient for s in held}
        flowed = [s for s in composed if s.patient not in patients]
        for row, seed in enumerate(seeds):
            network = fit(rest, [], recipe, seed, device, simulated=simulated, composed=flowed).network
            out[row, judged] = logits(network, held, recipe)
            if networks is not None:
                networks.setdefault(name, []).append(network)
            if progress is not None:
                progress(f"{group} {name} held back, seed {seed}: judged {len(held)} sequences")
    if not np.isfinite(out).any():
        raise BadInput(f"No {group} can be held back: without it one of the two classes is missing.")
    return out


def _epochs(say: Progress, seed: int) -> Callable[[int, int, float], None]:
    def tell(epoch: int, epochs: int, loss: float) -> None:
        say(f"seed {seed}: epoch {epoch} of {epochs}, loss {loss:.4f}")

    return tell
