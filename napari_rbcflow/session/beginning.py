"""The first bytes of a session: its folder, and ``run.json`` before a frame came."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.session import runfile
from napari_rbcflow.session.account import Account
from napari_rbcflow.types import SourceInfo


def make_folder(folder: Path) -> None:
    """Make the folder of a session.

    Parameters
    ----------
    folder : Path
        Must not exist; the folder that it is to be in must.

    Raises
    ------
    BadInput
        If it exists, or cannot be made there.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        raise BadInput(
            f"{folder} exists already: choose a folder that does not, or move that one away."
        ) from None
    except ValueError:
        raise BadInput(
            f"{str(folder)!r} cannot be made: a folder's name cannot hold a NUL character."
        ) from None
    except OSError as error:
        said = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            if not folder.parent.exists():
                raise BadInput(
                    f"{folder} cannot be made: there is no folder {folder.parent}; make that first."
                ) from None
            said = f"{folder.parent} takes no new folders"  # as /proc says it
        raise BadInput(f"{folder} cannot be made ({said}): choose a folder that you may write to.") from None


def first_run(
    source: SourceInfo,
    *,
    parameters: Mapping[str, Any],
    models: Mapping[str, Any],
    patient: str,
    sample: str,
) -> dict[str, Any]:
    """Return ``run.json`` of a run that begins now."""
    return {
        "format": runfile.FORMAT,
        "status": "running",
        "stop_reason": None,
        "stop_sentence": "",
        **Account(warnings=source.warnings).as_dict(),
        "parameters": {**runfile.source_parameters(source), **dict(parameters)},
        "models": dict(models),
        "versions": runfile.versions(),
        "patient": patient,
        "sample": sample,
        "started": runfile.now(),
        "ended": None,
    }
