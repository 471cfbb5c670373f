"""The same settings in napari's own File > Preferences, kept in step with ours.

napari keeps what is set there in a file of its own. What was last put there is remembered beside our
settings: where napari's value is another one now, a person has changed it there, and it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from napari_rbcflow.errors import BadInput

PLUGIN = "napari-rbcflow"
FIELDS: dict[str, tuple[str, ...]] = {
    "camera": (
        *("camera", "mm_path", "exposure_ms", "fps", "pixel_size_um"),
        *("binning", "roi", "pixel_type", "port", "flow"),
    ),
    "display": ("picture_mode", "picture_hz", "picture_delay_s", "show_unreliable"),
    "records": ("sessions_folder", "person"),
}
"""As in ``napari.yaml``, by category."""
_WHOLE = frozenset({"binning", "port"})
_NUMBERS = frozenset({"exposure_ms", "fps", "pixel_size_um"}) | _WHOLE
"""Texts there: a number could not be left empty, and napari 0.9.2 would show 0.605 um as 0.60 or 0.61."""
_log = logging.getLogger(__name__)


def changed_there(last_put: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a person has changed in the Preferences since `put_there`.

    Parameters
    ----------
    last_put : mapping
        What `put_there` returned; empty at the first time, when nothing counts as changed unless it
        differs from what ``napari.yaml`` declares.

    Raises
    ------
    BadInput
        For a text that is no number.
    """
    model = _model()
    if model is None:
        return {}
    changed = {}
    for category, names in FIELDS.items():
        part = getattr(model, category)
        for name in names:
            value = getattr(part, name)
            before = last_put.get(name, type(part).model_fields[name].default)
            if value != before:
                changed[name] = _number(name, value) if name in _NUMBERS else value
    return changed


def put_there(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Show our settings in the Preferences; return what stands there now."""
    model = _model()
    if model is None:
        return {}
    stands = {}
    for category, names in FIELDS.items():
        part = getattr(model, category)
        for name in names:
            value = settings[name]
            if name in _NUMBERS:
                value = "" if value is None else str(value)
            if getattr(part, name) != value:
                try:
                    setattr(part, name, value)
                except ValueError as error:  # beyond the bounds in napari.yaml: ours holds all the same
                    _log.info("%s is not shown in napari's preferences: %s", name, error)
            stands[name] = getattr(part, name)
    return stands


def _number(name: str, text: str) -> float | None:
    text = text.strip().replace(",", ".")
    try:
        return (int(text) if name in _WHOLE else float(text)) if text else None
    except ValueError:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise BadInput(f"{name} is {kind}, not {text!r}.") from None


def _model() -> Any | None:
    """Return napari's model of our settings; None where it has none, or another plugin's breaks it."""
    try:
        from napari.settings import get_plugin_settings

        model = get_plugin_settings(PLUGIN)
        for category, names in FIELDS.items():
            for name in names:
                getattr(getattr(model, category), name)
    except Exception as error:
        _log.info("no settings in napari's preferences: %s", error)
        return None
    return model
