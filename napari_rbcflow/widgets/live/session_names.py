"""Where a new session goes."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

from napari_rbcflow.errors import BadInput

_LONGEST_PART = 40


def session_name(patient: str, sample: str) -> str:
    """Return a folder's name: date, time, patient and sample, without what a file name cannot hold."""
    parts = [time.strftime("%Y%m%d-%H%M%S"), _safe(patient), _safe(sample)]
    return "_".join(part for part in parts if part)


def new_session(folder: Path, patient: str, sample: str) -> Path:
    """Return the path of a session that does not exist yet, in a folder that may be written.

    Parameters
    ----------
    folder : Path
        Where all sessions are; made where it is missing.
    patient, sample : str

    Raises
    ------
    BadInput
        Where that folder cannot be made or written.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"Sessions cannot be kept in {folder} ({error.strerror or error}): choose another folder for"
            " sessions."
        ) from None
    path = folder / session_name(patient, sample)
    names = [path, *(path.with_name(f"{path.name}-{k}") for k in range(2, 100))]
    return next((name for name in names if not name.exists()), path)


def _safe(text: str) -> str:
    """Keep letters and digits of any script; everything else becomes a hyphen."""
    return re.sub(r"[^\w]+|_", "-", text).strip("-")[:_LONGEST_PART].rstrip("-")
