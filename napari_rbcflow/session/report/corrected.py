"""The corrected fraction beside the raw one, or why there is none, and on what it rests."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from napari_rbcflow.estimate.network_rates import NetworkRates
from napari_rbcflow.session.correcting import corrected_words, counts_words


def corrected(run: Mapping[str, Any]) -> str:
    """Return the paragraph under the raw number."""
    told = run.get("fraction_corrected") or {}
    words = escape(corrected_words(told))
    if told.get("estimate") is None:
        return (
            "<p class='corrected'>The interval covers the chance of counting only: it is not corrected for"
            f" errors of the networks{_precision(run)}.{' ' if words else ''}{words}</p>"
        )
    return f"<p class='corrected'><b>{words}</b>. The number above covers the chance of counting only.</p>"


def rests_on(run: Mapping[str, Any]) -> str:
    """Return, for the small print, on what the correction rests; empty where it was not worked out."""
    told = run.get("fraction_corrected") or {}
    counts = counts_words(run.get("models") or {})
    if not counts or not (told.get("reason") or told.get("estimate") is not None):
        return ""
    return (
        f"<p class='how'><b>How it is corrected.</b> {escape(counts)} The interval carries how little so few"
        f" labelled cells say{_another_patient(run['models'])}.</p>"
    )


def _another_patient(models: Mapping[str, Any]) -> str:
    """Whether the interval knows that patients differ."""
    if NetworkRates.of_models(models).by_patient:
        return ", and that another patient's rates may be others"
    return "; that another day or patient may be harder, it does not"


def _precision(run: Mapping[str, Any]) -> str:
    model = (run.get("models") or {}).get("stage1") or {}
    share, least = model.get("precision_in_real_life"), model.get("precision_in_real_life_at_least")
    if not isinstance(share, float):
        return ""
    to = f" (or up to {100 * (1 - least):.0f})" if isinstance(least, float) else ""
    return (
        f". Where 3.4 in 100 tracks are reliable, about {100 * (1 - share):.0f}{to} in 100 cells that stage 1"
        " lets through would not be"
    )
