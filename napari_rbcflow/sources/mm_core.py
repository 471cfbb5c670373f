"""Micro-Manager's core inside this process, through pycromanager's Python backend."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.base import in_a_line

_ONE = threading.Lock()  # pycromanager keeps its core in a global: a second one would be the first


def start_core(folders: Sequence[Path]) -> Any:
    """Return a core with snake_case methods that finds its device adapters in `folders`, first to last."""
    try:
        from mmpycorex.launcher import is_pymmcore_active
        from pycromanager import Core, start_headless
    except ImportError as error:
        raise BadInput("sources.packages-missing", why=error) from error
    if not _ONE.acquire(blocking=False):
        raise BadInput("sources.camera-in-use")
    if is_pymmcore_active():
        _ONE.release()
        raise BadInput("sources.core-in-use")
    try:
        for folder in folders:  # on Windows the adapters find their makers' libraries this way
            if str(folder) not in os.environ["PATH"].split(os.pathsep):
                os.environ["PATH"] += os.pathsep + str(folder)
        start_headless(str(folders[0]), config_file=None, python_backend=True, buffer_size_mb=16)
        core = Core()
        core.set_device_adapter_search_paths([str(folder) for folder in folders])
        return core
    except BaseException:
        stop_core(None)
        raise


def stop_core(core: Any) -> None:
    """Unload every device and leave pycromanager as if nothing had been started."""
    try:
        from mmpycorex.launcher import _PYMMCORES
        from pycromanager import stop_headless
        from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

        # A device that was pulled out may refuse to be unloaded; the rest must go all the same.
        with contextlib.suppress(Exception):
            if core is not None:
                core.set_circular_buffer_memory_footprint(1)
        with contextlib.suppress(Exception):
            stop_headless()
        _PYMMCORES.clear()
        if core is not None:
            # Methods that mmpycorex added hold it, as it holds them: three threads a core for ever.
            vars(core).clear()
        if hasattr(Engine, "singleton"):
            del Engine.singleton  # else the next core would never be used
    finally:
        if _ONE.locked():
            _ONE.release()


def adapter_folders(mm_path: Path | None, config: Path | None) -> list[Path]:
    """Return the folders of device adapters: what the user gave, else what is installed."""
    if mm_path is not None:
        if not mm_path.is_dir():
            raise BadInput("sources.mm-path-no-folder", path=mm_path)
        return [mm_path]
    folders: list[Path] = []
    if config is not None:
        maybe = (config.resolve().parent, _installed())
        folders = [folder for folder in maybe if folder is not None and _has_adapters(folder)]
    with contextlib.suppress(ImportError):
        from mm_test_adapters import device_adapter_path

        folders.append(Path(device_adapter_path()))
    if folders:
        return folders
    if config is None:
        raise BadInput("sources.demo-missing")
    raise BadInput("sources.mm-not-found")


def _installed() -> Path | None:
    from mmpycorex import find_existing_mm_install

    try:
        found = find_existing_mm_install()
    except Exception:  # it raises where it finds nothing, and on Linux always
        return None
    return Path(found) if found else None


def _has_adapters(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in ("mmgr_dal_*", "libmmgr_dal_*"))


DEMO_HEIGHT, DEMO_WIDTH = 1096, 1376


def load_demo(core: Any) -> None:
    """Load the DemoCamera as the instrument's camera would be: its field, 8 bit."""
    try:
        core.load_device("Camera", "DemoCamera", "DCam")
        core.initialize_device("Camera")
    except Exception as error:
        raise BadInput("sources.demo-unloadable", why=in_a_line(error)) from error
    core.set_camera_device("Camera")
    core.set_property("Camera", "PixelType", "8bit")
    core.set_property("Camera", "OnCameraCCDXSize", str(DEMO_WIDTH))
    core.set_property("Camera", "OnCameraCCDYSize", str(DEMO_HEIGHT))


_OF_DEVICE = re.compile(r'Error in device "(.+?)": (.+)')
# What adapters, and the makers' libraries below them, say of a device that another program has: Basler's and
# Hikrobot's "it may be in use", pylon's "exclusively opened by another client", FLIR's "Resource in use".
# Most others (IDS, Hamamatsu, Andor) report only that it does not start.
_IN_USE = re.compile(
    r"\bin use\b|\bby another\b|\balready open(?:ed)?\b|\bexclusively\b|\b(?:resource|device) (?:is )?busy\b",
    re.IGNORECASE,
)
_INITIALIZE = "Property,Core,Initialize,1"  # the line of a configuration at which all devices are started


def device_refusal(why: str) -> BadInput | None:
    """Return what to say where the core's words are of a device that is in use, or that does not start."""
    found = _OF_DEVICE.search(why)
    if found is None:
        return None
    device, words = found.groups()
    if _IN_USE.search(words):
        return BadInput("sources.device-in-use", device=device, why=words)
    return BadInput("sources.device-not-started", device=device, why=words) if _INITIALIZE in why else None


def configure(core: Any, config: Path, folders: Sequence[Path]) -> None:
    """Load a configuration file and make sure that it names one camera."""
    try:
        core.load_system_configuration(str(config))
    except Exception as error:
        where = " and ".join(str(folder) for folder in folders)
        why = in_a_line(error)
        raise device_refusal(why) or BadInput(
            "sources.config-unreadable", name=config.name, why=why, folders=where
        ) from error
    one_camera(core, config.name)


def one_camera(core: Any, name: str) -> None:
    """Make sure that a configuration names one camera."""
    if not core.get_camera_device():
        raise BadInput("sources.config-no-camera", name=name)
    if core.get_number_of_camera_channels() > 1:
        raise BadInput("sources.config-several-cameras", name=name)
