"""Weight files: safetensors, and a JSON card with their hash and the counts behind their rates.

Probabilities are calibrated as in Platt, Advances in Large Margin Classifiers (1999) 61.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from napari_rbcflow.classification.networks import Ensemble
from napari_rbcflow.classification.sampling import Sampling, Scale
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say

if TYPE_CHECKING:
    from torch import nn

FOUND = {"tank_treading_found": "tank-treading found, of", "flipping_found": "flipping found, of"}
LET_THROUGH = "let through, of"
LET_THROUGH_AS = "let through, as tank-treading, flipping, not told"
TOLD = {"tank_treading_told": "tank-treading told, of", "flipping_told": "flipping told, of"}
RIGHT = {
    "tank_treading_right": "tank-treading right, of those told",
    "flipping_right": "flipping right, of those told",
}
GROUPS = {"by patient": "patient", "by day": "date", "by run": "acquisition"}
"""How a card groups its counts, and the attribute of `LabelledSequence` that names the group."""
_SHARES = "tank-treading share: true, and judged of those told"
_ACCURACY = "balanced accuracy of those told"


def held_back_counts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's counts of held-back cells, hits and cells each, by the names of `estimate.rates`.

    Under ``by_patient`` the same for each patient. What the card does not say is left out; nothing raises.
    For an old card without stage 2's counts, they follow from its shares: only one set of integers fits.
    """
    for figures in dict(card.get("figures") or {}).values():
        wanted = FOUND if card.get("stage") == 1 else TOLD | RIGHT
        found = {name: list(figures[key]) for name, key in wanted.items() if _counts(figures.get(key))}
        if card.get("stage") == 1:
            found |= _let_through(figures)
        elif len(found) == len(TOLD):
            found |= _right(figures, found)
        if found:
            patients = _by_patient(figures.get("by patient"), int(card.get("stage") or 0))
            return found | ({"by_patient": patients} if patients else {})
    return {}


def _by_patient(groups: Any, stage: int) -> dict[str, dict[str, list[int]]]:
    wanted = FOUND | {"let_through": LET_THROUGH} if stage == 1 else TOLD | RIGHT
    found = {
        str(patient): {name: list(own[key]) for name, key in wanted.items() if _counts(own.get(key))}
        for patient, own in (groups.items() if isinstance(groups, dict) else ())
        if isinstance(own, dict)
    }
    return {patient: own for patient, own in found.items() if own}


def _let_through(figures: Mapping[str, Any]) -> dict[str, list[int]]:
    found = {}
    wrong, right = figures.get("FP"), figures.get("TN")
    if _counts(figures.get(LET_THROUGH)):
        found["let_through"] = list(figures[LET_THROUGH])
    elif _counts([wrong, right]):
        found["let_through"] = [int(wrong or 0), int(wrong or 0) + int(right or 0)]
    if _counts(figures.get(LET_THROUGH_AS), 3):
        found["let_through_as"] = list(figures[LET_THROUGH_AS])
    return found


