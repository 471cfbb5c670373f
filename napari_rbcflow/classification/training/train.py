"""Train a stage, hold back whole acquisitions, and write weights with a card."""

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
    partition,
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
from napari_rbcflow.sentences import say


def gather(
    datasets: Sequence[Path], stage: int, without: Sequence[str] = ()
) -> tuple[list[LabelledSequence], list[LabelledSequence], list[LabelledSequence]]:
    """Read datasets into train, validation and test; stage 2 takes only reliable sequences.

    Patients, dates and acquisitions named in `without` are left out.
    """
    read = read_all(datasets)
    refuse_unknown(without, [s for part in read.values() for s in part])
    parts = {
        name: [s for s in partition(part, without)[1] if stage == 1 or s.reliable]
        for name, part in read.items()
    }
    require_both_classes(parts["train"], stage, "train")
    return parts["train"], parts["validation"], parts["test"]


def has_both_classes(sequences: Sequence[LabelledSequence], stage: int) -> bool:
    return len(set(targets(sequences, stage).tolist())) == 2


def require_both_classes(
    sequences: Sequence[LabelledSequence], stage: int, part: str, key: str = "classification.class-missing"
) -> None:
    """Refuse the train, validation or test part if it lacks a class of the stage."""
    if not has_both_classes(sequences, stage):
        classes = say(f"classification.classes-of-stage{stage}")
        raise BadInput(key, stage=stage, classes=classes, part=say(f"classification.part-{part}"))


def hold_out(
    sequences: Sequence[LabelledSequence], stage: int
) -> tuple[list[LabelledSequence], list[LabelledSequence]]:
    """Split into training and every fifth acquisition (or one of fewer), both classes on either side."""
    refuse_unnamed(sequences)
    if len({s.acquisition for s in sequences}) == 1:
        raise BadInput("classification.only-one-acquisition")
    names = every_nth(sequences, stage, 5)
    if not names:
        raise BadInput("classification.cannot-hold-out")
    held, rest = partition(sequences, names)
    return rest, held


def every_nth(sequences: Sequence[LabelledSequence], stage: int, n: int) -> list[str]:
    """Every n-th acquisition, or one of fewer, with both classes on either side; empty if there is none."""
    names = sorted({s.acquisition for s in sequences})
    for first in range(min(n, len(names))):
        if all(has_both_classes(side, stage) for side in partition(sequences, names[first::n])):
            return names[first::n]
    return []


Group = Literal["acquisition", "date", "patient"]
Progress = Callable[[str], None]


