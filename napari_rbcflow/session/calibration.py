"""``calibration.json``: what reviewed sessions of one laboratory say of the networks' errors there.

A card's rates were counted on other microscopes. Where persons have checked tracks of a few days of this one
(`review`), a new day's run can be corrected by what was found on those days (`estimate.laboratory`), as long
as it is like them: the same networks and settings, and light, noise, sharpness and speed in the ranges that
were seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import (
    Corrected,
    NetworkRates,
    ReviewedRun,
    as_record,
    known_well_enough,
    laboratory_rates,
    of_record,
    rates_of_review,
    try_on_held_back_days,
)
from napari_rbcflow.ring import read_json, replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.session import schema
from napari_rbcflow.session.review import Review
from napari_rbcflow.types import RunStatus, Verdict

FORMAT = 1
MARGINS = {
    "light_grey": 1.25,
    "noise_grey": 1.3,
    "rim_contrast": 1.25,
    "rim_radius_um": 1.1,
    "speed_um_per_s": 1.25,
}
"""What a run is compared by (``quality`` of ``run.json``), and the factor by which it may lie below the least
and above the greatest of the reviewed runs."""
SETTINGS = {"pixel_size_um": 0.02, "fps": 0.02, "least_frames": 0.0, "leave_out_intruded": 0.0}
"""What must be as it was (``parameters`` of ``run.json``), and how far it may differ, as a share."""
_DECIDING = ("hash", "slope", "offset", "threshold", "thresholds", "short", "told_from")
LEAST_DAYS, LEAST_CHECKED = 3, 30
"""Days of a calibration that corrects, and checked cells of each session."""
_LEAST_RELIABLE = 20
"""Counted tracks from which on a run that goes on is compared: before, its measures are noise."""


class Trial(NamedTuple):
    """A reviewed run, corrected with the rates of the other days only."""

    run: str
    reviewed: tuple[float, float] | None
    corrected: tuple[float, float] | None


@dataclass(frozen=True)
class Calibration:
    """What a laboratory's reviewed runs say of the networks.

    Attributes
    ----------
    file : Path
        Where it is written, or was read from.
    made : str
        ISO 8601 with offset.
    models : mapping
        ``stage1`` and ``stage2``: name, hash, and what else decides a label.
    settings : mapping
        `SETTINGS` of its runs.
    holds_for : mapping of str to (float, float)
        The least and the greatest of each of `MARGINS` in its runs.
    simulated : bool
        Whether its frames were a simulation's.
    rates : NetworkRates
        By day.
    runs : sequence of mapping
        Each reviewed run: folder, day, patient, sample, tracks judged and reviewed, and its own rates.
    trial : sequence of Trial
        Each run corrected with the rates of the other days, beside its review.
    enough : bool
        Whether it corrects further runs: it rests on `LEAST_DAYS` days, most of its own runs got a number in
        the trial, and none that the run's own review excludes.
    """

    file: Path
    made: str
    models: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    holds_for: Mapping[str, tuple[float, float]]
    simulated: bool
    rates: NetworkRates
    runs: Sequence[Mapping[str, Any]]
    trial: Sequence[Trial]
    enough: bool

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def days(self) -> list[str]:
        return sorted(self.rates.by_patient)

    @property
    def tracks(self) -> int:
        """Tracks that were reviewed."""
        return sum(int(run["reviewed"]) for run in self.runs)

    @classmethod
    def of_sessions(cls, folders: Sequence[Path], file: Path) -> Calibration:
        """Make it from reviewed sessions of one microscope.

        Raises
        ------
        BadInput
            For a session that goes on, was not reviewed, or differs from the first in its networks or
            settings; for too few checked tracks; and where the networks tell nothing there.
        """
        if not folders:
            raise BadInput("session.calibration-of-nothing")
        found = [_reviewed(Path(folder)) for folder in folders]
        _one_laboratory(found)
        runs = [run.reviewed for run in found]
        try:
            rates = laboratory_rates(runs)
        except ValueError as error:
            raise BadInput("session.calibration-impossible", why=error) from None
        trial = try_on_held_back_days(runs)
        trials = [_trial(run, one) for run, one in zip(found, trial, strict=True)]
        first = found[0].run
        measures = {
            name: [float(value) for run in found if (value := _quality(run.run, name)) is not None]
            for name in MARGINS
        }
        return cls(
            Path(file),
            schema.now(),
            {
                stage: {"name": model.get("name"), **_deciding(model)}
                for stage, model in first["models"].items()
            },
            _settings(first),
            {name: (min(values), max(values)) for name, values in measures.items() if values},
            schema.is_simulated(first),
            rates,
            [run.record for run in found],
            trials,
            known_well_enough(trial)
            and len(rates.by_patient) >= LEAST_DAYS
            and not any(map(_contradicts, trials)),
        )

    def write(self) -> None:
        """Write `file`, whole or not at all."""
        record = {
            "format": FORMAT,
            "made": self.made,
            "days": self.days,
            "tracks": self.tracks,
            "enough": self.enough,
            "simulated": self.simulated,
            "models": self.models,
            "settings": self.settings,
            "holds_for": self.holds_for,
            "rates": as_record(self.rates),
            "runs": self.runs,
            "trial": [one._asdict() for one in self.trial],
        }
        try:
            replace_file(self.file, schema.encoded(record))
        except OSError as error:
            why = error.strerror or error
            raise RunFailed("session.calibration-not-written", file=self.file, why=why) from error

    @classmethod
    def read(cls, file: Path | str) -> Calibration:
        """Read a file that `write` wrote; BadInput for anything else."""
        file = Path(file)
        try:
            record = read_json(file)
            if int(record["format"]) > FORMAT:
                raise BadInput("ring.newer-version", path=file)
            return cls(
                file,
                str(record["made"]),
                {stage: dict(record["models"][stage]) for stage in ("stage1", "stage2")},
                {name: record["settings"][name] for name in SETTINGS},
                {name: (float(low), float(high)) for name, (low, high) in record["holds_for"].items()},
                bool(record["simulated"]),
                of_record(record["rates"]),
                [{**run, "reviewed": int(run["reviewed"])} for run in record["runs"]],
                [Trial(**one) for one in record["trial"]],
                record["enough"] is True,
            )
        except OSError as error:
            raise BadInput("session.calibration-unreadable", file=file, why=error.strerror or error) from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput("session.calibration-damaged", file=file, why=repr(error)) from None

    def refuse_other_networks(self, models: Mapping[str, Any]) -> None:
        """Refuse a run with other networks than those that were reviewed, before it starts."""
        for stage, own in self.models.items():
            if _deciding(own) != _deciding(schema.plain(models.get(stage) or {})):
                raise BadInput("session.calibration-of-other-networks", file=self.file, stage=stage[-1])

    def unlike(self, run: Mapping[str, Any]) -> list[str]:
        """Say how a run differs from those that were reviewed: a sentence each, none if it is like them.

        Parameters
        ----------
        run : mapping
            ``parameters``, ``quality``, ``simulated`` and ``status`` as in ``run.json``.
        """
        found = []
        if not self.enough:
            if len(self.days) < LEAST_DAYS:
                why = say("session.calibration-few-days", days=len(self.days), least=LEAST_DAYS)
            elif any(map(_contradicts, self.trial)):
                why = say("session.calibration-contradicts")
            else:
                why = say("session.calibration-not-enough")
            found.append(why)
        if schema.is_simulated(run) != self.simulated:
            key = "session.calibration-simulated" if self.simulated else "session.calibration-of-real-cells"
            found.append(say(key))
        for name, off in SETTINGS.items():
            was, now = self.settings[name], (run.get("parameters") or {}).get(name)
            if not _alike(was, now, off):
                found.append(say("session.calibration-other-setting", setting=name, now=now, was=was))
        going_on = run.get("status") == RunStatus.RUNNING
        if going_on and (_quality(run, "tracks_reliable") or 0) < _LEAST_RELIABLE:
            return found
        for name, margin in MARGINS.items():
            value, known = _quality(run, name), self.holds_for.get(name)
            what = say(f"session.measure-{name.replace('_', '-')}")
            if known is None:  # nor could it be compared
                continue
            if value is None:
                if not going_on:
                    found.append(say("session.calibration-not-measured", what=what))
            elif not known[0] / margin <= value <= known[1] * margin:
                ends = {"value": value, "low": known[0], "high": known[1]}
                found.append(say("session.calibration-outside", what=what, **ends))
        return found

    def record(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``calibration`` of ``run.json`` for a run, with what the correction needs."""
        why = self.unlike(run)
        return {
            "file": str(self.file),
            "name": self.name,
            "hash": self.hash,
            "applies": not why,
            "why": why,
            "days": len(self.days),
            "tracks": self.tracks,
            "rates": as_record(self.rates),
        }

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what it says, by which a run names it."""
        said = {
            "made": self.made,
            "models": self.models,
            "settings": self.settings,
            "holds_for": self.holds_for,
            "rates": as_record(self.rates),
            "enough": self.enough,
        }
        text = json.dumps(schema.plain(said), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def calibration_warning(calibration: Mapping[str, Any]) -> str:
    """Say, from ``calibration`` of ``run.json``, that it does not hold for the run; empty where it does."""
    if not calibration or calibration.get("applies"):
        return ""
    why = " ".join(map(str, calibration.get("why") or ()))
    return say("session.calibration-does-not-hold", name=calibration.get("name"), why=why)


class _Reviewed(NamedTuple):
    """One session that calibrates."""

    folder: Path
    run: dict[str, Any]
    reviewed: ReviewedRun
    figure: tuple[float, float] | None
    record: dict[str, Any]
    judgements: int


def _reviewed(folder: Path) -> _Reviewed:
    run = schema.read_run(folder)
    review = Review(folder)
    labels = review.counting
    if not labels:
        raise BadInput("session.calibration-not-reviewed", folder=folder)
    if passed_over := review.passed_over:
        raise BadInput("session.calibration-passed-over", folder=folder, cells=len(passed_over))
    if len(labels) < LEAST_CHECKED:
        raise BadInput(
            "session.calibration-few-checked", folder=folder, cells=len(labels), least=LEAST_CHECKED
        )
    if (conclusion := review.conclusion).verdict is Verdict.NO_RESULT:
        raise BadInput("session.calibration-of-no-result", folder=folder, why=conclusion.why)
    cells, plan = run["cells"], review.plan
    tank, flip, unreliable = (int(cells[name]) for name in ("tank_treading", "flipping", "unreliable"))
    in_plan = sum(len(s.cells) for s in plan.strata if s.name.startswith("unreliable"))
    rates = rates_of_review(plan, labels, more_unreliable=max(0, unreliable - in_plan))
    day = str(run["started"])[:10]
    figure = review.figure
    record = {
        "folder": folder.resolve().name,
        "day": day,
        "patient": run.get("patient", ""),
        "sample": run.get("sample", ""),
        "judged": tank + flip + unreliable,
        "reviewed": len(labels),
        "rates": {name: [rate.hits, rate.of] for name, rate in rates.items()},
    }
    known = None if figure.low is None or figure.high is None else (figure.low, figure.high)
    own = ReviewedRun(day, tank, flip, unreliable, rates)
    return _Reviewed(folder, run, own, known, record, review.seed)


def _one_laboratory(found: Sequence[_Reviewed]) -> None:
    """Refuse sessions that differ from the first in what decides a label, and one that is given twice."""
    first = found[0].run
    seen: dict[int, Path] = {}
    for one in found:
        for stage in ("stage1", "stage2"):
            if _deciding(one.run["models"][stage]) != _deciding(first["models"][stage]):
                raise BadInput(
                    "session.calibration-networks-differ", folder=one.folder, first=found[0].folder
                )
        mine = _settings(one.run)
        for name, off in SETTINGS.items():
            if not _alike(_settings(first)[name], mine[name], off):
                raise BadInput(
                    "session.calibration-settings-differ",
                    folder=one.folder,
                    first=found[0].folder,
                    setting=name,
                    now=mine[name],
                    was=_settings(first)[name],
                )
        if schema.is_simulated(one.run) != schema.is_simulated(first):
            raise BadInput("session.calibration-some-simulated", folder=one.folder)
        # The same judgements are the same movie, whenever it was analysed.
        if (before := seen.setdefault(one.judgements, one.folder)) is not one.folder:
            raise BadInput("session.calibration-twice", folder=one.folder, first=before)


def _trial(run: _Reviewed, corrected: Corrected | None) -> Trial:
    ends = None
    if corrected is not None and corrected.low is not None and corrected.high is not None:
        ends = corrected.low, corrected.high
    return Trial(run.record["folder"], run.figure, ends)


def _contradicts(trial: Trial) -> bool:
    """Say whether what the other days gave and what the day's own review says have nothing in common."""
    if trial.reviewed is None or trial.corrected is None:
        return False
    return trial.reviewed[0] > trial.corrected[1] or trial.corrected[0] > trial.reviewed[1]


def _deciding(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: schema.plain(model.get(name)) for name in _DECIDING}


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: run["parameters"].get(name) for name in SETTINGS}


def _alike(was: Any, now: Any, off: float) -> bool:
    if isinstance(was, (int, float)) and isinstance(now, (int, float)):
        return abs(now - was) <= off * abs(was)
    return bool(was == now)


def _quality(run: Mapping[str, Any], name: str) -> float | None:
    value = (run.get("quality") or {}).get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
