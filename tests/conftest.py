"""What the tests share: where the published data lies, if it lies here, and what is slow to make."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared with other tests; read by torch as it loads
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from factories import some_pairs, write
from hypothesis import HealthCheck, settings
from replay_camera.building import CannotBuild, Replay, build
from stand_in.opening import Open, stand_ins

from napari_rbcflow.classification.two_stage import TwoStage
from napari_rbcflow.simulation import ChamberSettings, population, sequences, simulate_movie
from napari_rbcflow.simulation.library import CACHE_VARIABLE, SpriteLibrary, build_library, settings_of_cells

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


def _rendered_once(settings: ChamberSettings) -> SpriteLibrary:
    return _library(settings_of_cells(settings))


@pytest.fixture(autouse=True, scope="session")
def _cells_are_rendered_once() -> None:
    """The simulated cells of a seed are the same in every test, and take five seconds of CPU to render.

    The tests of the chamber itself call `build_library`, which is as it was.
    """
    population.kept_library = sequences.build_library = _rendered_once  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a process of a test keeps of a simulated chamber is not the user's."""
    os.environ.setdefault(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged goes to another process as UTF-8, odd names of files too."""
    report = yield
    report.sections = [
        (name, said.encode("utf-8", "backslashreplace").decode()) for name, said in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the settings of the person who runs it."""
    monkeypatch.setenv("RBCFLOW_CONFIG", str(tmp_path / "config"))


@pytest.fixture(scope="session")
def two_stage() -> TwoStage:
    return TwoStage.load("cpu")


@pytest.fixture
def rbcflow(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line: exit code, what it printed, what it complained of."""
    from napari_rbcflow.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def chamber_movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a quarter of the field, as an AVI; do not touch it."""
    path = tmp_path_factory.mktemp("movie") / "chamber.avi"
    simulate_movie(
        path, seconds=3, settings=ChamberSettings(548, 688, seed=2, cells_per_frame=40, variety=0.3)
    )
    return path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished session of `some_pairs(90)`; do not touch it, `copied` may be."""
    return write(tmp_path_factory.mktemp("session") / "S", some_pairs(90))


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "S"))


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real disk of few megabytes; a test may say how many."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 64)}m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here (needs root on Linux)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def replay(request: pytest.FixtureRequest) -> Replay:
    """The built camera; skips where it cannot be built, but in CI, which has what it takes."""
    pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed")
    pytest.importorskip("pymmcore", reason="pymmcore is not installed")
    cache: pytest.Cache = request.config.cache  # type: ignore[assignment]
    try:
        return Replay(build(cache.mkdir("replay-camera")))
    except CannotBuild as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the replay camera cannot be built: {reason}")


@pytest.fixture
def micro_manager(tmp_path: Path) -> Iterator[Open]:
    """Open stand-ins that play a movie; all are killed in the end."""
    with stand_ins(tmp_path) as open_one:
        yield open_one


@pytest.fixture
def press(qtbot: Any) -> Callable[[Any], None]:
    """Press a button as a person does: only one that can be pressed."""
    from qtpy.QtCore import Qt

    def press(button: Any) -> None:
        assert button.isEnabled()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    return press


@pytest.fixture
def take_picture(qtbot: Any) -> Callable[[Any, str], None]:
    """Look at a viewer or a widget; keep the picture where RBCFLOW_PICTURES says."""

    def take(of: Any, name: str) -> None:
        where = os.environ.get("RBCFLOW_PICTURES")
        if not hasattr(of, "screenshot"):
            qtbot.wait(50)  # a label that grew is laid out anew
            if where:
                of.grab().save(str(Path(where) / name))
            return
        qtbot.wait(300 if where else 100)  # for Qt to lay out what was just said
        picture = of.screenshot(canvas_only=False, flash=False)
        assert picture.std() > 5
        if where:
            from PIL import Image

            Image.fromarray(picture).save(Path(where) / name)

    return take