def _right(figures: Mapping[str, Any], told: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Solve for the cells judged right from their balanced accuracy and the share called tank-treading."""
    tank, flip = told["tank_treading_told"][0], told["flipping_told"][0]
    accuracy, shares = figures.get(_ACCURACY), figures.get(_SHARES)
    if not (tank and flip and isinstance(accuracy, float) and isinstance(shares, list) and len(shares) == 2):
        return {}
    if not isinstance(shares[1], float):
        return {}
    called = shares[1] * (tank + flip)
    flip_right = (2 * accuracy - (called - flip) / tank) / (1 / tank + 1 / flip)
    tank_right = called - flip + flip_right
    found = {"tank_treading_right": [round(tank_right), tank], "flipping_right": [round(flip_right), flip]}
    close = abs(tank_right - round(tank_right)) + abs(flip_right - round(flip_right)) < 1e-6
    return found if close and all(0 <= hits <= of for hits, of in found.values()) else {}


def _counts(value: Any, n: int = 2) -> bool:
    if not isinstance(value, list) or len(value) != n:
        return False
    return all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in value)


SHIPPED = Path(__file__).parent / "weights"
_MOST_THRESHOLD = 1.0001  # no probability reaches it: training's way to let nothing pass
_MOST_MEMBERS, _MOST_SLOPE, _MOST_SHORT = 1000, 1e5, 1e3
_SEALED = ("stage", "members", "sha256", "recipe", "slope", "offset", "threshold", "told_from")
_SEALED_IF_THERE = ("thresholds", "short")  # older cards were sealed without them


@dataclass(frozen=True, eq=False)
class TrainedStage:
    """One stage, ready to judge: networks whose logits are averaged, calibration and threshold.

    The probability of the positive class (reliable; flipping) is
    1 / (1 + exp(-(slope * mean logit difference + offset))).
    """

    name: str
    stage: int
    sha256: str  # of the safetensors file
    networks: Sequence[nn.Module]  # in evaluation mode
    sampling: Sampling
    frames: int  # K
    scale: Scale
    slope: float
    offset: float
    threshold: float  # positive if the rounded probability is at least this
    told_from: float  # a sequence is undecided if its likelier class is less probable than this
    card: Mapping[str, Any]  # the whole JSON
    # Of stage 1: for tracks that stage 2 calls tank-treading, and flipping. The lower one is `threshold`.
    thresholds: tuple[float, float] | None = None
    # Subtracted from the logit difference in proportion to the missing share of `frames`: experts do not
    # judge cells that they saw only briefly.
    short: float = 0.0

    @property
    def edges(self) -> tuple[float, ...]:
        """The probabilities at which a label changes."""
        if self.told_from <= 0.5:
            return (self.threshold, *(t for t in self.thresholds or () if t != self.threshold))
        return (round(1 - self.told_from, 4), self.threshold, self.told_from)

    def told(self, p: float) -> bool:
        """Whether a rounded probability decides the class; if not, a label would be a guess."""
        return bool(tells(np.asarray(p), self.told_from))

    def passes(self, p: float, *, flipping: bool) -> bool:
        """Whether a rounded probability of stage 1 passes for a track of the kind that stage 2 found."""
        return p >= (self.thresholds[flipping] if self.thresholds else self.threshold)

    def probability(self, logits: NDArray[np.float64], frames: Sequence[int]) -> NDArray[np.float64]:
        """Calibrate mean logit differences of sequences with so many frames, rounded to four decimals."""
        return calibrated(logits - self.short * shortness(frames, self.frames), self.slope, self.offset)


def shortness(frames: Sequence[int], enough: int) -> NDArray[np.float64]:
    """The share of `enough` frames that each sequence lacks, 0 to 1."""
    missing: NDArray[np.float64] = np.maximum(0.0, 1.0 - np.asarray(frames, np.float64) / enough)
    return missing


def tells(p: NDArray[np.float64], told_from: float) -> NDArray[np.bool_]:
    """Whether rounded probabilities decide the class: that of the likelier class is at least `told_from`."""
    told: NDArray[np.bool_] = np.round(np.maximum(p, 1 - p), 4) >= told_from
    return told


def calibrated(logits: NDArray[np.float64], slope: float, offset: float) -> NDArray[np.float64]:
    """Turn logit differences into probabilities, rounded to four decimals."""
    scaled = np.clip(slope * np.asarray(logits, np.float64) + offset, -60, 60)
    return np.round(1.0 / (1.0 + np.exp(-scaled)), 4)


def load_weights(path: Path, stage: int) -> TrainedStage:
    """Read ``NAME.safetensors`` and its card ``NAME.json``; refuse what is damaged or does not fit."""
    path = Path(path)
    card_path = path.with_suffix(".json")
    if not path.is_file():
        raise BadInput("classification.weights-missing", path=path)
    if path.suffix.lower() != ".safetensors":
        raise BadInput("classification.weights-not-safetensors", path=path)
    if not card_path.is_file():
        raise BadInput("classification.weights-without-card", path=path, card=card_path.name)
    try:
        data, written = path.read_bytes(), card_path.read_bytes()
    except OSError as error:
        raise BadInput("classification.weights-unreadable", path=path, why=error.strerror or error) from error
    try:
        card = json.loads(written.decode("utf-8"), parse_constant=_not_a_number)
        recipe = card["recipe"]
        wanted, of_stage, members = str(card["sha256"]), int(card["stage"]), int(card["members"])
        model, frames, options = str(recipe["model"]), int(recipe["frames"]), dict(recipe["options"])
        sampling, scale = recipe["sampling"], recipe["scale"]
        slope, offset, threshold = (float(card[key]) for key in ("slope", "offset", "threshold"))
        told_from, short = float(card.get("told_from", 0.5)), float(card.get("short", 0.0))
        thresholds = None
        if card.get("thresholds") is not None:
            of_tank, of_flip = map(float, card["thresholds"])
            thresholds = of_tank, of_flip
        if not all(isinstance(figures, Mapping) for figures in dict(card.get("figures", {})).values()):
            raise ValueError(say("classification.card-bad-figures"))
        acquisitions = card.get("acquisitions", [])
        if not (isinstance(acquisitions, list) and all(isinstance(name, str) for name in acquisitions)):
            raise ValueError(say("classification.card-bad-acquisitions"))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = error if type(error) is ValueError else repr(error)
        raise BadInput("classification.card-unreadable", card=card_path, why=why) from error
    if sampling not in ("uniform", "similarity") or scale not in ("level", "grey") or not 1 <= frames <= 1000:
        raise BadInput("classification.card-unknown-recipe", card=card_path)
    if of_stage != stage:
        raise BadInput("classification.weights-of-other-stage", path=path, found=of_stage, wanted=stage)
    undecided = stage == 2 and told_from > 0.5
    possible = {
        "slope": 0 <= slope <= _MOST_SLOPE,
        "offset": math.isfinite(offset),
        "short": 0 <= short <= _MOST_SHORT,
        "thresholds": thresholds is None or min(thresholds) == threshold,
        "told_from": 0.5 <= told_from <= 1,
        "threshold": 0 <= threshold <= _MOST_THRESHOLD
        and (not undecided or 1 - told_from <= threshold <= told_from),
        "members": 1 <= members <= _MOST_MEMBERS,
    }
    for entry, fits in possible.items():
        if not fits:
            raise BadInput(
                "classification.card-impossible-value", card=card_path, entry=entry, value=card[entry]
            )
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise BadInput("classification.weights-damaged", path=path)
    if card.get("seal") != seal(card):
        raise BadInput("classification.card-changed", card=card_path)
    networks = Ensemble(model, frames, options, _tensors(path, data, members))
    if (
        path.parent != SHIPPED
    ):  # those were tried when they were shipped, and the seal says that they are they
        _try(networks, path)
    name = str(card.get("name", path.stem))
    return TrainedStage(
        *(name, stage, found, networks, sampling, frames, scale, slope, offset, threshold, told_from, card),
        thresholds=thresholds,
        short=short,
    )


def _tensors(path: Path, data: bytes, members: int) -> list[dict[str, NDArray[Any]]]:
    """Return the tensors of each member, all of them finite and none left over."""
    try:
        state = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadInput("classification.weights-truncated", path=path, why=error) from error
    tensors: list[dict[str, NDArray[Any]]] = [{} for _ in range(members)]
    for name, tensor in state.items():
        if not np.isfinite(tensor).all():
            raise BadInput("classification.weights-not-finite", path=path, tensor=name)
        member, _, key = name.partition(".")
        if not (member.isdecimal() and int(member) < members):
            why = say("classification.weights-tensor-left-over", tensor=name, members=members)
            raise BadInput("classification.weights-do-not-fit", path=path, why=why)
        tensors[int(member)][key] = tensor
    return tensors


def _try(networks: Ensemble, path: Path) -> None:
    """Make the modules of a file that may be anybody's: its tensors may fit no network."""
    try:
        networks[0]
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        why = str(error).splitlines()[0]
        raise BadInput("classification.weights-do-not-fit", path=path, why=why) from error


def save_weights(path: Path, networks: Sequence[nn.Module], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write networks of one shape and their card (``.json``, and ``.md`` to read).

    The card needs name, stage, recipe, slope, offset and threshold; it is returned with its hash.
    """
    import torch
    from safetensors.torch import save

    state = {
        f"{member}.{key}": value.detach().cpu().contiguous()
        for member, network in enumerate(networks)
        for key, value in network.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    data = save(state)
    path.write_bytes(data)
    whole = dict(card) | {
        "members": len(networks),
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    whole["seal"] = seal(whole)
    path.with_suffix(".json").write_text(
        json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    path.with_suffix(".md").write_text(as_text(whole), encoding="utf-8")
    return whole


def seal(card: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a card that decides a label, so that a changed threshold is noticed."""
    keys = (*_SEALED, *(key for key in _SEALED_IF_THERE if key in card))
    text = json.dumps({key: card.get(key) for key in keys}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _not_a_number(value: str) -> float:
    raise ValueError(say("classification.card-not-a-number", value=value))


def as_text(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    lines = [f"# {card['name']}", ""]
    for key in ("purpose", "data", "licence", "split", "caution", "simulated", "failures", "command"):
        if key in card:
            lines += [f"**{key.capitalize()}.** {card[key]}", ""]
    if card.get("without"):
        lines += [say("classification.card-left-out", names=", ".join(card["without"])), ""]
    facts = {key: card[key] for key in ("file", "sha256", "members", "threshold")}
    rule = card.get("threshold_rule", say("classification.threshold-as-trained"))
    lines += [say("classification.card-facts", **facts, parameters=card.get("parameters", "?"), rule=rule)]
    if "thresholds" in card:
        tank, flip = card["thresholds"]
        lines += [say("classification.card-thresholds", tank_treading=tank, flipping=flip)]
    lines += [say("classification.card-calibration", slope=card["slope"], offset=card["offset"])]
    if card.get("short"):
        lines += [say("classification.card-short", frames=card["recipe"]["frames"], short=card["short"])]
    lines += ["", f"## {say('classification.card-recipe')}", ""]
    lines += [f"- {key}: {value}" for key, value in card["recipe"].items()]
    if "seeds" in card:
        lines += [say("classification.card-seeds", seeds=card["seeds"])]
    heads = f"| {say('classification.card-measure')} | {say('classification.card-value')} |"
    for title, figures in card.get("figures", {}).items():
        lines += ["", f"## {title}", "", heads, "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in figures.items()]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_cell(v) for v in value)
    if isinstance(value, dict):
        return "; ".join(f"{k} {_cell(v)}" for k, v in value.items())
    return str(value)
