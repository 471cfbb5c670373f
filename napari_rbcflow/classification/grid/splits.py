"""Training, validation and test data: whole acquisitions, never single sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_rbcflow.classification.dataset import (
    LabelledSequence,
    partition,
    read_all,
    refuse_unknown,
    refuse_unnamed,
)
from napari_rbcflow.classification.training.train import every_nth, has_both_classes, require_both_classes
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

_TEST_SHARE, _EVERY = 1 / 3, 4


@dataclass(frozen=True, eq=False)
class Split:
    """The sequences of a stage, and what a person should know of them."""

    train: list[LabelledSequence]
    validation: list[LabelledSequence]
    test: list[LabelledSequence]
    description: str  # what was held back
    most_frames: int  # a higher K gains nothing, because the data has no more frames
    notes: tuple[str, ...]


def make_splits(
    datasets: Sequence[Path], stages: Sequence[int], validation: Sequence[str] = (), test: Sequence[str] = ()
) -> dict[int, Split]:
    """Read datasets and split them for each stage.

    The data's own splits are kept. Otherwise the test set is the patient whose share is nearest to a third
    (or date, if there is one patient; or acquisition, if there is one date), and validation is every fourth
    acquisition of the rest, or what `validation` and `test` name. In stage 1, patients without unreliable
    sequences cannot be tested on, and strips that were sampled to 20 frames are left out if there are whole
    tracks, because their length alone would show that they are reliable.
    """
    parts = read_all(datasets)
    everything = [s for part in parts.values() for s in part]
    refuse_unknown((*validation, *test), everything)
    if (validation or test) and (parts["validation"] or parts["test"]):
        raise BadInput("classification.grid-has-own-splits")
    return {stage: _split(stage, parts, validation, test) for stage in stages}


def _split(
    stage: int, parts: dict[str, list[LabelledSequence]], validation: Sequence[str], test: Sequence[str]
) -> Split:
    of_stage = {name: [s for s in part if stage == 1 or s.reliable] for name, part in parts.items()}
    notes = []
    whole = [s for part in of_stage.values() for s in part if not s.sampled]
    strips = [s for part in of_stage.values() for s in part if s.sampled]
    if stage == 1 and strips and whole:
        frames = _longest(strips)
        notes.append(say("classification.grid-strips-left-out", strips=len(strips), frames=frames))
        of_stage = {name: [s for s in part if not s.sampled] for name, part in of_stage.items()}
        strips = []
    most = 10**6
    if strips:
        most = _longest(strips)
        notes.append(say("classification.grid-strips-frames", stage=stage, frames=most))
    train, chosen, held = of_stage["train"], of_stage["validation"], of_stage["test"]
    if chosen and held:
        description = say("classification.grid-split-given")
    elif chosen:
        description = say("classification.split-train-validation-given")
    else:
        refuse_unnamed(train)
        test_names: list[str] = []
        if not held:
            test_names = list(test) or [_choose_test(partition(train, validation)[1], stage)]
            held, train = partition(train, test_names)
        names = list(validation) or _choose_validation(train, stage)
        chosen, train = partition(train, names)
        names_of = {"validation": ", ".join(names), "test": ", ".join(test_names)}
        if test_names:
            description = say("classification.grid-split-chosen", **names_of)
        else:
            description = say("classification.grid-split-test-given", validation=names_of["validation"])
    for name, part in (("train", train), ("validation", chosen), ("test", held)):
        if part or name != "test":
            require_both_classes(part, stage, name, "classification.grid-class-missing")
    return Split(train, chosen, held, description, most, tuple(notes))


def _choose_test(sequences: Sequence[LabelledSequence], stage: int) -> str:
    for group in ("patient", "date", "acquisition"):
        sizes = Counter(str(getattr(s, group)) for s in sequences)
        possible = [
            name
            for name in sorted(sizes)
            if all(has_both_classes(side, stage) for side in partition(sequences, [name]))
        ]
        if possible:
            return min(possible, key=lambda name: abs(sizes[name] / len(sequences) - _TEST_SHARE))
    raise BadInput("classification.grid-no-test", stage=stage)


def _choose_validation(sequences: Sequence[LabelledSequence], stage: int) -> list[str]:
    if kept := every_nth(sequences, stage, _EVERY):
        return kept
    raise BadInput("classification.grid-no-validation", stage=stage)


def _longest(sequences: Sequence[LabelledSequence]) -> int:
    return max(len(s.crops) for s in sequences)
