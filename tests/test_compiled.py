"""What numba compiled is kept where it can be, and where it cannot, everything works all the same."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sentence_keys import any_said, is_said

from napari_rbcflow import compiled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="homes and temporary folders of another kind")
MODULE = """
from napari_rbcflow.compiled import njit

@njit(cache=True)
def twice(x):
    return 2 * x
"""
Load = Callable[[], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module beside which nothing can be kept, nor in its user's home, as a new process would."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "kernel.py").write_text(MODULE)
    (package / "__pycache__").touch()  # a file: not even root can write into that
    (tmp_path / "home").touch()
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.syspath_prepend(str(package))

    def load() -> ModuleType:
        compiled._temporary.cache_clear()
        compiled._say_once.cache_clear()
        sys.modules.pop("kernel", None)
        return __import__("kernel")

    yield load
    sys.modules.pop("kernel", None)
    compiled._temporary.cache_clear()


def test_a_temporary_folder_is_found_again_and_said_once(
    load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load().twice(2) == 4
    (record,) = caplog.records
    assert is_said("pipeline.compiled-temporary", record.getMessage())
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.stat().st_mode & 0o077 == 0  # what lies there is run
    again = load().twice
    assert again(2) == 4
    assert sum(again.stats.cache_hits.values()) == 1
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("fault", ["damaged", "full", "anothers", "none", "no home at all"])
def test_without_a_cache_it_computes_all_the_same(
    load: Load,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = "pipeline.compiled-temporary"
    place = tmp_path / "temporary"
    if fault == "damaged":
        assert load().twice(2) == 4
        for file in place.rglob("*.nb*"):
            file.write_bytes(file.read_bytes()[:30])
    elif fault == "full":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", refuse)
        key = "pipeline.compiled-not-kept"
    elif fault == "anothers":
        (place / f"rbcflow-compiled-{os.getuid()}").mkdir()
        (place / f"rbcflow-compiled-{os.getuid()}").chmod(0o777)
        key = "pipeline.compiled-not-kept"
    elif fault == "none":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "home"))
        key = "pipeline.compiled-not-kept"
    else:
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
        monkeypatch.setenv("HOME", "~")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        twice = load().twice
        assert twice(2) == 4
        assert twice(2.5) == 5.0
    said = [record.getMessage() for record in caplog.records]
    assert any_said(key, said)
    assert len(set(said)) == len(said)
    assert list((tmp_path / "here").iterdir()) == []
