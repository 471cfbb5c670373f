"""A camera behind a Micro-Manager core: set, measured, popped, every lost frame counted."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed
from napari_rbcflow.sources.base import LEAST_SIDE_PX, FrameSource, in_a_line
from napari_rbcflow.sources.camera_settings import (
    CameraSettings,
    Taken,
    apply_settings,
    details_of,
    differences,
    pixel_size,
)
from napari_rbcflow.sources.frame_loss import CoreClock, LossLedger
from napari_rbcflow.sources.grey import GreyRule, Raw, channels, check_pixels, grey_of
from napari_rbcflow.sources.mm_core import adapter_folders, configure, load_demo, start_core, stop_core
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, SourceInfo

_ENDLESS = 2_000_000_000
"""Frames asked for: a year at 60 frames/s, and less than a 32-bit long holds."""
_BUFFER_S = 4.0
"""How long the core's buffer bridges a consumer that stands still..."""
_BUFFER_LIMITS_MB = (64, 1024)
"""...within these."""
_SILENT_S = 2.0
_SILENT_FRAMES = 20
_TO_ANSWER_S = 1.5
_AS_ASKED = 0.01
"""Half a second tells the frame rate no better than this: a rate that was set is then truer."""


class CoreCamera(FrameSource):
    """What every camera behind a core has in common; the kinds say where the core comes from.

    Parameters
    ----------
    settings : CameraSettings
        What the user asked for.

    Notes
    -----
    Frames are popped from a sequence acquisition that stops on overflow, since one that goes on
    clears its buffer without a flag. After an overflow the camera is started again; what was lost
    meanwhile is in `missed`.
    """

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self._core: Any = None
        self._info: SourceInfo | None = None
        self._grey = GreyRule()
        self._period_ms = 1000 / DEFAULT_FPS
        self._ledger = LossLedger(self._period_ms)
        self._stopped = threading.Event()
        # Unloading a device under a thread that pops from it crashes the process.
        self._in_core = threading.RLock()

    @abstractmethod
    def _connect(self) -> Any:
        """Return a core with the snake_case methods of pycromanager's Python backend."""

    def _configure(self, core: Any) -> None:
        """Make the core's camera ready to take settings."""

    @abstractmethod
    def _disconnect(self, core: Any) -> None:
        """Give the core back; its camera stands still."""

    _is_demo = False
    """Whether it is Micro-Manager's DemoCamera as we load it, whose exposure sets its frame rate."""

    def open(self) -> SourceInfo:
        if self._info is not None:
            return self._info
        self._settings.check()
        self._core = self._connect()
        try:
            self._configure(self._core)
            self._info = self._look()
        except BaseException as error:
            self.close()
            if isinstance(error, RbcflowError) or not isinstance(error, Exception):
                raise
            raise BadInput(f"The camera could not be made ready: {in_a_line(error)}.") from error
        return self._info

    def frames(self) -> Iterator[Frame]:
        if self._info is None or self._core is None:
            raise RuntimeError("open the camera first")
        try:
            yield from self._run(self._info.name)
        finally:
            self._stop_sequence()

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._stopped.set()
        with self._in_core:
            core, self._core = self._core, None
            if core is None:
                return
            with contextlib.suppress(Exception):
                core.stop_sequence_acquisition()
            self._disconnect(core)

    @property
    def silence_s(self) -> float | None:
        return 1.5 * self._silence_s()

    def _silence_s(self) -> float:
        return max(_SILENT_S, _SILENT_FRAMES * self._period_ms / 1000)

    @property
    def missed(self) -> Mapping[str, int]:
        return dict(self._ledger.missed)

    def _run(self, name: str) -> Iterator[Frame]:
        silence_s = self._silence_s()
        nap_s = min(0.004, self._period_ms / 4000)
        clock = CoreClock()
        self._guarded(name, self._start_sequence)
        heard = time.monotonic()
        while not self._stopped.is_set():
            burst = self._guarded(name, self._waiting)
            if burst is None:
                break
            for _ in range(burst):
                number, time_ms, image = self._guarded(name, lambda: self._pop(clock))
                yield from self._ledger.take(number, time_ms, image)
                if self._stopped.is_set():
                    break
            if burst:
                heard = time.monotonic()
                continue
            if not self._guarded(name, self._running):
                if self._guarded(name, self._waiting):
                    continue
                if not self._guarded(name, lambda: self._core.is_buffer_overflowed()):
                    # It ended its own sequence, or was pulled out: the core says the same of both, but
                    # only the first can still take a picture.
                    yield from self._ledger.finish()
                    self._take_a_picture(name)
                    break
                yield from self._ledger.restarted("overflow")
                clock.restarted()
                self._guarded(name, self._start_sequence)
                heard = time.monotonic()
            elif time.monotonic() - heard > silence_s:
                yield from self._ledger.finish()
                raise RunFailed(
                    f"{name} sent no frame for {silence_s:.0f} s; check its cable and power, start again."
                )
            else:
                time.sleep(nap_s)
        yield from self._ledger.finish()

    def _guarded(self, name: str, call: Any) -> Any:
        """Call into the core, unless it was closed meanwhile; what it throws becomes one sentence."""
        with self._in_core:
            if self._core is None:
                raise RunFailed(f"{name} was closed while it ran.")
            try:
                return call()
            except Exception as error:
                raise RunFailed(
                    f"{name} failed: {in_a_line(error)}; check the camera and start again."
                ) from error

    def _waiting(self) -> int:
        return int(self._core.get_remaining_image_count())

    def _running(self) -> bool:
        return bool(self._core.is_sequence_running())

    def _start_sequence(self) -> None:
        self._core.start_sequence_acquisition(_ENDLESS, 0, True)

    def _take_a_picture(self, name: str) -> None:
        """Raise where the camera cannot, or does not answer."""
        failed: list[Exception] = []

        def take() -> None:
            try:
                self._guarded(name, lambda: self._core.snap_image())
            except Exception as error:
                failed.append(error)

        if not _in_time(take):
            raise RunFailed(f"{name} does not answer: check its cable and power, start again.")
        if failed:
            raise failed[0]

    def _stop_sequence(self) -> None:
        """Stop the camera; one whose driver hangs is not waited for, so that the fault is told."""

        def stop() -> None:
            with self._in_core, contextlib.suppress(Exception):
                if self._core is not None:
                    self._core.stop_sequence_acquisition()

        _in_time(stop)

    def _pop(self, clock: CoreClock) -> tuple[int, float, NDArray[np.uint8]]:
        tagged = self._core.pop_next_tagged_image()
        number, time_ms = clock.read(tagged.tags)
        image = self._grey.apply(channels(tagged.pix))
        if self._info is not None and image.shape != (self._info.height, self._info.width):
            raise ValueError("its field was changed while the run went on")
        return number, time_ms, image

    def _look(self) -> SourceInfo:
        """Apply the settings, take a few frames, and say what the camera really does."""
        core, settings = self._core, self._settings
        label = str(core.get_camera_device())
        warnings: list[str] = []
        causes = apply_settings(core, label, settings, warnings, demo=self._is_demo)
        check_pixels(core, label)
        bytes_a_frame = int(core.get_image_width() * core.get_image_height() * core.get_bytes_per_pixel())
        asked_fps = settings.fps or DEFAULT_FPS
        low, high = _BUFFER_LIMITS_MB
        self._make_room(int(min(high, max(low, _BUFFER_S * asked_fps * bytes_a_frame / 2**20))))
        raw, self._period_ms = self._try(label)
        self._ledger = LossLedger(self._period_ms)
        fps = round(1000 / self._period_ms, 2)
        if settings.fps and abs(fps / settings.fps - 1) < _AS_ASKED:
            fps = settings.fps
        # Read back after the camera ran: some take a setting only then.
        taken = Taken.read(core, label)
        amiss = list(differences(label, settings, taken, fps, causes))
        warnings += [one.sentence for one in amiss]
        self._grey = grey_of(raw, int(core.get_image_bit_depth()), label, warnings)
        height, width = raw.shape[:2]
        if min(height, width) < LEAST_SIDE_PX:
            raise BadInput(
                f"{label} gives {width} x {height} px; choose a field of at least "
                f"{LEAST_SIDE_PX} x {LEAST_SIDE_PX} px."
            )
        pixel, pixel_from = pixel_size(core, settings.pixel_size_um, warnings)
        if pixel is None:
            warnings.append(
                f"Micro-Manager has no pixel size for {label}: {DEFAULT_PIXEL_SIZE_UM:g} um is taken."
            )
        details = details_of(core, label, taken) | {
            "fps_measured": f"{fps:g}",
            "pixel_size_from": pixel_from,
            **({"not_as_asked": "; ".join(one.words for one in amiss)} if amiss else {}),
        }
        return SourceInfo(
            name="DemoCamera" if self._is_demo else label,
            height=height,
            width=width,
            fps=fps,
            pixel_size_um=pixel or DEFAULT_PIXEL_SIZE_UM,
            pixel_size_known=pixel is not None,
            exposure_ms=taken.exposure_ms,
            live=True,
            details=details,
            warnings=tuple(warnings),
        )

    def _make_room(self, megabytes: int) -> None:
        self._core.set_circular_buffer_memory_footprint(megabytes)

    def _try(self, label: str) -> tuple[Raw, float]:
        """Run the camera for about half a second; return a frame and the median period in ms."""
        core, clock = self._core, CoreClock()
        patience_s = max(5.0, 0.02 * float(core.get_exposure()))
        raw: Raw | None = None
        times: list[float] = []
        try:
            self._start_sequence()
            began = time.monotonic()
            while len(times) < 31 and not (len(times) > 4 and time.monotonic() - began > 0.6):
                if not self._waiting():
                    if not self._running() or time.monotonic() - began > patience_s:
                        break
                    time.sleep(0.002)
                    continue
                tagged = core.pop_next_tagged_image()
                raw = channels(tagged.pix)
                times.append(clock.read(tagged.tags)[1])
        finally:
            core.stop_sequence_acquisition()
            core.clear_circular_buffer()
        if raw is None:
            raise BadInput(
                f"{label} gave no frame in {patience_s:.0f} s; check its cable, power and trigger mode."
            )
        if len(times) < 3:
            raise BadInput(f"{label} gave {len(times)} frames and stopped; set it to run freely.")
        return raw, float(np.median(np.diff(times)))


