"""What a form asks of the flow: how it was set, which the cells' speed is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from napari_rbcflow.errors import BadInput
from napari_rbcflow.quality import SetFlow

USUAL = SetFlow()
FLOW_FIELDS = {
    "shear_rate_per_s": ("Shear rate, 1/s", f"{USUAL.shear_rate_per_s:g}"),
    "focus_height_um": ("Focus height, µm", f"{USUAL.focus_height_um:g}"),
}
"""Each attribute of `SetFlow` that is asked for: what it is called, and what holds for an empty field."""
FLOW_HELP = {
    "shear_rate_per_s": "At the wall, as the pump is set. The cells' speed is compared with it.",
    "focus_height_um": "Travel of the objective from the wall to the focus. "
    "The cells' speed is compared with it.",
}


def flow_from(texts: Mapping[str, str], before: SetFlow = USUAL) -> SetFlow:
    """Return the flow that is written in a form.

    Parameters
    ----------
    texts : mapping of str to str
        By the names of `FLOW_FIELDS`; an empty one is the usual value.
    before : SetFlow
        For what a form does not ask.

    Raises
    ------
    BadInput
        For what is no number, or what no chamber has.
    """
    values = {}
    for name, (words, _) in FLOW_FIELDS.items():
        text = texts[name].strip().replace(",", ".")
        try:
            values[name] = float(text) if text else float(getattr(USUAL, name))
        except ValueError:
            raise BadInput(f"{words}: {text!r} is not a number; write one or leave it empty.") from None
    return replace(before, **values)


def texts_of(flow: SetFlow) -> dict[str, str]:
    """Return what stands in a form's fields for a flow; nothing where it is the usual one."""
    values = {name: float(getattr(flow, name)) for name in FLOW_FIELDS}
    return {name: "" if value == getattr(USUAL, name) else f"{value:g}" for name, value in values.items()}