def default_recipe(
    stage: int, model: str, sampling: Sampling | None = None, frames: int | None = None
) -> Recipe:
    """Return the recipe of a model: ours, or the paper's."""
    if stage not in (1, 2):
        raise BadInput("classification.no-stage", stage=stage)
    if model not in MODELS:
        raise BadInput("classification.no-model", model=model, models=", ".join(MODELS))
    if sampling not in (None, "uniform", "similarity"):
        raise BadInput("classification.no-sampling", sampling=sampling)
    if frames is not None and not 1 <= frames <= 200:
        raise BadInput("classification.frames-out-of-range", frames=frames)
    if model in ("blend", "small"):
        recipe = Recipe(
            stage,
            model=model,
            sampling="similarity" if stage == 1 else "uniform",
            epochs=20 if stage == 1 else 60,
            learning_rate=3e-3,
            decay=1e-4,
            spoiled=0.2 if stage == 1 else 0.0,
            switched=0.0 if stage == 1 else 0.25,
            # Experts do not judge cells that they saw only briefly: in stage 1, length is evidence.
            shortened=0.0 if stage == 1 else 0.4,
            simulated=0.35 if stage == 1 else 0.0,
            composed=1.0,
            # Stage 2 needs the inside of the cell; stage 1 also what is around it.
            options={} if stage == 1 else {"widths": [8, 16, 32, 48], "strides": [1, 2, 1, 2], "side": 23},
        )
    else:
        recipe = Recipe(
            stage,
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

    Sequences are held back by acquisition, date or patient, never one by one. With `folds`, networks that
    have not seen a group judge it, threshold and calibration come from these judgements, and the weights are
    then trained on all groups for the same number of epochs. Without, the ``validation`` split (or every
    fifth acquisition, if there is none) chooses the best epoch, threshold and calibration. A ``test`` split
    is only scored. Returns the card; BadInput leaves nothing behind.

    Parameters
    ----------
    datasets : sequence of Path
        Folders with ``dataset.csv`` and ``img``, with ``train``, ``validation`` and ``test`` of these, or
        with ``TankTreading`` and ``Flipping`` (strips of 20 frames: K above 20 gains nothing from them).
    out : Path
        Folder to create with its parents, before training; must not exist.
    seeds : sequence of int
        One network each; their logits are averaged.
    recipe : Recipe, optional
        Instead of the model's own; `model`, `sampling` and `frames` are then ignored.
    simulated, composed : float, optional
        Sequences of the simulated chamber, and tracks that our own tracker cuts out of composed movies
        (`training.composed`), in an epoch, as a share of the real ones; by default the recipe's own. The
        former are never judged on; of the latter, held-back cells set calibration and thresholds too.
    keep_folds : bool
        With `folds`, also write the networks that have not seen each group, into ``without-GROUP`` in `out`,
        with calibration and thresholds from the other groups' judgements.
    without : sequence of str
        Patients (``BG``), dates (``BG1017``) or acquisitions (``BG1017_10s02``) to leave out of everything,
        threshold and calibration too, and to evaluate on afterwards.
    progress : callable, optional
        Called with a sentence from time to time.
    """
    report: Progress = progress or (lambda _: None)
    recipe = recipe or default_recipe(stage, model, sampling, frames)
    if epochs is not None:
        if epochs < 1:
            raise BadInput("classification.no-epochs")
        recipe = replace(recipe, epochs=epochs)
    out = Path(out)
    if not datasets:
        raise BadInput("classification.no-dataset")
    if not seeds:
        raise BadInput("classification.no-seed")
    shares: dict[str, Any] = {"simulated": simulated, "composed": composed}
    shares = {setting: share for setting, share in shares.items() if share is not None}
    for setting, share in shares.items():
        if not 0 <= share <= 10:
            raise BadInput("classification.share-out-of-range", setting=setting, share=share)
    recipe = replace(recipe, **shares)
    with new_folder(out):
        where = torch.device(choose_device(device))
        train_set, validation, test = gather(datasets, recipe.stage, without)
        drawn = draw_simulated(recipe, len(train_set) + len(validation))
        cut = draw_composed(recipe, [*train_set, *validation], datasets, without, report)
        fold_networks: dict[str, list[nn.Module]] = {}
        if folds is not None:
            train_set, validation = [*train_set, *validation], []
            held = cross_validate(
                *(train_set, recipe, seeds, folds, where, report, drawn), composed=cut, networks=fold_networks
            )
            judged, held_logits, per_seed = [*train_set, *cut], held.mean(0), held
            split = say("classification.split-by-groups", group=folds)
            if keep_folds:
                _write_folds(out, recipe, judged, per_seed, seeds, folds, fold_networks)
        else:
            if not validation:
                train_set, validation = hold_out(train_set, recipe.stage)
                split = say("classification.split-every-fifth")
            else:
                split = say("classification.split-train-validation-given")
            require_both_classes(validation, recipe.stage, "validation")
            validated = {s.patient for s in validation}
            cut = [s for s in cut if s.patient not in validated]
            judged, held_logits, per_seed = validation, np.zeros(0), np.zeros((0, 0))
        fitted: list[Fitted] = []
        for seed in seeds:

            def epoch_done(epoch: int, epochs: int, loss: float, seed: int = seed) -> None:
                at = {"seed": seed, "epoch": epoch, "epochs": epochs}
                report(say("classification.epoch-done", **at, loss=loss))

            fitted.append(fit(train_set, validation, recipe, seed, where, epoch_done, drawn, cut))
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
            labels = count_labels(drawn)
            card["simulated"] = say("classification.card-simulated", sequences=len(drawn), labels=labels)
        if cut:
            labels = count_labels(cut)
            card["composed"] = say("classification.card-composed", tracks=len(cut), labels=labels)
        card["device"] = where.type if where.type == "cpu" else torch.cuda.get_device_name(where)
        if test:
            on_test = np.stack([logits(f.network, test, recipe) for f in fitted])
            card["figures"]["test split, never trained on"] = figures(
                recipe, test, on_test.mean(0), on_test, card["slope"], card["offset"], card["threshold"]
            )
        return save_weights(out / f"stage{recipe.stage}.safetensors", [f.network for f in fitted], card)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents before the work whose results it takes; remove them if that fails."""
    made: list[Path] = []
    try:
        try:
            if folder.exists():
                raise BadInput("ring.exists", path=folder)
            missing = [folder]
            while not (parent := missing[-1].parent).exists() and parent != missing[-1]:
                missing.append(parent)
            for one in reversed(missing):
                one.mkdir()
                made.append(one)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            raise BadInput("classification.folder-cannot-be-made", folder=str(folder), why=why) from None
        yield
    except BaseException:
        if folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        for one in reversed(made):
            with contextlib.suppress(OSError):  # already gone, or others have put something there
                one.rmdir()
        raise


# Greatest strength of oblique light in simulated sequences; share of those without it.
_ASLANT, _STRAIGHT = 0.75, 0.25
MOVIES = 4  # composed movies for each patient


def draw_composed(
    recipe: Recipe,
    sequences: Sequence[LabelledSequence],
    datasets: Sequence[Path],
    without: Sequence[str],
    progress: Progress,
) -> list[LabelledSequence]:
    """Return our tracker's tracks in composed movies of these cells, if the recipe uses them.

    Stage 2 learns only from reliable cells, but the unreliable ones of `datasets` flow beside them.
    """
    if not recipe.composed:
        return []
    refuse_unnamed(sequences)
    if recipe.stage == 2:
        parts = read_all(datasets)
        flowing = [*parts["train"], *parts["validation"]]
        sequences = [*sequences, *(s for s in partition(flowing, without)[1] if not s.reliable)]
    found = tracked_sequences(sequences, seed=300, movies=MOVIES, progress=progress)
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
    """Write the networks of each fold, with a card from the other groups' judgements."""
    names = np.asarray([getattr(s, group) for s in judged])
    for name, members in networks.items():
        others = np.where(names == name, np.nan, per_seed)
        mean = others.mean(0)
        if not has_both_classes(
            [s for s, known in zip(judged, np.isfinite(mean), strict=True) if known], recipe.stage
        ):
            continue
        split = say("classification.split-without-group", group=group, name=name)
        card = make_card(recipe, judged, mean, others, seeds, split)
        card["without"] = [name]
        card["acquisitions"] = sorted(
            {s.acquisition for s, n in zip(judged, names, strict=True) if n != name}
        )
        folder = out / f"without-{name}"
        folder.mkdir()
        save_weights(folder / f"stage{recipe.stage}.safetensors", members, card)


def draw_simulated(recipe: Recipe, n_real: int) -> list[LabelledSequence]:
    """Return simulated sequences to train on, two to three for each real one, if the recipe uses them.

    Two thirds are unreliable, many of those slightly out of focus: the real data has fewest of these. Stage 2
    takes the reliable ones. Three in four have oblique light, from any side.
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
    """Judge every sequence by networks that have not seen its group.

    Returns logit differences, float64 (seeds, sequences + composed). In stage 1, the sequences of a group
    without unreliable ones are not judged (NaN), but its reliable composed tracks are: they show whether
    equal shares of both kinds are found. No composed movie with cells of a judged patient is trained on.
    `networks` collects the networks that have not seen each group.
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
                at = {"group": group, "name": name, "seed": seed}
                progress(say("classification.group-judged", **at, sequences=len(held)))
    if not np.isfinite(out).any():
        raise BadInput("classification.cannot-hold-back-group", group=group)
    return out
