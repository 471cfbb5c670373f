"""A patient's run as a FHIR R4 `Observation`: only a result leaves as final.

HL7 FHIR release 4, https://hl7.org/fhir/R4/observation.html. The codes of `SYSTEM` are ours: we know of none
in LOINC or SNOMED CT for the tank-treading fraction.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput, RbcflowError
from napari_rbcflow.exchange.leaving import OURS, Leaving, ready_to_leave, write_new
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FractionFigure, Signature, record_lines
from napari_rbcflow.trend import one_line
from napari_rbcflow.types import Verdict

SYSTEM = f"urn:uuid:{OURS}"
"""Whose codes and identifiers are ours."""
_HL7 = "http://terminology.hl7.org/CodeSystem"
_UCUM = "http://unitsofmeasure.org"
_SHA256 = "urn:oid:2.16.840.1.101.3.4.2.1"
_STATUS = {
    Verdict.RESULT: "final",
    Verdict.PROVISIONAL: "preliminary",
    Verdict.NO_RESULT: "cancelled",
}


def observation(one: Leaving) -> dict[str, Any]:
    """Return the Observation of a run, as JSON holds it.

    Parameters
    ----------
    one : Leaving
        Of a patient: neither simulated nor of a control sample.

    Returns
    -------
    dict
        `status` is ``final`` for a result, ``preliminary`` for a provisional number and ``cancelled`` where
        there is no result: then there is no value and no component that gives one away, but a
        `dataAbsentReason`.

    Raises
    ------
    BadInput
        If the run is no patient's.
    """
    run, figure, folder = one.run, one.figure, one.session.folder
    if one.conclusion.simulated:
        raise BadInput("exchange.simulated", folder=folder)
    if lot := one.record.get("control_lot"):
        raise BadInput("exchange.control", folder=folder, lot=lot)
    verdict = one.conclusion.verdict
    absent = figure is None or figure.estimate is None
    told: dict[str, Any] = {
        "resourceType": "Observation",
        "id": str(one.id),
        "identifier": [{"system": SYSTEM, "value": str(one.id)}],
        "status": _STATUS[Verdict.NO_RESULT if absent else verdict],
        "category": [_concept("laboratory", system=f"{_HL7}/observation-category")],
        "code": _concept("tank-treading-fraction", say("exchange.observation-title")),
    }
    if patient := one_line(run.get("patient")):  # as the trend calls the same patient
        told["subject"] = {"type": "Patient", "identifier": {"value": patient}, "display": patient}
    told |= _when(one)
    names = [str(one.record.get("operator") or ""), *(signature.by for signature in one.signatures[0])]
    if performers := [{"display": name} for name in dict.fromkeys(names) if name]:
        told["performer"] = performers
    components = [_component("verdict", valueCodeableConcept=_concept(str(verdict), one.conclusion.word))]
    if figure is None or figure.estimate is None:
        told["dataAbsentReason"] = _concept("error", system=f"{_HL7}/data-absent-reason")
    else:
        told["valueQuantity"] = _percent(figure.estimate)
        told["method"] = {"text": say(f"exchange.method-{one.kind}")}
        components += _interval(figure)
    told["note"] = [{"text": text} for text in _notes(one)]
    told["contained"] = [_device(one)]
    told["device"] = {"reference": "#device"}
    if specimen := _specimen(one):
        told["contained"].append(specimen)
        told["specimen"] = {"reference": "#specimen"}
    told["component"] = components
    return told


def write_fhir(folders: Sequence[Path], out: Path) -> int:
    """Write the Observation of each run as JSON, with a Provenance for each signature that holds.

    One resource alone, or all of them in a Bundle; all or none.

    Parameters
    ----------
    folders : sequence of Path
        Sessions, or folders that hold sessions, one level down.
    out : Path
        File to create; must not exist.

    Returns
    -------
    int
        How many runs.

    Raises
    ------
    BadInput
        As `ready_to_leave` and `observation`.
    """
    ready = ready_to_leave(folders)
    found = [observation(one) for one in ready]
    found += [provenance(one, signature) for one in ready for signature in one.signatures[0]]
    entries = [{"fullUrl": f"urn:uuid:{one['id']}", "resource": one} for one in found]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    text = json.dumps(found[0] if len(found) == 1 else bundle, indent=2, ensure_ascii=False, allow_nan=False)
    write_new(out, (text + "\n").encode(errors="backslashreplace"))
    return len(ready)


def provenance(one: Leaving, signature: Signature) -> dict[str, Any]:
    """Return the Provenance of a signature: who signed which files, by hash, when.

    It has no element `signature`, which is for a cryptographic one.
    """
    files = [part.split("=") for part in signature.files.split(";")]
    return {
        "resourceType": "Provenance",
        "id": str(uuid.uuid5(OURS, f"{one.id} {signature.signed} {signature.by} {signature.before}")),
        "target": [{"reference": f"urn:uuid:{one.id}"}],
        "recorded": _moment(signature.signed),
        "activity": _concept("AU", "authenticated", system=f"{_HL7}/v3-DocumentCompletion"),
        "agent": [
            {
                "type": _concept("attester", system=f"{_HL7}/provenance-participant-type"),
                "who": {"display": signature.by},
            }
        ],
        "entity": [
            {"role": "source", "what": {"display": name, "identifier": {"system": _SHA256, "value": digest}}}
            for name, digest in files
        ],
    }


def _concept(code: str, text: str = "", *, system: str = SYSTEM) -> dict[str, Any]:
    coding = {"system": system, "code": code}
    return {"coding": [coding | {"display": text}], "text": text} if text else {"coding": [coding]}


def _component(code: str, **value: Any) -> dict[str, Any]:
    return {"code": _concept(code, say(f"exchange.observation-{code}")), **value}


def _percent(share: float, rounded: Callable[[float], int] = round) -> dict[str, Any]:
    # Two decimals: what a share holds behind the tenth is no part of the number.
    hundredths = rounded(round(10_000 * share, 6))
    return {"value": hundredths / 100, "unit": "%", "system": _UCUM, "code": "%"}


def _interval(figure: FractionFigure) -> list[dict[str, Any]]:
    # Rounding must make no interval narrower.
    known = {}
    for name, end, rounded in (("low", figure.low, math.floor), ("high", figure.high, math.ceil)):
        if end is not None:
            known[f"interval-{name}"] = _percent(end, rounded)
    known["interval-level"] = _percent(figure.level)
    return [
        *(_component(code, valueQuantity=end) for code, end in known.items()),
        _component("interval-method", valueString=figure.method),
        _component("cells", valueInteger=figure.n),
    ]


def _when(one: Leaving) -> dict[str, Any]:
    """Return the time that the number holds for: of the blood, or of the run where it was live."""
    run = one.run
    started, ended = _moment(run.get("started")), _moment(run.get("ended"))
    told: dict[str, Any] = {"issued": datetime.now().astimezone().isoformat(timespec="seconds")}
    if drawn := _moment(one.record.get("drawn")):
        told["effectiveDateTime"] = drawn
    elif (run.get("parameters") or {}).get("live") and started:
        told["effectivePeriod"] = {"start": started} | ({"end": ended} if ended else {})
    return told


def _moment(told: Any) -> str:
    """Return a time as FHIR wants it, with seconds and the offset from UTC; empty where it is none."""
    try:
        moment = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return ""
    return moment.isoformat(timespec="seconds") if moment.tzinfo else ""


def _notes(one: Leaving) -> list[str]:
    run, conclusion = one.run, one.conclusion
    notes = [conclusion.reason]
    if conclusion.verdict is not Verdict.RESULT:
        notes = [say("exchange.not-final", why=conclusion.reason)]
    if not (one.record.get("drawn") or (run.get("parameters") or {}).get("live")):
        notes.append(say("exchange.analysed-only", started=str(run.get("started"))))
    notes += [warning.text for warning in one.session.warnings]
    try:
        changed = len(one.session.changes_in_force)
    except RbcflowError as error:
        notes.append(str(error))
    else:
        if changed and one.figure is not None:
            notes.append(say("exchange.changed-by-hand", cells=changed))
    notes += one.signatures[1]
    notes += [say("exchange.recorded-line", label=label, value=value) for label, value in record_lines(run)]
    return list(dict.fromkeys(notes))


def _device(one: Leaving) -> dict[str, Any]:
    versions: Mapping[str, Any] = one.run.get("versions") or {}
    models: Mapping[str, Any] = one.run.get("models") or {}
    parts = {"software": versions.get("napari-rbcflow")}
    parts |= {stage: (models.get(stage) or {}).get("hash") for stage in ("stage1", "stage2")}
    told: dict[str, Any] = {
        "resourceType": "Device",
        "id": "device",
        "deviceName": [{"name": "napari-rbcflow", "type": "other"}],
        "version": [{"type": {"text": kind}, "value": str(value)} for kind, value in parts.items() if value],
    }
    if serial := one.record.get("instrument_serial"):
        told["serialNumber"] = str(serial)
    return told


def _specimen(one: Leaving) -> dict[str, Any]:
    """Return the blood, as far as it is known; empty where nothing is."""
    told: dict[str, Any] = {}
    if sample := one_line(one.run.get("sample")):
        told["identifier"] = [{"value": sample}]
    if drawn := _moment(one.record.get("drawn")):
        told["collection"] = {"collectedDateTime": drawn}
    if additive := one.record.get("anticoagulant"):
        told["container"] = [{"additiveCodeableConcept": {"text": str(additive)}}]
    return {"resourceType": "Specimen", "id": "specimen"} | told if told else {}
