"""How a label is made, and what was set."""

from __future__ import annotations

from html import escape

from napari_rbcflow.session.report.facts import Facts


def how(facts: Facts) -> str:
    """Return how a label is made, and by which networks."""
    models, by_hand = facts.run["models"], facts.by_hand

    def named(stage: str) -> str:
        model = models.get(stage, {})
        name, code = escape(str(model.get("name", "?"))), escape(str(model.get("hash", "?"))[:16])
        return f"<b>{name}</b> <code>{code}</code>"

    return (
        '<p class="how"><b>How a label is made.</b> Crops of 31 x 31 px around each cell, one a frame, go to'
        f" stage 1 ({named('stage1')}: reliable or not) and, if reliable, to stage 2 ({named('stage2')}:"
        f" tank-treading or flipping). {by_hand.how()} The code after a name is the"
        " beginning of the model file's hash.</p>"
    )


def settings(facts: Facts) -> str:
    """Return everything that was set, and the versions."""
    run = facts.run
    parameters = dict(run["parameters"])
    details = parameters.pop("source_details", {})
    parameters.pop("source_warnings", None)
    items = [(k, v) for k, v in {**parameters, **details}.items() if v not in (None, "", [], {})]
    said = " · ".join(f"{escape(str(k).replace('_', ' '))} <b>{escape(_plain(v))}</b>" for k, v in items)
    versions = " · ".join(f"{escape(str(k))} {escape(str(v))}" for k, v in run["versions"].items() if v)
    return f'<p class="small"><b>Settings.</b> {said}</p><p class="small"><b>Versions.</b> {versions}</p>'


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
