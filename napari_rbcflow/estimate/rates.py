"""How often the two networks are right, and how many labelled cells each rate was counted on."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STAGE1 = ("tank_treading_found", "flipping_found", "let_through")
STAGE2 = ("tank_treading_told", "flipping_told", "tank_treading_right", "flipping_right")
LET_THROUGH_AS = "let_through_as"
BY_PATIENT = "by_patient"


@dataclass(frozen=True)
class Rate:
    """`hits` of `of` labelled cells.

    Raises
    ------
    ValueError
        For counts that are negative or no whole numbers, or more hits than cells.
    """

    hits: int
    of: int

    def __post_init__(self) -> None:
        hits, of = whole(self.hits), whole(self.of)
        if hits > of:
            raise ValueError(f"a rate cannot be {hits} of {of}: give the hits first, then the cells")
        object.__setattr__(self, "hits", hits)
        object.__setattr__(self, "of", of)

    @property
    def value(self) -> float:
        """Hits over cells; one half where no cell was labelled."""
        return self.hits / self.of if self.of else 0.5


@dataclass(frozen=True)
class NetworkRates:
    """The rates of both stages with the counts behind them, as the weights' cards hold them.

    Attributes
    ----------
    tank_treading_found, flipping_found : Rate
        Reliable cells of either kind that stage 1 lets pass.
    let_through : Rate
        Unreliable cells that stage 1 lets pass: its leak.
    tank_treading_told, flipping_told : Rate
        Reliable cells of either kind that stage 2 can tell; the others are not counted.
    tank_treading_right, flipping_right : Rate
        Of those told, the ones that are told right: specificity and sensitivity.
    let_through_as : (int, int, int)
        Unreliable cells that passed, by what stage 2 said of them: tank-treading, flipping, not told.
        All 0 where nobody counted: then what it says of them is open.
    by_patient : mapping of str to mapping of str to Rate
        Of each patient, the rates of the names above that were counted on his or her cells. Empty where the
        cells were not told apart.

    Raises
    ------
    ValueError
        For impossible counts, patients who have more than all together, and where stage 2's two rates of
        right ones sum to one or less, or stage 1 passes unreliable cells as often as reliable ones: labels
        that say nothing.
    """

    tank_treading_found: Rate
    flipping_found: Rate
    let_through: Rate
    tank_treading_told: Rate
    flipping_told: Rate
    tank_treading_right: Rate
    flipping_right: Rate
    let_through_as: tuple[int, int, int] = (0, 0, 0)
    by_patient: Mapping[str, Mapping[str, Rate]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, LET_THROUGH_AS, tuple(whole(n) for n in self.let_through_as))
        for name in (*STAGE1, *STAGE2):
            if not getattr(self, name).of:
                raise ValueError(f"{name.replace('_', ' ')} is of no cell: a rate needs labelled cells")
        right = self.tank_treading_right.value + self.flipping_right.value
        if right <= 1:
            raise ValueError(
                f"stage 2's two rates of cells told right sum to {right:.2f}: at 1 or less its labels say"
                " nothing, and nothing can be corrected"
            )
        for name in ("tank_treading_found", "flipping_found"):
            if getattr(self, name).value <= self.let_through.value:
                kind = name.removesuffix("_found").replace("_", "-")
                raise ValueError(
                    f"stage 1 passes unreliable cells as often as {kind} ones: its labels say nothing, and"
                    " nothing can be corrected"
                )
        for name in (*STAGE1, *STAGE2):
            self._rest(name)

    def patients(self, *names: str) -> list[tuple[Rate, ...]]:
        """Return these rates of each patient who has any; what belongs to none of them comes last, as one.

        Returns
        -------
        list of tuple of Rate
            ``Rate(0, 0)`` for what a patient lacks. Empty where nothing was counted by patient.
        """
        own = [tuple(of.get(name, Rate(0, 0)) for name in names) for of in self.by_patient.values()]
        own = [rates for rates in own if any(rate.of for rate in rates)]
        rest = tuple(self._rest(name) for name in names)
        return [*own, rest] if own and any(rate.of for rate in rest) else own

    def patients_of(self, name: str) -> list[str]:
        """Return the patients on whose cells this rate was counted, by name; empty where none is told."""
        return sorted(p for p, of in self.by_patient.items() if name in of and of[name].of)

    def _rest(self, name: str) -> Rate:
        """Return what is of no patient."""
        whole_rate: Rate = getattr(self, name)
        own = [of[name] for of in self.by_patient.values() if name in of]
        hits, of = whole_rate.hits - sum(r.hits for r in own), whole_rate.of - sum(r.of for r in own)
        if not 0 <= hits <= of:
            raise ValueError(f"the patients' counts of {name.replace('_', ' ')} do not fit their sum")
        return Rate(hits, of)

    @classmethod
    def of_models(cls, models: Mapping[str, Any]) -> NetworkRates:
        """Take the rates from `models` of ``run.json``.

        Raises
        ------
        ValueError
            With a sentence, where the counts are not there or impossible.
        """
        found: dict[str, Any] = {}
        patients: dict[str, dict[str, Rate]] = {}
        for stage, names in (("stage1", STAGE1), ("stage2", STAGE2)):
            counts = (models.get(stage) or {}).get("counts") or {}
            for name in names:
                if not _pair(counts.get(name), 2):
                    raise ValueError(
                        f"the card of stage {stage[-1]} does not say on how many cells its rates were"
                        " counted: train the weights again, or take the shipped ones"
                    )
                found[name] = Rate(*counts[name])
            if _pair(counts.get(LET_THROUGH_AS), 3):
                found[LET_THROUGH_AS] = tuple(counts[LET_THROUGH_AS])
            by_patient = counts.get(BY_PATIENT) or {}
            if not isinstance(by_patient, Mapping) or not all(
                isinstance(own, Mapping) for own in by_patient.values()
            ):
                raise ValueError(f"the counts by patient of {stage} are damaged: {by_patient!r:.60}")
            for patient, own in by_patient.items():
                rates = {name: Rate(*own[name]) for name in names if _pair(own.get(name), 2)}
                patients.setdefault(patient, {}).update(rates)
        return cls(**found, by_patient=patients)


def whole(count: Any) -> int:
    """Return a count as an int.

    Raises
    ------
    ValueError
        If it is negative or no whole number.
    """
    try:
        number = operator.index(count)
    except TypeError:
        raise ValueError(f"counts are whole numbers, not {count!r}") from None
    if number < 0:
        raise ValueError(f"counts cannot be negative: {number}")
    return number


def _pair(counts: Any, n: int) -> bool:
    return isinstance(counts, Sequence) and not isinstance(counts, str) and len(counts) == n
