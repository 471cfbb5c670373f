"""A person's check of some tracks: ``reviews.csv`` and ``review.json`` beside what the machine wrote.

The program chooses the tracks (`ReviewPlan`), a person says what each is, and the fraction follows with an
interval that is right whatever the networks' errors are. The sample is drawn from the session itself, so
nobody can draw again until it pleases, and `verify` can draw it anew.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, astuple, dataclass, fields
from functools import cached_property
from itertools import combinations
from operator import le
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.estimate import FRAGMENT, REVIEWED, ReviewPlan
from napari_rbcflow.ring import replace_file
from napari_rbcflow.sentences import say
from napari_rbcflow.session import schema, tables
from napari_rbcflow.session.append_only import (
    NO_RIGHT,
    AppendOnly,
    cell_number,
    one_line,
    one_of,
    when,
    who,
)
from napari_rbcflow.session.report import shows_review, shows_signatures, write_report_again
from napari_rbcflow.session.schema import FractionFigure, is_being_written, read_run
from napari_rbcflow.session.verdict import REVIEW_FILE, REVIEWS_FILE, Conclusion, conclude, read_review
from napari_rbcflow.types import Bools, Label, RunStatus

if TYPE_CHECKING:
    import pandas as pd

LABELS = (Label.TANK_TREADING, Label.FLIPPING, Label.UNRELIABLE)
"""What a person can say of a track."""
WITHDRAWN = "withdrawn"
"""Stands in place of a label that its person took back."""
_TOLERANCE = 1e-6
_OTHER_NUMPY_TOLERANCE = 0.01
"""Of the interval's ends, where another numpy drew it."""


@dataclass(frozen=True)
class ReviewLine:
    """One line of ``reviews.csv``; `reviewed` is ISO 8601 with offset, `label` of `LABELS` or `WITHDRAWN`."""

    reviewed: str
    by: str
    cell: int
    label: str


def _line(texts: Sequence[str]) -> ReviewLine:
    reviewed, by, cell, label = texts
    return ReviewLine(
        when(reviewed), who(by), cell_number(cell), one_of((*map(str, LABELS), WITHDRAWN), label)
    )


TABLE = AppendOnly(REVIEWS_FILE, tuple(f.name for f in fields(ReviewLine)), _line)


@dataclass(frozen=True)
class Agreement:
    """How far two persons say the same.

    Attributes
    ----------
    between : tuple of str
        Their names.
    cells : int
        Cells that both labelled.
    equal : int
        Cells to which both gave the same label.
    kappa : float or None
        Cohen's: 1 is full agreement, 0 what chance alone would give. None where both gave every cell the same
        one label.
    """

    between: tuple[str, str]
    cells: int
    equal: int
    kappa: float | None


class LabelRefused(BadInput):
    """One of some labels cannot be taken; `cell` says whose."""

    cell = 0

    @classmethod
    def of(cls, cell: int, why: BadInput) -> LabelRefused:
        refused = cls.told(str(why), why.key)
        refused.cell = cell
        return refused


