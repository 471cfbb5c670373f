"""The camera of an open Micro-Manager. Only ever used in a process that may be killed."""

from __future__ import annotations

import time
from typing import Any

from napari_rbcflow.errors import BadInput, LiveModeOn
from napari_rbcflow.sources.core_camera import CoreCamera
from napari_rbcflow.sources.mm_loading import one_camera
from napari_rbcflow.sources.mm_wanted import CameraSettings
from napari_rbcflow.sources.running.java_core import JavaCore

_TO_END_LIVE_S = 2.0
"""Micro-Manager's window ends its sequence behind our back, a frame or two later."""


class RunningCamera(CoreCamera):
    """The camera of the Micro-Manager whose server is at `port`.

    Parameters
    ----------
    settings : CameraSettings
    port : int
    end_live : bool
        Stop Micro-Manager's Live mode where it is on; else that is an error.
    """

    def __init__(self, settings: CameraSettings, port: int, end_live: bool) -> None:
        super().__init__(settings)
        self._port, self._end_live = port, end_live

    def _connect(self) -> Any:
        return JavaCore(self._port)

    def _configure(self, core: Any) -> None:
        if core.live_mode:
            if not self._end_live:
                raise LiveModeOn(
                    "Live mode is on in Micro-Manager: end it there with its Live button, or start with "
                    "--end-live-mode."
                )
            core.end_live_mode()
            _until_it_stands_still(core)
        one_camera(core, "Micro-Manager's configuration")
        if core.is_sequence_running():
            raise BadInput("Micro-Manager is acquiring: end its acquisition there, and start again.")

    def _make_room(self, megabytes: int) -> None:
        # It is the user's own Micro-Manager: what it has is kept where it is enough.
        if self._core.get_circular_buffer_memory_footprint() < megabytes:
            super()._make_room(megabytes)

    def _disconnect(self, core: Any) -> None:
        """Leave Micro-Manager open, its camera stopped; the settings that were asked for stay."""
        core.give_back()


def _until_it_stands_still(core: Any) -> None:
    until = time.monotonic() + _TO_END_LIVE_S
    while core.is_sequence_running() and time.monotonic() < until:
        time.sleep(0.02)
