"""Loading a camera into Micro-Manager's core, before anything is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sources.sentences import in_a_line

DEMO_HEIGHT, DEMO_WIDTH = 1096, 1376


def load_demo(core: Any) -> None:
    """Load the DemoCamera as the instrument's camera would be: its field, 8 bit.

    Raises
    ------
    BadInput
        Where it is not installed.
    """
    try:
        core.load_device("Camera", "DemoCamera", "DCam")
        core.initialize_device("Camera")
    except Exception as error:
        raise BadInput(
            f"Micro-Manager's DemoCamera cannot be loaded ({in_a_line(error)}); "
            "reinstall with: pip install napari-rbcflow[all]"
        ) from error
    core.set_camera_device("Camera")
    core.set_property("Camera", "PixelType", "8bit")
    core.set_property("Camera", "OnCameraCCDXSize", str(DEMO_WIDTH))
    core.set_property("Camera", "OnCameraCCDYSize", str(DEMO_HEIGHT))


def configure(core: Any, config: Path, folders: Sequence[Path]) -> None:
    """Load a configuration file and make sure that it has one camera.

    Raises
    ------
    BadInput
        If it cannot be loaded, or names no camera or several at once.
    """
    try:
        core.load_system_configuration(str(config))
    except Exception as error:
        where = " and ".join(str(folder) for folder in folders)
        raise BadInput(
            f"Micro-Manager cannot load {config.name} ({in_a_line(error)}); correct the file, or give "
            f"the folder of the Micro-Manager that it was made with by --mm-path (looked in {where})."
        ) from error
    one_camera(core, config.name)


def one_camera(core: Any, where: str) -> None:
    """Make sure that a configuration has one camera.

    Raises
    ------
    BadInput
    """
    if not core.get_camera_device():
        raise BadInput(
            f"{where} names no camera; choose a default camera in Micro-Manager's hardware wizard."
        )
    if core.get_number_of_camera_channels() > 1:
        raise BadInput(f"{where} names several cameras at once; choose one as the default camera.")