class Review:
    """A review of one session, which may be left and gone on with, by one person or more.

    Parameters
    ----------
    folder : Path or str
        A session whose run has ended.

    Attributes
    ----------
    folder : Path
    report_fault : str
        After `finish`: a sentence if ``report.html`` could not be updated; else empty.

    Raises
    ------
    BadInput
        If `folder` is not a session. From everything else: if its run has not ended.
    RunFailed
        If ``reviews.csv`` or ``cells.csv`` is damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._run = read_run(self.folder)
        self._estimated: tuple[dict[int, Sequence[str]], FractionFigure] | None = None
        self.report_fault = ""

    @cached_property
    def plan(self) -> ReviewPlan:
        """Which tracks are checked in which order."""
        if self._run["status"] == RunStatus.RUNNING:
            self._run = read_run(self.folder)
        if self._run["status"] == RunStatus.RUNNING:
            running = is_being_written(self.folder)
            raise BadInput("session.review-running" if running else "session.review-interrupted")
        cells = self._cells
        judged = cells[population(cells, tables.read_links(self.folder))].sort_values("cell")
        return ReviewPlan(
            judged["cell"].to_numpy(),
            judged["label"].tolist(),
            judged["p_reliable"].to_numpy(),
            judged["p_tank_treading"].to_numpy(),
            self.seed,
        )

    @property
    def labels(self) -> dict[str, dict[int, str]]:
        """What each person said of which cell, in the order in which they said it."""
        return _by_person(TABLE.rows(self.folder))

    @property
    def counting(self) -> dict[int, Sequence[str]]:
        """The labels that count: for each checked cell of the plan what each person said (`_counting`)."""
        return self._counting(self.labels)

    @property
    def together(self) -> dict[int, list[str]]:
        """What each person said of each checked cell, also what does not count."""
        return _together(self.labels)

    @property
    def chosen(self) -> int:
        """Cells that were given out to be checked."""
        return sum(self._chosen())

    @property
    def reviewed(self) -> int:
        """Cells that somebody has checked."""
        return len(_together(self.labels))

    @property
    def passed_over(self) -> list[int]:
        """Chosen cells without a label, of each sample that was begun: with any, there is no result.

        Else whoever leaves out cells, or withdraws their labels, could move the number.
        """
        return self._without_label(_together(self.labels), self._samples())

    @property
    def figure(self) -> FractionFigure:
        """The fraction by machine and persons together; `n` is how many tracks were checked."""
        return self._figure(self.counting)

    @property
    def conclusion(self) -> Conclusion:
        """The verdict with this review."""
        return conclude(self._run, self.figure, len(self.passed_over))

    @property
    def agreement(self) -> list[Agreement]:
        """How far each two persons agree, of those who labelled the same cells."""
        return _agreements(self.labels)

    def sample(self, n: int, by: str = "") -> list[int]:
        """Choose the cells to look at next.

        Parameters
        ----------
        n : int
        by : str
            Who will look. First come the cells that others labelled and this person did not, so that two
            persons check the same ones. Empty: cells that nobody has labelled, first those chosen before.

        Returns
        -------
        list of int
            `n` cells, or as many as there are; the one that tells most comes first.

        Raises
        ------
        BadInput
            If `n` is below 1, or the folder cannot be written to: which cells were chosen is kept there.
        """
        if n < 1:
            raise BadInput("session.review-sample-of-none", n=n)
        with self._alone():
            cells = self._sample(n, by)
        # A page that says that nothing has changed since it was signed is no longer right.
        self.report_fault = write_report_again(self.folder, unless=lambda: shows_signatures(self.folder))
        return cells

    def _sample(self, n: int, by: str) -> list[int]:
        plan, said = self.plan, self.labels
        together = _together(said)
        by = known_name(one_line(by), said)
        others = [c for c in together if by and c in plan.place and c not in said.get(by, {})]
        samples = self._samples()
        before = self._chosen(samples)
        waiting = self._without_label(together, samples, begun=False)
        if waiting:
            best = {cell: k for k, cell in enumerate(plan.next(int(plan.sizes.sum()), together))}
            waiting.sort(key=best.__getitem__)
        cells = [*others, *waiting][:n]
        cells += plan.next(n - len(cells), together | {cell: [] for cell in waiting})
        chosen = list(before)
        for stratum, place in map(plan.place.__getitem__, cells):
            chosen[stratum] = max(chosen[stratum], place + 1)
        self._write(said, samples if chosen == before else [*samples, chosen])
        return cells

    def _check(self, cell: int, label: str, chosen: Sequence[int]) -> None:
        if label not in LABELS:
            *labels, last = map(str, LABELS)
            raise BadInput("session.not-a-label", label=str(label), labels=", ".join(labels), last=last)
        at = self.plan.place.get(cell)
        if at is None and not (self._cells["cell"] == cell).any():
            raise BadInput("session.no-such-cell", folder=self.folder, cell=cell)
        if at is None or at[1] >= chosen[at[0]]:
            raise BadInput("session.review-not-chosen", cell=cell)

    def add(self, labels: Mapping[int, str], by: str) -> FractionFigure:
        """Say of cells what they are: all of them, or none where one is refused; on the disk when it returns.

        Parameters
        ----------
        labels : mapping of int to str
            ``tank-treading``, ``flipping`` or ``unreliable`` for each cell. Another label than the same
            person's earlier one replaces it.
        by : str
            Who looked at them.

        Returns
        -------
        FractionFigure
            The fraction with these labels.

        Raises
        ------
        LabelRefused
            If there is no such label or no such cell, or the cell was not chosen.
        BadInput
            If no name is given; if the folder cannot be written to.
        RunFailed
            If ``reviews.csv`` is damaged or was edited, or the disk is full.
        """
        self.record(labels, by)
        return self.update()

    def record(self, labels: Mapping[int, str], by: str) -> None:
        """Do as `add` does, but leave ``review.json`` to `update`: a window shows the next cell first."""
        with self._alone():
            self._record_labels({int(cell): str(label) for cell, label in labels.items()}, by)

    def _record_labels(self, labels: Mapping[int, str], by: str) -> None:
        said = self.labels
        by = self._person(by, said)
        chosen = self._chosen()  # once: it is read from the disk
        for cell, label in labels.items():
            try:
                self._check(cell, label, chosen)
            except BadInput as error:
                raise LabelRefused.of(cell, error) from None
        own = said.get(by, {})
        self._append({cell: label for cell, label in labels.items() if own.get(cell) != label}, by)

    def update(self) -> FractionFigure:
        """Write ``review.json`` as ``reviews.csv`` is by now, and return the fraction."""
        with self._alone():
            return self._write(self.labels, self._samples())

    def withdraw(self, cell: int, by: str) -> FractionFigure:
        """Take back what a person said of a cell; returns and raises as `add`."""
        with self._alone():
            said = self.labels
            by = self._person(by, said)
            if cell not in said.get(by, {}):
                raise BadInput("session.review-nothing-to-withdraw", by=by, cell=cell)
            self._append({cell: WITHDRAWN}, by)
        return self.update()

    def finish(self) -> None:
        """Update ``review.json`` and ``report.html``, at the end of a sitting; see `report_fault`."""
        if self.labels or (self.folder / REVIEW_FILE).exists():
            self.update()
            self.report_fault = write_report_again(self.folder, unless=lambda: shows_review(self.folder))

    def _alone(self) -> AbstractContextManager[None]:
        """Read and write while no other program does: ``cells.csv``, which never changes, is the lock."""
        return schema.locked(self.folder / "cells.csv")

    @cached_property
    def _cells(self) -> pd.DataFrame:
        path = self.folder / "cells.csv"
        try:
            cells = tables.parsed(path, tables.whole_lines(path), tables.CELL_TYPES)
            if cells["cell"].duplicated().any():
                raise RunFailed("session.review-cells-twice", path=path)
            judged = cells[["p_reliable", "p_tank_treading"]]
            if not (judged.isna() | judged.ge(0) & judged.le(1)).all(axis=None):
                raise tables.unreadable(path, say("session.no-probability"))
            return cells
        except OSError as error:
            raise tables.unreadable(path, error.strerror) from error

    @cached_property
    def seed(self) -> int:
        """Of the sample; made of the networks' judgements alone."""
        return seed_of(self._cells)

    @cached_property
    def _versions(self) -> dict[str, str | None]:
        return schema.versions()

    def _person(self, by: str, said: Mapping[str, object]) -> str:
        name = known_name(one_line(by), said)
        if not name:
            raise BadInput("session.review-by-nobody")
        return name

    def _append(self, labels: Mapping[int, str], by: str) -> None:
        _ = self.plan  # refuses a run that goes on
        self._refuse_edited()
        time = schema.now()
        TABLE.append(self.folder, [astuple(ReviewLine(time, by, *said)) for said in labels.items()])

    def _figure(self, together: Mapping[int, Sequence[str]]) -> FractionFigure:
        level = float((self._run.get("fraction") or {}).get("level") or 0.95)
        if self._estimated is None or self._estimated[0] != together:
            found = self.plan.estimate(together, level)
            figure = FractionFigure(found.estimate, found.low, found.high, found.level, REVIEWED, found.n)
            self._estimated = dict(together), figure
        return self._estimated[1]

    def _counting(self, said: Mapping[str, Mapping[int, str]]) -> dict[int, Sequence[str]]:
        """Return the labels that count for each checked cell: of each person who labelled all chosen cells.

        Where nobody did, as where two persons share the work, the first label of a cell counts. So nobody
        moves the number by labelling again only the cells of one kind, under another name.
        """
        together = _together(said)
        chosen = {cell for cells in self._by_sample(self._samples()) for cell in cells if cell in together}
        whole = [own for own in said.values() if chosen <= own.keys()]
        return {
            cell: [own[cell] for own in whole] or together[cell][:1] for cell in together if cell in chosen
        }

    def _by_sample(self, samples: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the cells that each sample added, those before others of their stratum first."""
        before: Sequence[int] = [0] * len(self.plan.strata)
        found = []
        for upto in samples:
            cells = [
                (place, int(stratum.cells[place]))
                for stratum, first, last in zip(self.plan.strata, before, upto, strict=True)
                for place in range(first, last)
            ]
            found.append([cell for _, cell in sorted(cells)])
            before = upto
        return found

    def _without_label(
        self, together: Mapping[int, object], samples: Sequence[Sequence[int]], *, begun: bool = True
    ) -> list[int]:
        """Return the chosen cells without a label; `begun`: only of samples of which some cell has one."""
        return [
            cell
            for cells in self._by_sample(samples)
            if not begun or any(cell in together for cell in cells)
            for cell in cells
            if cell not in together
        ]

    def _samples(self) -> list[list[int]]:
        """Return, after each sample, how many of the first tracks of each stratum were chosen."""
        design = read_review(self.folder).get("design")
        sizes = self.plan.sizes.tolist()
        try:
            told = [[int(n) for n in sample] for sample in design["samples"]] if design else []
        except (KeyError, TypeError, ValueError, OverflowError):
            told = []
        grows = [[0] * len(sizes), *told]
        sound = all(
            len(sample) == len(sizes) and all(map(le, before, sample)) and all(map(le, sample, sizes))
            for before, sample in zip(grows, told, strict=False)
        )
        return told if sound else []

    def _chosen(self, samples: Sequence[Sequence[int]] | None = None) -> list[int]:
        """Return how many of the first tracks of each stratum were chosen, in all samples."""
        samples = self._samples() if samples is None else samples
        return list(samples[-1]) if samples else [0] * len(self.plan.strata)

    def _refuse_edited(self) -> None:
        if not _goes_on_from(TABLE.read(self.folder), read_review(self.folder)):
            raise RunFailed("session.reviews-edited", path=self.folder / TABLE.name, review=REVIEW_FILE)

    def _write(
        self, said: Mapping[str, Mapping[int, str]], samples: Sequence[Sequence[int]]
    ) -> FractionFigure:
        """Write ``review.json`` again where it would change, and return the fraction."""
        self._refuse_edited()
        record, figure = self._record(said, samples)
        if {**record, "versions": None} != {**read_review(self.folder), "versions": None}:
            path = self.folder / REVIEW_FILE
            try:
                replace_file(path, schema.encoded(record))
            except OSError as error:
                kind = BadInput if error.errno in NO_RIGHT else RunFailed
                raise kind("session.review-not-written", path=path, why=error.strerror or error) from error
        return figure

    def _record(
        self, said: Mapping[str, Mapping[int, str]], samples: Sequence[Sequence[int]]
    ) -> tuple[dict[str, Any], FractionFigure]:
        """Return what ``review.json`` holds."""
        together, data = _together(said), TABLE.read(self.folder)
        figure, passed_over = self._figure(self._counting(said)), self._without_label(together, samples)
        reviewed = Counter(self.plan.place[cell][0] for cell in together if cell in self.plan.place)
        record = {
            "format": schema.FORMAT,
            "fraction_reviewed": asdict(figure),
            **conclude(self._run, figure, len(passed_over)).as_dict(),
            "reviewers": {
                by: {"reviewed": len(own), **{label: list(own.values()).count(label) for label in LABELS}}
                for by, own in said.items()
            },
            "agreement": [asdict(pair) for pair in _agreements(said)],
            "passed_over": passed_over,
            "design": {
                "seed": self.seed,
                "tracks": int(self.plan.sizes.sum()),
                "strata": [
                    {"name": s.name, "tracks": len(s.cells), "reviewed": reviewed[h]}
                    for h, s in enumerate(self.plan.strata)
                ],
                "samples": samples,
            },
            TABLE.name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
            "versions": self._versions,
        }
        return schema.plain(record), figure


def population(cells: pd.DataFrame, links: tables.Links) -> Bools:
    """Say which rows of ``cells.csv`` a review chooses from: the tracks that were judged, each cell once.

    Of several tracks that may be of one cell it is the counted one, else the first.
    """
    judged = cells["label"].isin(LABELS) & (cells["reason"] != FRAGMENT)
    counted = judged & cells["label"].isin(tables.COUNTED)
    kept = set(cells["cell"][counted].tolist())
    earlier: set[int] = set().union(*(tables.behind(cell, links) for cell in kept if cell in links))
    for cell in sorted(cells["cell"][judged & ~counted].tolist()):
        before = tables.behind(cell, links) if cell in links else set()
        if cell not in earlier and not before & kept:
            kept.add(cell)
            earlier |= before
    return np.asarray(cells["cell"].isin(kept), bool)


def seed_of(cells: pd.DataFrame) -> int:
    """Return the seed of a session's sample: the same each time, also where the movie is analysed again."""
    made = hashlib.sha256()
    columns = ["cell", "label", "p_reliable", "p_tank_treading"]
    for cell, label, reliable, tank in cells[columns].sort_values("cell").itertuples(index=False, name=None):
        made.update(f"{cell},{label},{reliable:.4f},{tank:.4f}\n".encode())
    return int.from_bytes(made.digest()[:6], "big")


def findings(folder: Path) -> Iterator[str]:
    """Draw the sample again and compute everything anew; a sentence for each thing that is wrong."""
    audit, record = TABLE.audit(folder), read_review(folder)
    yield from audit.cut
    yield from audit.faults
    if (folder / REVIEW_FILE).exists() != bool(record):
        yield say("session.found-review-damaged")
        return
    if (folder / "report.html").exists() and not shows_review(folder):
        yield say("session.found-report-without-review")
    if audit.faults or not (audit.rows or record):
        return
    if not record:
        yield say("session.found-review-behind")
        return
    review, data = Review(folder), TABLE.read(folder)
    chosen, place = review._chosen(), review.plan.place
    labelled = sorted({line.cell for line in audit.rows})
    if outside := [c for c in labelled if c not in place or place[c][1] >= chosen[place[c][0]]]:
        yield say("session.found-review-outside", cells=len(outside), first=outside[0])
    if not _goes_on_from(data, record):
        yield say("session.found-reviews-edited")
    elif len(data) > record[TABLE.name]["bytes"]:
        yield say("session.found-review-behind")
        return
    right, _ = review._record(review.labels, review._samples())
    same_program = record.get("versions", {}).get("napari-rbcflow") == right["versions"]["napari-rbcflow"]
    same_numpy = record.get("versions", {}).get("numpy") == right["versions"]["numpy"]
    for name, value in right.items():
        if name in ("versions", TABLE.name, "format") or (name == "verdict_reason" and not same_program):
            continue
        told = record.get(name)
        if name == "fraction_reviewed":
            if not _same_figure(told, value, _TOLERANCE if same_numpy else _OTHER_NUMPY_TOLERANCE):
                yield say("session.found-review-fraction", told=_ends(told), right=_ends(value))
        elif told != value:
            yield say("session.found-review-differs", name=name)


def _by_person(lines: Sequence[ReviewLine]) -> dict[str, dict[int, str]]:
    said: dict[str, dict[int, str]] = {}
    names: dict[str, str] = {}
    for line in lines:
        own = said.setdefault(names.setdefault(_same(line.by), line.by), {})
        own.pop(line.cell, None)
        if line.label != WITHDRAWN:
            own[line.cell] = line.label
    return {by: own for by, own in said.items() if own}


def _together(said: Mapping[str, Mapping[int, str]]) -> dict[int, list[str]]:
    """Return what was said of each cell, one label a person."""
    together: dict[int, list[str]] = {}
    for own in said.values():
        for cell, label in own.items():
            together.setdefault(cell, []).append(label)
    return together


def known_name(name: str, said: Mapping[str, object]) -> str:
    """Return the name as it is written already: Anna and anna are one person."""
    return next((by for by in said if _same(by) == _same(name)), name)


def _same(name: str) -> str:
    """Return what two ways to write a name have in common: case, and how accents are put together."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())


def _agreements(said: Mapping[str, Mapping[int, str]]) -> list[Agreement]:
    found = []
    for one, other in combinations(said, 2):
        both = [(said[one][cell], said[other][cell]) for cell in said[one] if cell in said[other]]
        if both:
            equal = sum(a == b for a, b in both)
            found.append(Agreement((one, other), len(both), equal, _kappa(both)))
    return found


def _kappa(both: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa (1960): how far agreement goes beyond that of chance."""
    n = len(both)
    first, second = Counter(a for a, _ in both), Counter(b for _, b in both)
    by_chance = sum(first[label] * second[label] for label in LABELS) / n**2
    return None if by_chance == 1 else (sum(a == b for a, b in both) / n - by_chance) / (1 - by_chance)


def _goes_on_from(data: bytes, record: Mapping[str, Any]) -> bool:
    """Say whether ``reviews.csv`` still begins with what ``review.json`` was made from."""
    try:
        told = record[TABLE.name]
        begin = data[: told["bytes"]]
        return bool(len(begin) == told["bytes"]) and hashlib.sha256(begin).hexdigest() == told["sha256"]
    except (KeyError, TypeError):
        return not record and not data  # the first sample is on the disk before any label


def _same_figure(told: Any, right: Mapping[str, Any], tolerance: float) -> bool:
    if not isinstance(told, dict) or told.keys() != right.keys():
        return False
    return all(
        math.isclose(told[name], value, abs_tol=tolerance)
        if isinstance(value, float) and isinstance(told[name], (int, float))
        else told[name] == value
        for name, value in right.items()
    )


def _ends(figure: Any) -> str:
    if not isinstance(figure, dict):
        return str(figure)
    return ", ".join(f"{name} {value}" for name, value in figure.items())