def _in_time(call: Callable[[], None]) -> bool:
    """Make a call that a driver may never return from; say whether it did in `_TO_ANSWER_S`."""
    thread = threading.Thread(target=call, name="rbcflow-camera", daemon=True)
    thread.start()
    thread.join(_TO_ANSWER_S)
    return not thread.is_alive()


class MicroManagerCamera(CoreCamera):
    """Micro-Manager's DemoCamera or the camera of a configuration file.

    Parameters
    ----------
    config : Path or None
        A Micro-Manager configuration; None: the DemoCamera, at 1376 x 1096, 8 bit.
    mm_path : Path or None
        Folder with the device adapters (Micro-Manager's own). None: the configuration's folder, an
        installed Micro-Manager, or the test adapters, whichever is there.
    exposure_ms, fps, binning : float, float, int or None
        None leaves what the configuration sets (the DemoCamera: 60 frames/s). The paper's exposure of
        2.2 ms is never set unasked: how much light there is only the laboratory knows.
    roi : tuple of int (x, y, width, height) or None
        In binned pixels.
    pixel_size_um : float or None
        Used where Micro-Manager has no calibration, or none that a microscope can have.
    pixel_type : str or None
        As the camera calls it, or as another one calls the same (`grey.matching`).
    """

    def __init__(
        self,
        config: Path | str | None = None,
        *,
        mm_path: Path | str | None = None,
        exposure_ms: float | None = None,
        fps: float | None = None,
        binning: int | None = None,
        roi: tuple[int, int, int, int] | None = None,
        pixel_size_um: float | None = None,
        pixel_type: str | None = None,
    ) -> None:
        super().__init__(CameraSettings(exposure_ms, fps, binning, roi, pixel_size_um, pixel_type))
        self._config = None if config is None else Path(config)
        self._mm_path = None if mm_path is None else Path(mm_path)
        self._is_demo = config is None

    def _connect(self) -> Any:
        if self._config is not None and not self._config.is_file():
            raise BadInput(f"{self._config} does not exist; give a Micro-Manager configuration file (.cfg).")
        self._folders = adapter_folders(self._mm_path, self._config)
        return start_core(self._folders)

    def _configure(self, core: Any) -> None:
        if self._config is None:
            load_demo(core)
        else:
            configure(core, self._config, self._folders)

    def _disconnect(self, core: Any) -> None:
        stop_core(core)
