"""What describes a study's folder of sessions to archives: RO-Crate 1.1, each run as a `CreateAction`.

https://www.researchobject.org/ro-crate/specification/1.1, with the terms of the Process Run Crate profile. It
names no patient: a crate is made to be published. The sessions inside do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from napari_rbcflow.errors import BadInput
from napari_rbcflow.exchange.leaving import Leaving, ready_to_leave, write_new
from napari_rbcflow.exchange.table import FRACTION_KEY
from napari_rbcflow.sentences import say

NAME = "ro-crate-metadata.json"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_MEDIA = {".json": "application/json", ".csv": "text/csv", ".html": "text/html", ".log": "text/plain"}
_FILES = (
    *("run.json", "cells.csv", "tracks.csv", "pieces.csv", "changes.csv", "reviews.csv", "review.json"),
    *("report.html", "run.log", "crops.zarr", "frames.zarr"),
)
Entity = dict[str, Any]


def write_crate(folders: Sequence[Path], out: Path) -> int:
    """Write the description that makes the folder it lies in an RO-Crate of the sessions in it.

    Parameters
    ----------
    folders : sequence of Path
        Sessions, or folders that hold sessions, one level down.
    out : Path
        ``ro-crate-metadata.json`` in a folder that all sessions lie in; must not exist.

    Returns
    -------
    int
        How many runs.

    Raises
    ------
    BadInput
        As `ready_to_leave`, and if `out` is called otherwise or a session lies elsewhere.
    """
    study = out.absolute().parent
    if out.name != NAME:
        raise BadInput("exchange.crate-name", study=study)
    runs = [(one, _inside(one, study)) for one in ready_to_leave(folders)]
    descriptor: Entity = {
        "@id": NAME,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": say("exchange.crate-title", folder=study.name),
        "description": say("exchange.crate-description"),
        "datePublished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "conformsTo": {"@id": _PROFILE},
        "hasPart": [{"@id": at} for _, at in runs],
        "mentions": [{"@id": f"#{one.id}"} for one, _ in runs],
    }
    profile: Entity = {
        "@id": _PROFILE,
        "@type": "CreativeWork",
        "name": "Process Run Crate",
        "version": "0.5",
    }
    entities = {entity["@id"]: entity for one, at in runs for entity in _entities(one, at)}
    graph = [descriptor, root, profile, *entities.values()]
    text = json.dumps({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}, indent=2)
    write_new(out, (text + "\n").encode())
    return len(runs)


def _inside(one: Leaving, study: Path) -> str:
    """Return the place of a session in the study, as a crate names a folder."""
    folder = one.session.folder.absolute()
    if not folder.resolve().is_relative_to(study.resolve()) or folder.resolve() == study.resolve():
        raise BadInput("exchange.crate-elsewhere", folder=folder, study=study)
    return quote(folder.resolve().relative_to(study.resolve()).as_posix()) + "/"


def _entities(one: Leaving, at: str) -> Iterator[Entity]:
    """Yield a session's folder, what is in it, the run that made it, and the program that ran."""
    run, folder, name = one.run, one.session.folder, one.session.folder.name
    there = [file for file in _FILES if (folder / file).exists()]
    described = say("exchange.crate-session", name=name, verdict=one.conclusion.word)
    if one.conclusion.simulated:
        described += f". {say('exchange.crate-simulated')}"
    session: Entity = {
        "@id": at,
        "@type": "Dataset",
        "name": name,
        "description": described,
        "dateCreated": run.get("started"),
        "hasPart": [{"@id": _place(folder, at, file)} for file in there],
    }
    if one.figure is not None and one.figure.estimate is not None:
        session["variableMeasured"] = {"@id": f"#{one.id}-fraction"}
        yield {
            "@id": f"#{one.id}-fraction",
            "@type": "PropertyValue",
            "name": say("exchange.crate-number", kind=one.kind),
            "propertyID": FRACTION_KEY,
            "value": one.figure.estimate,
            "minValue": one.figure.low,
            "maxValue": one.figure.high,
            "description": one.conclusion.reason,
        }
    yield session
    for file in there:
        yield _file(one, at, file)
    version = str((run.get("versions") or {}).get("napari-rbcflow") or "")
    program: Entity = {
        "@id": f"#napari-rbcflow-{quote(version)}",
        "@type": "SoftwareApplication",
        "name": say("exchange.crate-software-title", version=version),
        "softwareVersion": version,
    }
    action: Entity = {
        "@id": f"#{one.id}",
        "@type": "CreateAction",
        "name": say("exchange.crate-run", name=name),
        "instrument": {"@id": program["@id"]},
        "result": {"@id": at},
        "startTime": run.get("started"),
        "actionStatus": {
            "@id": "http://schema.org/" + ("FailedActionStatus" if _failed(one) else "CompletedActionStatus")
        },
    }
    if run.get("ended"):
        action["endTime"] = run["ended"]
    if operator := one.record.get("operator"):
        person = {"@id": f"#person-{quote(str(operator))}", "@type": "Person", "name": str(operator)}
        action["agent"] = {"@id": person["@id"]}
        yield person
    yield program
    yield action


def _failed(one: Leaving) -> bool:
    return one.session.interrupted or one.run["status"] == "failed"


def _place(folder: Path, at: str, file: str) -> str:
    return f"{at}{file}/" if (folder / file).is_dir() else f"{at}{file}"


def _file(one: Leaving, at: str, file: str) -> Entity:
    path = one.session.folder / file
    told: Entity = {
        "@id": _place(one.session.folder, at, file),
        "@type": "Dataset" if path.is_dir() else "File",
        "name": file,
        "description": say(f"exchange.file-{file.replace('.', '-')}"),
    }
    if path.is_file():
        told |= {"encodingFormat": _MEDIA[path.suffix], "contentSize": str(path.stat().st_size)}
        if (known := (one.run.get("files") or {}).get(file)) and file != "run.json":
            told["sha256"] = known["sha256"]
    return told
