"""Where numba keeps what it compiled: beside the code, for the user, in a temporary folder, or nowhere.

Compiling takes most of a minute, so numba keeps the result beside the module or in the user's cache, and any
number of processes share it: each file is written whole and renamed. In a container, a shared installation or
with a full disk neither place may take it. That must cost time, not the run.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config as numba_config
from numba.core.caching import FunctionCache

from napari_rbcflow.sentences import say

log = logging.getLogger(__name__)
_CONFIG: Any = numba_config

F = TypeVar("F", bound=Callable[..., Any])


def njit(*, cache: bool = False, **options: Any) -> Callable[[F], F]:
    """`numba.njit` that keeps what it compiled where it can; `options` are numba's own."""

    def compiled(function: F) -> F:
        dispatcher = numba.njit(**options)(function)
        if cache and (kept := _cache_for(function)) is not None:
            dispatcher._cache = kept  # as `enable_caching` does, but no fault of this cache ends anything
        return dispatcher  # type: ignore[no-any-return]

    return compiled


class _Cache(FunctionCache):
    """numba's cache; what cannot be read is made anew, and one that cannot be written is not used."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)  # type: ignore[no-untyped-call]
        except Exception:  # damaged, or another user's
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)  # type: ignore[no-untyped-call]
        except Exception:
            self.disable()  # type: ignore[no-untyped-call]
            _say_once("pipeline.compiled-not-kept")


def _cache_for(function: Callable[..., Any]) -> _Cache | None:
    if _has_home() or _beside(function.__code__.co_filename):
        try:
            return _Cache(function)  # type: ignore[no-untyped-call]
        except (RuntimeError, OSError):  # numba: no place can be written
            pass
    if (folder := _temporary()) is not None:
        before = _CONFIG.CACHE_DIR
        _CONFIG.CACHE_DIR = str(folder)
        try:
            kept: _Cache = _Cache(function)  # type: ignore[no-untyped-call]
        except (RuntimeError, OSError):
            pass
        else:
            _say_once("pipeline.compiled-temporary", folder=folder)
            return kept
        finally:
            _CONFIG.CACHE_DIR = before
    _say_once("pipeline.compiled-not-kept")
    return None


def _has_home() -> bool:
    """Whether numba finds the user's cache: without a home it would make a folder ``~`` where one stands."""
    if _CONFIG.CACHE_DIR or os.environ.get("XDG_CACHE_HOME"):
        return True
    with contextlib.suppress(RuntimeError):
        return bool(Path.home())
    return False


def _beside(file: str) -> bool:
    folder = Path(file).parent / "__pycache__"
    return os.access(folder if folder.exists() else folder.parent, os.W_OK) and not folder.is_file()


@functools.cache
def _temporary() -> Path | None:
    """Return a folder of this user's alone, which the next process finds again; None if none can be had.

    What numba reads there is code, so a folder that another user made, or may write to, is not used.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        place = Path(tempfile.gettempdir())
        if place.samefile(Path.cwd()):  # Python's last resort, where a user wants no such folder
            return None
        folder = place / f"rbcflow-compiled-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (found.st_uid != user or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    return folder if stat.S_ISDIR(found.st_mode) else None


@functools.cache
def _say_once(key: str, **values: object) -> None:
    log.warning("%s", say(key, **values))
