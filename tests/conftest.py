"""What the tests share: where the published data lies, if it lies here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RBCFLOW_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the published cells and the scoring tools; skips where it is absent."""
    if not (SHARED / "data" / "darrin2023").is_dir():
        pytest.skip(f"the published cells are not in {SHARED} (set RBCFLOW_SHARED)")
    return SHARED
