"""What to train on, what to choose with, what to test on: whole acquisitions, never single sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_rbcflow.classification.dataset import LabelledSequence, read_all, refuse_unknown, refuse_unnamed
from napari_rbcflow.classification.training.train import every_nth, has_both_classes
from napari_rbcflow.errors import BadInput

_TEST_SHARE, _EVERY = 1 / 3, 4


@dataclass(frozen=True, eq=False)
class Split:
    """The sequences of a stage.

    Attributes
    ----------
    train, validation, test : list of LabelledSequence
    said : str
        What was held back, in words.
    most_frames : int
        K beyond this gains nothing, for the data has no more frames.
    notes : tuple of str
        What a person should know of this data.
    """

    train: list[LabelledSequence]
    validation: list[LabelledSequence]
    test: list[LabelledSequence]
    said: str
    most_frames: int
    notes: tuple[str, ...]


def make_splits(
    datasets: Sequence[Path], stages: Sequence[int], validation: Sequence[str] = (), test: Sequence[str] = ()
) -> dict[int, Split]:
    """Read datasets and split them for each stage.

    Splits that the data brings are taken as they are. Otherwise the test set is the patient whose share is
    nearest to a third, or the date where there is one patient, or the acquisition where there is one date;
    validation is every fourth acquisition of the rest. In stage 1, patients without unreliable sequences
    cannot be tested on; and strips that were sampled to 20 frames are left out where there are whole
    tracks, for their length alone would tell that they are reliable.

    Parameters
    ----------
    datasets : sequence of Path
    stages : sequence of {1, 2}
    validation, test : sequence of str
        Patients (``BG``), dates (``BG1017``) or acquisitions (``BG1017_10s02``) to hold back instead.

    Raises
    ------
    BadInput
        For unreadable data, unknown names, or where a part would lack one of the two classes.
    """
    parts = read_all(datasets)
    everything = [s for part in parts.values() for s in part]
    refuse_unknown((*validation, *test), everything)
    if (validation or test) and (parts["validation"] or parts["test"]):
        raise BadInput("The data brings its own splits; leave out --validation and --test.")
    return {stage: _split(stage, parts, validation, test) for stage in stages}


def _split(
    stage: int, parts: dict[str, list[LabelledSequence]], validation: Sequence[str], test: Sequence[str]
) -> Split:
    of_stage = {name: [s for s in part if stage == 1 or s.reliable] for name, part in parts.items()}
    notes = []
    whole = [s for part in of_stage.values() for s in part if not s.sampled]
    strips = [s for part in of_stage.values() for s in part if s.sampled]
    if stage == 1 and strips and whole:
        notes.append(
            f"stage 1: {len(strips)} strips already sampled to {_longest(strips)} frames are left out, "
            "for their length alone would tell that they are reliable"
        )
        of_stage = {name: [s for s in part if not s.sampled] for name, part in of_stage.items()}
        strips = []
    most = 10**6
    if strips:
        most = _longest(strips)
        notes.append(
            f"stage {stage}: the strips hold {most} frames, so K above {most} gains nothing and is not run; "
            f"they were sampled by similarity, so at K = {most} both samplings give them the same frames"
        )
    train, chosen, held = of_stage["train"], of_stage["validation"], of_stage["test"]
    said = "train, validation and test as given" if held else "train and validation as given"
    if not chosen:
        refuse_unnamed(train)
        said_test = "test as given"
        if not held:
            names = list(test) or [
                _choose_test([s for s in train if not set(s.groups) & set(validation)], stage)
            ]
            held = [s for s in train if set(s.groups) & set(names)]
            train = [s for s in train if not set(s.groups) & set(names)]
            said_test = f"test: {', '.join(names)}"
        chosen_names = list(validation) or _choose_validation(train, stage)
        chosen = [s for s in train if set(s.groups) & set(chosen_names)]
        train = [s for s in train if not set(s.groups) & set(chosen_names)]
        said = f"validation: {', '.join(chosen_names)}; {said_test}; the rest to train on"
    classes = "reliable and unreliable" if stage == 1 else "tank-treading and flipping"
    for name, part in (("training", train), ("validation", chosen), ("test", held)):
        if not has_both_classes(part, stage) and not (name == "test" and not part):
            raise BadInput(
                f"Stage {stage}: {name} needs {classes} sequences and would lack one of them; "
                "hold back others with --validation and --test, or leave the stage out with --stage."
            )
    return Split(train, chosen, held, said, most, tuple(notes))


def _choose_test(sequences: Sequence[LabelledSequence], stage: int) -> str:
    for group in ("patient", "date", "acquisition"):
        sizes = Counter(str(getattr(s, group)) for s in sequences)
        possible = [
            name
            for name in sorted(sizes)
            if has_both_classes([s for s in sequences if getattr(s, group) == name], stage)
            and has_both_classes([s for s in sequences if getattr(s, group) != name], stage)
        ]
        if possible:
            return min(possible, key=lambda name: abs(sizes[name] / len(sequences) - _TEST_SHARE))
    raise BadInput(
        f"Stage {stage}: no patient, date or acquisition can be held back as a test without losing "
        "one of the two classes; give more data."
    )


def _choose_validation(sequences: Sequence[LabelledSequence], stage: int) -> list[str]:
    if kept := every_nth(sequences, stage, _EVERY):
        return kept
    raise BadInput(
        f"Stage {stage}: no acquisition can be held back for validation without losing one of the two "
        "classes; name some with --validation, or give more data."
    )


def _longest(sequences: Sequence[LabelledSequence]) -> int:
    return max(len(s.crops) for s in sequences)
