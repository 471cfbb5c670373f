"""Whether the sessions of a trend were measured and counted in the same way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from napari_rbcflow.errors import BadInput
from napari_rbcflow.trend.gathering import Record

Value = float | None
_Setting = tuple[str, str, str, Callable[[Record], Value]]
_SETTINGS: tuple[_Setting, ...] = (
    ("pixel sizes", " µm", "--pixel-size-um", lambda record: record.pixel_size_um),
    ("shear rates", " per s", "--shear-rate", lambda record: record.shear_rate_per_s),
    ("focus heights", " µm", "--focus-height-um", lambda record: record.focus_height_um),
)


def must_be_measured_alike(records: Sequence[Record]) -> None:
    """Refuse sessions whose numbers cannot be compared: how many cells tank-tread depends on these settings.

    Raises
    ------
    BadInput
        Naming the first that differs from most.
    """
    for what, unit, option, value_of in _SETTINGS:
        values = [value_of(record) for record in records]
        most = Counter(values).most_common(1)[0][0]
        for record, value in zip(records, values, strict=True):
            if not _alike(value, most):
                said, usual = ("none" if v is None else f"{v:g}{unit}" for v in (value, most))
                raise BadInput(
                    f"The sessions are of different {what}: {record.folder} has {said}, the others {usual}."
                    " Leave it out, or, where that was set wrongly, analyse its movie again with the right"
                    f" {option}."
                )


def notes_on_counting(used: Sequence[Record]) -> list[str]:
    """Return a sentence for each rule of counting that not all sessions share."""
    notes = []
    for words_of in (_least_length, _frames_judged):
        said = [words_of(record) for record in used]
        if len(set(said)) < 2:
            continue
        most = Counter(said).most_common(1)[0][0]
        odd = next(k for k, words in enumerate(said) if words != most)
        run = used[odd]
        notes.append(
            f"Not all runs count alike: {run.named} of {run.started:%Y-%m-%d} {said[odd]}, where most"
            f" others {most}. A difference may come from that and not from the patient."
        )
    return notes


def _least_length(record: Record) -> str:
    return f"counted only cells seen in {record.least_frames} frames or more"


def _frames_judged(record: Record) -> str:
    frames = (
        "without the frames in which another cell stood close by" if record.leave_out_intruded else "whole"
    )
    return f"judged each track {frames}"


def _alike(one: Value, other: Value) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-3)
