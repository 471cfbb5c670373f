"""Weight files: safetensors, and a JSON card with their hash and the counts behind their rates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from napari_rbcflow.classification.networks import build
from napari_rbcflow.classification.sampling import Sampling, Scale
from napari_rbcflow.errors import BadInput

FOUND = {"tank_treading_found": "tank-treading found, of", "flipping_found": "flipping found, of"}
LET_THROUGH = "let through, of"
LET_THROUGH_AS = "let through, as tank-treading, flipping, not told"
TOLD = {"tank_treading_told": "tank-treading told, of", "flipping_told": "flipping told, of"}
RIGHT = {
    "tank_treading_right": "tank-treading right, of those told",
    "flipping_right": "flipping right, of those told",
}
GROUPS = {"by patient": "patient", "by day": "date", "by run": "acquisition"}
"""What a card gives its counts by, and the attribute of `LabelledSequence` that says to which one it belongs."""
_SHARES = "tank-treading share: true, and judged of those told"
_ACCURACY = "balanced accuracy of those told"


def held_back_counts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of held-back cells that a card holds, by the names of `estimate.rates`.

    Parameters
    ----------
    card : mapping
        Of either stage. What it does not say is left out; nothing here raises.

    Returns
    -------
    dict of str to list of int
        Hits and cells each; under ``by_patient`` the same of each patient, where the card says it. A card
        of before these counts were written gives stage 2's from its shares, of which they are the only
        whole numbers that fit.
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
    """Solve for the cells told right from their balanced accuracy and the share called tank-treading."""
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
_MOST_THRESHOLD = 1.0001
"""What no probability reaches: how training says that nothing may pass."""
_MOST_MEMBERS = 1000
_MOST_SLOPE = 1e5
_DECIDING = ("stage", "members", "sha256", "recipe", "slope", "offset", "threshold", "told_from")
_DECIDING_IF_THERE = ("thresholds", "short")
"""Of cards from before these were made there is a seal without them."""
_MOST_SHORT = 1e3


@dataclass(frozen=True, eq=False)
class TrainedStage:
    """One stage, ready to judge: networks whose logits are averaged, calibration and threshold.

    Attributes
    ----------
    name : str
    stage : int
    sha256 : str
        Of the safetensors file.
    networks : list of Module
        In evaluation mode.
    sampling, frames, scale
        How a sequence is prepared.
    slope, offset : float
        Probability of the positive class (reliable; flipping) is
        1 / (1 + exp(-(slope * mean logit difference + offset))).
    threshold : float
        Positive where the rounded probability is at least this.
    told_from : float
        A sequence whose likelier class is less probable than this cannot be told; 0.5 tells all.
    thresholds : (float, float)
        Of stage 1: for tracks that stage 2 calls tank-treading, and for those that it calls flipping. The
        lesser one is `threshold`.
    short : float
        Taken off the logit difference of a sequence of no frames; of one of `frames` or more, nothing. In
        between it goes with what is lacking: experts judge no cell that they saw only briefly.
    card : mapping
        All that the JSON says.
    """

    name: str
    stage: int
    sha256: str
    networks: list[nn.Module]
    sampling: Sampling
    frames: int
    scale: Scale
    slope: float
    offset: float
    threshold: float
    told_from: float
    card: Mapping[str, Any]
    thresholds: tuple[float, float] | None = None
    short: float = 0.0

    @property
    def edges(self) -> tuple[float, ...]:
        """The probabilities at which a label changes."""
        if self.told_from <= 0.5:
            return (self.threshold, *(t for t in self.thresholds or () if t != self.threshold))
        return (round(1 - self.told_from, 4), self.threshold, self.told_from)

    def told(self, p: float) -> bool:
        """Whether a rounded probability tells the class; where not, a guess would be all there is."""
        return bool(tells(np.asarray(p), self.told_from))

    def passes(self, p: float, *, flipping: bool) -> bool:
        """Whether a rounded probability of stage 1 passes for a track of the kind that stage 2 calls it."""
        return p >= (self.thresholds[flipping] if self.thresholds else self.threshold)

    def probability(self, logits: NDArray[np.float64], frames: Sequence[int]) -> NDArray[np.float64]:
        """Calibrate mean logit differences of sequences of so many frames, to four decimals; shape (n,)."""
        return calibrated(logits - self.short * shortness(frames, self.frames), self.slope, self.offset)


def shortness(frames: Sequence[int], enough: int) -> NDArray[np.float64]:
    """What sequences lack to `enough` frames, as a share of that: 0 of those that lack nothing."""
    lacking: NDArray[np.float64] = np.maximum(0.0, 1.0 - np.asarray(frames, np.float64) / enough)
    return lacking


def tells(p: NDArray[np.float64], told_from: float) -> NDArray[np.bool_]:
    """Whether rounded probabilities tell the class: the likelier one is `told_from` or more."""
    told: NDArray[np.bool_] = np.round(np.maximum(p, 1 - p), 4) >= told_from
    return told


def calibrated(logits: NDArray[np.float64], slope: float, offset: float) -> NDArray[np.float64]:
    """Turn logit differences into probabilities as Platt does, rounded to four decimals; shape (n,)."""
    scaled = np.clip(slope * np.asarray(logits, np.float64) + offset, -60, 60)
    return np.round(1.0 / (1.0 + np.exp(-scaled)), 4)


def load_weights(path: Path, stage: int) -> TrainedStage:
    """Read ``NAME.safetensors`` and the card ``NAME.json`` beside it.

    Raises
    ------
    BadInput
        Where either is missing, unreadable, damaged, of another kind or of the other stage, where the
        hash does not match, or where a weight is no number.
    """
    path = Path(path)
    card_path = path.with_suffix(".json")
    if not path.is_file():
        raise BadInput(f"There are no weights at {path}; give a .safetensors file written by rbcflow train.")
    if path.suffix.lower() != ".safetensors":
        raise BadInput(f"{path} is no .safetensors file; give the one that rbcflow train wrote.")
    if not card_path.is_file():
        raise BadInput(f"The weights {path} lack their card {card_path.name}; put it beside them.")
    try:
        data, written = path.read_bytes(), card_path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"The weights {path} or their card cannot be read ({error.strerror or error}); "
            "see that you may read both."
        ) from error
    try:
        card = json.loads(written.decode("utf-8"), parse_constant=_no_number)
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
            raise ValueError("figures that are none")
        acquisitions = card.get("acquisitions", [])
        if not (isinstance(acquisitions, list) and all(isinstance(name, str) for name in acquisitions)):
            raise ValueError("acquisitions that are none")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(
            f"The card {card_path} is damaged or not a card of rbcflow ({error!r}); "
            "fetch the weights and their card again."
        ) from error
    if sampling not in ("uniform", "similarity") or scale not in ("level", "grey") or not 1 <= frames <= 1000:
        raise BadInput(f"The card {card_path} asks for a sampling or scale that this version does not know.")
    if of_stage != stage:
        raise BadInput(f"The weights {path} are for stage {of_stage}, not for stage {stage}.")
    if not (0 <= slope <= _MOST_SLOPE and math.isfinite(offset) and 0 <= threshold <= _MOST_THRESHOLD):
        raise BadInput(f"The card {card_path} is damaged: threshold or calibration is no number that serves.")
    if not 0 <= short <= _MOST_SHORT or (thresholds is not None and min(thresholds) != threshold):
        raise BadInput(f"The card {card_path} is damaged: its thresholds or its length rule do not serve.")
    if not 0.5 <= told_from <= 1:
        raise BadInput(f"The card {card_path} is damaged: it tells a class from {told_from} on.")
    if stage == 2 and told_from > 0.5 and not 1 - told_from <= threshold <= told_from:
        raise BadInput(
            f"The card {card_path} is damaged: threshold {threshold} is no middle of what it tells."
        )
    if not 1 <= members <= _MOST_MEMBERS:
        raise BadInput(f"The card {card_path} is damaged: it names {members} networks.")
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise BadInput(
            f"The weights {path} are damaged: their hash is not that of their card; fetch them again."
        )
    if card.get("seal") != seal(card):
        raise BadInput(
            f"The card {card_path} was changed or damaged: its seal does not fit; fetch both again."
        )
    networks = _networks(path, data, members, lambda: build(model, frames, options))
    name = str(card.get("name", path.stem))
    return TrainedStage(
        *(name, stage, found, networks, sampling, frames, scale, slope, offset, threshold, told_from, card),
        thresholds=thresholds,
        short=short,
    )


def _networks(path: Path, data: bytes, members: int, make: Callable[[], nn.Module]) -> list[nn.Module]:
    """Make the networks and fill them: with every tensor of the file, numbers all of them, and no other."""
    try:
        state = load(data)
    except (SafetensorError, ValueError) as error:
        raise BadInput(
            f"{path} is cut off or no safetensors file ({error}); give the one that rbcflow train wrote."
        ) from error
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadInput(
                f"The weights {path} hold what is no number, in {key}: "
                "their training went wrong; train again or take others."
            )
    try:
        networks = []
        for member in range(members):
            network = make()
            own = network.state_dict()
            mine = {f"{member}.{key}": key for key in own}
            for name, key in mine.items():
                if name in state and state[name].dtype != own[key].dtype:
                    raise ValueError(f"{name} is {state[name].dtype}, not {own[key].dtype}")
            network.load_state_dict({key: state.pop(name) for name, key in mine.items() if name in state})
            networks.append(network.eval().requires_grad_(False))
        if state:
            raise ValueError(f"{next(iter(state))} belongs to none of {members} such networks")
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"The weights {path} do not fit the model that their card names ({first}).") from error
    return networks


def save_weights(path: Path, networks: Sequence[nn.Module], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write networks and their card (``.json`` and, to read, ``.md``); return the card with its hash.

    Parameters
    ----------
    path : Path
        Ends in ``.safetensors``; its folder exists.
    networks : sequence of Module
        Of one shape.
    card : mapping
        With what `load_weights` needs: name, stage, recipe, slope, offset, threshold.
    """
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
    """SHA-256 of all in a card that decides on a label: a changed threshold is not the trained one."""
    keys = (*_DECIDING, *(key for key in _DECIDING_IF_THERE if key in card))
    said = json.dumps({key: card.get(key) for key in keys}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def _no_number(name: str) -> float:
    raise ValueError(f"{name} where a number should be")


def as_text(card: Mapping[str, Any]) -> str:
    """Lay a card out as Markdown."""
    lines = [f"# {card['name']}", ""]
    for key in ("purpose", "data", "licence", "split", "caution", "simulated", "failures", "command"):
        if key in card:
            lines += [f"**{key.capitalize()}.** {card[key]}", ""]
    if card.get("without"):
        lines += [f"**Left out of it all.** {', '.join(card['without'])}", ""]
    lines += [f"- file `{card['file']}`, sha256 `{card['sha256']}`"]
    lines += [f"- {card['members']} network(s) of {card.get('parameters', '?')} parameters, logits averaged"]
    lines += [f"- threshold {card['threshold']}: {card.get('threshold_rule', 'as trained')}"]
    if "thresholds" in card:
        lines += ["- of tank-treading and of flipping tracks: {}, {}".format(*card["thresholds"])]
    lines += [f"- calibration: slope {card['slope']:.4f}, offset {card['offset']:.4f}"]
    if card.get("short"):
        lines += [
            f"- taken off for each missing share of {card['recipe']['frames']} frames: {card['short']:.4f}"
        ]
    lines += ["", "## Recipe", ""]
    lines += [f"- {key}: {value}" for key, value in card["recipe"].items()]
    if "seeds" in card:
        lines += [f"- seeds: {card['seeds']}"]
    for title, figures in card.get("figures", {}).items():
        lines += ["", f"## {title}", "", "| what | value |", "|---|---|"]
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
