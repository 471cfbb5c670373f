"""What is trained on and what is held back from it: whole acquisitions, both classes on either side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_rbcflow.classification.published import Sequence31, read_all, refuse_nameless, refuse_unknown
from napari_rbcflow.classification.training.fitting import targets
from napari_rbcflow.errors import BadInput


def gather(
    datasets: Sequence[Path], stage: int, without: Sequence[str] = ()
) -> tuple[list[Sequence31], list[Sequence31], list[Sequence31]]:
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
    need_both(parts["train"], stage, "train on")
    return parts["train"], parts["validation"], parts["test"]


def both(sequences: Sequence[Sequence31], stage: int) -> bool:
    """Whether both classes of a stage are there."""
    return len(set(targets(sequences, 1 if stage == 1 else 2).tolist())) == 2


def need_both(sequences: Sequence[Sequence31], stage: int, what_for: str) -> None:
    """Refuse what lacks a class of a stage: nothing could be learnt or said of it."""
    if not both(sequences, stage):
        wanted = "reliable and unreliable" if stage == 1 else "tank-treading and flipping"
        raise BadInput(f"Stage {stage} needs {wanted} sequences to {what_for}; one of them is lacking.")


def hold_out(sequences: Sequence[Sequence31], stage: int) -> tuple[list[Sequence31], list[Sequence31]]:
    """Split off every fifth acquisition, or one of fewer than five: of both classes, as the rest.

    Raises
    ------
    BadInput
        Where there is only one, or none leaves both classes on either side.
    """
    refuse_nameless(sequences)
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


def every_nth(sequences: Sequence[Sequence31], stage: int, n: int) -> list[str]:
    """Every n-th acquisition, or one of fewer, such that both sides hold both classes; empty if none does."""
    names = sorted({s.acquisition for s in sequences})
    for first in range(min(n, len(names))):
        kept = names[first::n]
        held = [s for s in sequences if s.acquisition in kept]
        if both(held, stage) and both([s for s in sequences if s.acquisition not in kept], stage):
            return kept
    return []
