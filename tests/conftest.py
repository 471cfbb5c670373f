"""What the tests share: where the published data lies, if it lies here, and what is slow to make."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared with other tests; read by torch as it loads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from napari_rbcflow.simulation import ChamberSettings, population, sequences
from napari_rbcflow.simulation.library import SpriteLibrary, build_library

# How long an example takes says how busy the computer is, and nothing of the code.
settings.register_profile("rbcflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rbcflow")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks" / "covering"
SHARED = Path(os.environ.get("RBCFLOW_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the published cells and the scoring tools; skips where it is absent."""
    if not (SHARED / "data" / "darrin2023").is_dir():
        pytest.skip(f"the published cells are not in {SHARED} (set RBCFLOW_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def coverage() -> dict[str, ModuleType]:
    """The studies of how often the intervals cover; the first of them compiles for a second or two."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ("coverage_raw", "coverage_corrected", "new_patients")
        return {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))


@functools.lru_cache(maxsize=3)  # 116 MB each
def _library(settings: ChamberSettings) -> SpriteLibrary:
    library = build_library(settings)
    for part in (library.weight, library.visible, library.pictures, library.first, library.side):
        part.flags.writeable = False
    return library


def _rendered_once(
    settings: ChamberSettings, progress: Callable[[int, int], None] | None = None
) -> SpriteLibrary:
    usual = ChamberSettings()
    library = _library(
        replace(  # what the pictures of cells do not depend on
            settings,
            height=usual.height,
            width=usual.width,
            cells_per_frame=usual.cells_per_frame,
            seconds=usual.seconds,
        )
    )
    if progress is not None:
        progress(len(library.cells), len(library.cells))
    return library


@pytest.fixture(autouse=True, scope="session")
def _cells_are_rendered_once() -> None:
    """The simulated cells of a seed are the same in every test, and take five seconds of CPU to render.

    The tests of the chamber itself call `build_library`, which is as it was.
    """
    for module in (population, sequences):
        module.build_library = _rendered_once  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged goes to another process as UTF-8, odd names of files too."""
    report = yield
    report.sections = [
        (name, said.encode("utf-8", "backslashreplace").decode()) for name, said in report.sections
    ]
    return report
