"""A run's record: who measured, which blood in which medium, at which instrument; checked by a template.

In ``run.json`` it is the flat object `record`: names in snake_case with the unit in the name, each with a
text or a number; a field that nobody filled in is not there. Times are ISO 8601 with their offset from UTC.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session.append_only import one_line

LONGEST = 200
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_NOT_FOR_RECORDS = ("patient", "sample")  # stand in run.json themselves


class FieldKind(StrEnum):
    """What a field of a record holds."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True)
class RecordField:
    """One field of a record.

    Attributes
    ----------
    name : str
        As in ``run.json``, with its unit.
    label : str
        What a person reads.
    kind : FieldKind
    unit : str
        Behind the label; empty for none.
    required : bool
        Whether no run begins without it.
    least, most : float
        Of a number.
    choices : tuple of str
        Of a text; empty for any.
    help : str
        A tooltip.
    """

    name: str
    label: str
    kind: FieldKind = FieldKind.TEXT
    unit: str = ""
    required: bool = False
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    help: str = ""

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def value(self, given: object) -> str | float | None:
        """Return what was given as the record holds it; None where it is empty; `BadInput` if it is wrong."""
        if isinstance(given, datetime):
            given = given.isoformat()
        if isinstance(given, bool) or not isinstance(given, (str, int, float, type(None))):
            raise BadInput("session.record-not-a-value", label=self.label, value=given)
        text = one_line(str("" if given is None else given))
        if not text:
            return None
        if self.kind is FieldKind.NUMBER:
            return self._number(text)
        if self.kind is FieldKind.TIME:
            return self._time(text)
        if self.choices and text not in self.choices:
            choices = ", ".join(self.choices)
            raise BadInput("session.record-not-a-choice", label=self.label, value=text, choices=choices)
        if len(text) > LONGEST:
            raise BadInput("session.record-too-long", label=self.label, length=len(text), most=LONGEST)
        return text

    def _number(self, text: str) -> float:
        try:
            number = float(text.replace(",", "."))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadInput("session.record-not-a-number", label=self.label, value=text)
        if not self.least <= number <= self.most:
            bounds = {"least": self.least, "most": self.most}
            raise BadInput("session.record-outside", label=self.label, value=number, **bounds)
        return number

    def _time(self, text: str) -> str:
        try:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.astimezone()
        except (ValueError, OverflowError, OSError):  # of a year that no local time is known for
            raise BadInput("session.record-not-a-time", label=self.label, value=text) from None
        return moment.isoformat(timespec="minutes")


def _standard() -> tuple[RecordField, ...]:
    number = FieldKind.NUMBER
    return (
        RecordField("operator", say("session.record-operator")),
        RecordField("drawn", say("session.record-drawn"), FieldKind.TIME),
        RecordField("anticoagulant", say("session.record-anticoagulant")),
        RecordField("medium", say("session.record-medium")),
        RecordField("medium_lot", say("session.record-medium-lot")),
        RecordField(
            "viscosity_mpa_s", say("session.record-viscosity"), number, "mPa s", least=0.1, most=10_000
        ),
        RecordField("chamber", say("session.record-chamber")),
        RecordField(
            "pump_rate_ul_per_min", say("session.record-pump-rate"), number, "µl/min", least=0, most=1e6
        ),
        RecordField("temperature_c", say("session.record-temperature"), number, "°C", least=-20, most=100),
        RecordField("instrument_serial", say("session.record-instrument-serial")),
        RecordField("control_lot", say("session.record-control-lot")),
    )


