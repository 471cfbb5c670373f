"""``run.json``: made, written and read."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_rbcflow import __version__
from napari_rbcflow.errors import BadInput
from napari_rbcflow.ring.disk import replace_file
from napari_rbcflow.session.account import plain
from napari_rbcflow.types import SourceInfo

FORMAT = 1
"""Version of the session folder's layout."""
NAME = "run.json"
STATUSES = ("running", "finished", "stopped", "failed")


class DamagedRun(BadInput):
    """A folder whose ``run.json`` is missing or cannot be made sense of; what lies beside it may be whole."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(f"{folder} is not a session folder: {what}.")
        self.what = what


def now() -> str:
    """Return the local time with its offset from UTC, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def versions() -> dict[str, str | None]:
    """Return what ran, without importing it."""
    found: dict[str, str | None] = {"napari-rbcflow": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", "onnxruntime", "zarr", "napari"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["os"] = platform.platform()
    return found


def source_parameters(source: SourceInfo) -> dict[str, Any]:
    """Return what is known of the source, as it goes into `parameters`."""
    fields = asdict(source)
    warnings = fields.pop("warnings")
    details = fields.pop("details")
    return {
        "source": fields.pop("name"),
        **fields,
        "source_details": dict(details),
        "source_warnings": list(warnings),
    }


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Replace ``run.json`` in one step.

    Raises
    ------
    OSError
    """
    replace_file(folder / NAME, encoded(run))


def encoded(run: Mapping[str, Any]) -> bytes:
    """Return what ``run.json`` holds."""
    text = json.dumps(plain(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A name or path that is not UTF-8 reaches us with lone surrogates; so escaped, JSON gives them back.
    return text.encode(errors="backslashreplace")


def read_run(folder: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises
    ------
    BadInput
        If `folder` is not a session, or one of a newer version; `DamagedRun` where only ``run.json`` tells.
    """
    if folder.is_file():
        raise BadInput(f"{folder} is a file, not a session folder: give the folder that holds run.json.")
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a session folder: there is no such folder.")
    try:
        run = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedRun(folder, "it holds no run.json") from None
    except (OSError, ValueError) as error:
        raise DamagedRun(folder, f"its run.json is damaged ({error})") from None
    if not isinstance(run, dict) or run.get("status") not in STATUSES:
        raise DamagedRun(folder, "its run.json is not one of napari-rbcflow")
    version = run.get("format")
    if not isinstance(version, int):
        raise DamagedRun(folder, "its run.json names no format")
    if version > FORMAT:
        raise BadInput(f"{folder} was written by a newer napari-rbcflow: update to read it.")
    return run