@dataclass(frozen=True)
class RecordTemplate:
    """The fields of a laboratory's records: the standard ones, and its own.

    Attributes
    ----------
    fields : tuple of RecordField
    """

    fields: tuple[RecordField, ...] = field(default_factory=_standard)

    @classmethod
    def read(cls, path: Path) -> RecordTemplate:
        """Read a laboratory's template, a TOML or JSON file.

        Its table `fields` holds one for each field, named as in ``run.json``, with any of `label`, `unit`,
        `kind` (``text``, ``number``, ``time``), `required`, `least`, `most`, `choices`, `help`. One that has
        the name of a standard field changes that, such as to make it required.

        Raises
        ------
        BadInput
            If it cannot be read or says what is not known.
        """
        told = _table_in(path, "session.template-unreadable").get("fields")
        if not isinstance(told, dict):
            raise BadInput("session.template-without-fields", path=path)
        found = {standard.name: standard for standard in _standard()}
        for name, entries in told.items():
            if not _NAME.fullmatch(name) or name in _NOT_FOR_RECORDS:
                raise BadInput("session.template-name", path=path, name=name)
            start = found.get(name, RecordField(name, name.replace("_", " ").capitalize()))
            found[name] = _changed(start, entries, path)
        return cls(tuple(found.values()))

    def record(self, values: Mapping[str, object]) -> RunRecord:
        """Return a record with these values, checked; `BadInput` with what is wrong with the first bad one.

        Fields that are required may be missing still: `RunRecord.refuse_incomplete` is asked before a run.
        """
        known = {field.name: field for field in self.fields}
        checked: dict[str, str | float] = {}
        for name, given in values.items():
            if name not in known:
                raise BadInput("session.record-unknown", name=name, names=", ".join(known))
            value = known[name].value(given)
            if value is not None:
                checked[name] = value
        return RunRecord({name: checked[name] for name in known if name in checked}, self)


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run beside its frames; made by `RecordTemplate.record`.

    Attributes
    ----------
    values : mapping of str to (str or float)
        As ``run.json`` holds it.
    template : RecordTemplate
    """

    values: Mapping[str, str | float] = field(default_factory=dict)
    template: RecordTemplate = field(default_factory=RecordTemplate)

    @classmethod
    def parse(cls, texts: Sequence[str] = (), template: Path | None = None) -> RunRecord:
        """Return the record that a command line gives; of a field that is given twice, the later one counts.

        Parameters
        ----------
        texts : sequence of str
            Each ``name=value``, or the path of a TOML or JSON file.
        template : path, optional
            A laboratory's own.
        """
        values: dict[str, object] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if equals and _NAME.fullmatch(name.strip()):
                values[name.strip()] = value
            else:
                values |= _table_in(Path(text), "session.record-file-unreadable")
        return (RecordTemplate() if template is None else RecordTemplate.read(template)).record(values)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return it as ``run.json`` holds it: the values, and what a laboratory's own fields are called."""
        standard = {field.name: field.title for field in _standard()}
        titles = {f.name: f.title for f in self.template.fields if f.name in self.values}
        own = {name: title for name, title in titles.items() if standard.get(name) != title}
        return {"record": dict(self.values), "record_titles": own}

    @property
    def missing(self) -> list[RecordField]:
        """The fields that are required and not filled in."""
        return [f for f in self.template.fields if f.required and f.name not in self.values]

    def refuse_incomplete(self) -> None:
        """Raise `BadInput` if a required field is not filled in."""
        if missing := self.missing:
            labels = ", ".join(field.title for field in missing)
            raise BadInput("session.record-missing", names=len(missing), labels=labels)


def record_lines(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return label and value of each field of the record in ``run.json``, for a person."""
    titles = {field.name: field.title for field in _standard()} | (run.get("record_titles") or {})
    return [
        (titles.get(name, name), f"{value:g}" if isinstance(value, (int, float)) else str(value))
        for name, value in (run.get("record") or {}).items()
    ]


def _table_in(path: Path, unreadable: str) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(unreadable, path=path, why=why) from None
    if not isinstance(table, dict):
        raise BadInput(unreadable, path=path, why=type(table).__name__)
    return table


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# What a template may say of a field: whether it fits, and what is asked for where it does not.
_ENTRIES: dict[str, tuple[Callable[[Any], object], str]] = {
    "label": (lambda v: isinstance(v, str) and v.strip(), "session.template-wants-text"),
    "unit": (lambda v: isinstance(v, str), "session.template-wants-text"),
    "help": (lambda v: isinstance(v, str), "session.template-wants-text"),
    "kind": (lambda v: v in list(FieldKind), "session.template-wants-kind"),
    "required": (lambda v: isinstance(v, bool), "session.template-wants-yes-or-no"),
    "least": (_is_number, "session.template-wants-number"),
    "most": (_is_number, "session.template-wants-number"),
    "choices": (
        lambda v: isinstance(v, list) and v and all(isinstance(x, str) and x.strip() for x in v),
        "session.template-wants-texts",
    ),
}


def _changed(start: RecordField, entries: object, path: Path) -> RecordField:
    if not isinstance(entries, dict):
        raise BadInput("session.template-without-fields", path=path)
    for entry, value in entries.items():
        if entry not in _ENTRIES:
            known = ", ".join(_ENTRIES)
            raise BadInput(
                "session.template-unknown-entry", path=path, entry=entry, name=start.name, entries=known
            )
        fits, wanted = _ENTRIES[entry]
        if not fits(value):
            raise BadInput(
                "session.template-entry", path=path, entry=entry, name=start.name, wanted=say(wanted)
            )
    changes: dict[str, Any] = dict(entries)
    for name in ("label", "unit", "help"):
        if name in changes:
            changes[name] = one_line(changes[name])
    if "kind" in changes:
        changes["kind"] = FieldKind(changes["kind"])
    elif {"least", "most"} & changes.keys():
        changes["kind"] = FieldKind.NUMBER
    if "choices" in changes:
        changes["choices"] = tuple(one_line(choice) for choice in changes["choices"])
    return replace(start, **changes)
