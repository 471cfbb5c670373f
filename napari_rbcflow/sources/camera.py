"""A camera behind a Micro-Manager core: set, measured, read, every lost frame counted."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput, RbcflowError, RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.base import MIN_SIDE_PX, FrameSource, in_a_line, number_in
from napari_rbcflow.sources.camera_settings import (
    CameraSettings,
    CameraState,
    apply_settings,
    details_of,
    differences,
    pixel_size,
)
from napari_rbcflow.sources.frame_loss import ARRIVAL, Came, CoreClock, LossLedger, choose_clock
from napari_rbcflow.sources.grey import GreyRule, Raw, camera_grey, channels, check_pixels
from napari_rbcflow.sources.mm_core import (
    adapter_folders,
    configure,
    device_refusal,
    load_demo,
    start_core,
    stop_core,
)
from napari_rbcflow.types import DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, SourceInfo

TEST_ADAPTERS = frozenset({"DemoCamera", "SequenceTester"})
"""Micro-Manager's adapters whose cameras make up their pictures."""
_ENDLESS = 2_000_000_000  # frames asked for: a year at 60 frames/s, and fewer than a 32-bit long holds
_BUFFER_S = 4.0  # that the core's buffer holds while nobody takes frames, within these limits
_BUFFER_LIMITS_MB = (64, 1024)
# A camera is silent after so many seconds, or frames where those take longer.
_SILENT_S, _SILENT_FRAMES = 2.0, 20
_START_S = 5.0  # for the first frame of a sequence, or twice what it took when the camera was tried
_ANSWER_S = 1.5  # to wait for a call into a driver that may hang
_FPS_TOLERANCE = 0.01  # half a second measures no better than this: a rate that was set is then truer


class CoreCamera(FrameSource):
    """What every camera behind a core has in common; the kinds say where the core comes from.

    Frames are popped from a sequence acquisition that stops on overflow, since one that goes on
    clears its buffer without a flag. After an overflow the camera is started again; what was lost
    until then is in `missed`.
    """

    _is_demo = False
    """Whether it is Micro-Manager's DemoCamera as we load it, whose exposure sets its frame rate."""

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self._core: Any = None
        self._info: SourceInfo | None = None
        self._grey = GreyRule()
        self._period_ms = 1000 / DEFAULT_FPS
        self._clock = CoreClock()
        self._first_s = _START_S
        self._starting = True
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
        """Give the core back; its camera does not run."""

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
            why = in_a_line(error)
            raise device_refusal(why) or BadInput("sources.camera-not-ready", why=why) from error
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
        """Return how long the camera may send nothing now."""
        usual_s = max(_SILENT_S, _SILENT_FRAMES * self._period_ms / 1000)
        return max(usual_s, self._first_s) if self._starting else usual_s

    @property
    def missed(self) -> Mapping[str, int]:
        return dict(self._ledger.missed)

    def _run(self, name: str) -> Iterator[Frame]:
        try:
            yield from self._stream(name)
        except RunFailed:
            yield from self._ledger.finish()
            raise
        yield from self._ledger.finish()

    def _stream(self, name: str) -> Iterator[Frame]:
        nap_s = min(0.004, self._period_ms / 4000)
        clock = self._clock.anew()
        self._call(name, self._start_sequence)
        heard = empty = time.monotonic()
        while not self._stopped.is_set():
            looked = time.monotonic()
            burst = self._call(name, self._waiting)
            for _ in range(burst):
                number, time_ms, image = self._call(name, lambda: self._pop(clock, 1000 * empty))  # noqa: B023
                self._starting = False
                yield from self._ledger.take(number, time_ms, image)
                if self._stopped.is_set():
                    break
            if burst:
                heard = time.monotonic()
                continue
            empty = looked
            if not self._call(name, self._running):
                if self._call(name, self._waiting):
                    continue
                if not self._call(name, lambda: self._core.is_buffer_overflowed()):
                    # It ended its own sequence, or was unplugged: the core reports the same of both, but
                    # only the first can still take a picture.
                    self._take_a_picture(name)
                    break
                yield from self._ledger.restarted("overflow")
                clock.restarted()
                self._call(name, self._start_sequence)
                heard = time.monotonic()
            elif time.monotonic() - heard > (silence_s := self._silence_s()):
                raise RunFailed("sources.camera-silent", camera=name, seconds=silence_s)
            else:
                time.sleep(nap_s)

    def _call(self, name: str, call: Callable[[], Any]) -> Any:
        """Call into the core, unless it was closed; what it throws becomes one sentence."""
        with self._in_core:
            if self._core is None:
                raise RunFailed("sources.camera-closed", camera=name)
            try:
                return call()
            except Exception as error:
                raise RunFailed("sources.camera-failed", camera=name, why=in_a_line(error)) from error

    def _waiting(self) -> int:
        return int(self._core.get_remaining_image_count())

    def _running(self) -> bool:
        return bool(self._core.is_sequence_running())

    def _start_sequence(self) -> None:
        self._starting = True
        self._core.start_sequence_acquisition(_ENDLESS, 0, True)

    def _take_a_picture(self, name: str) -> None:
        """Take one picture; RunFailed where the camera cannot, or does not answer."""
        failed: list[RunFailed] = []

        def take() -> None:
            try:
                self._call(name, lambda: self._core.snap_image())
            except RunFailed as error:
                failed.append(error)

        if not _in_time(take):
            raise RunFailed("sources.camera-no-answer", camera=name)
        if failed:
            raise failed[0]

    def _stop_sequence(self) -> None:
        """Stop the camera, but do not wait for a driver that hangs."""

        def stop() -> None:
            with self._in_core, contextlib.suppress(Exception):
                if self._core is not None:
                    self._core.stop_sequence_acquisition()

        _in_time(stop)

    def _pop(self, clock: CoreClock, empty_ms: float) -> tuple[int | None, float, NDArray[np.uint8]]:
        tagged = self._core.pop_next_tagged_image()
        number, time_ms = clock.read(tagged.tags, empty_ms)
        image = self._grey.apply(channels(tagged.pix))
        if self._info is not None and image.shape != (self._info.height, self._info.width):
            raise ValueError(say("sources.field-changed"))
        return number, time_ms, image

    def _look(self) -> SourceInfo:
        """Apply the settings, take a few frames, and return what the camera really does."""
        core, settings = self._core, self._settings
        label = str(core.get_camera_device())
        warnings: list[str] = []
        causes = apply_settings(core, label, settings, warnings, demo=self._is_demo)
        check_pixels(core, label)
        bytes_a_frame = int(core.get_image_width() * core.get_image_height() * core.get_bytes_per_pixel())
        asked_fps = settings.fps or DEFAULT_FPS
        low, high = _BUFFER_LIMITS_MB
        self._make_room(int(min(high, max(low, _BUFFER_S * asked_fps * bytes_a_frame / 2**20))))
        raw, self._clock = self._try(label)
        self._period_ms = self._clock.period_ms
        self._ledger = LossLedger(self._period_ms)
        fps = round(1000 / self._period_ms, 2)
        if settings.fps and abs(fps / settings.fps - 1) < _FPS_TOLERANCE:
            fps = settings.fps
        # Read back after the camera ran: some take a setting only then.
        state = CameraState.read(core, label)
        different = list(differences(label, settings, state, fps, causes))
        warnings += [sentence for _, sentence in different]
        if re.fullmatch(r"\W*(\d+)\s*[x×*,]\s*(?!\1\b)\d+\W*", state.binning, re.IGNORECASE):
            warnings.append(say("sources.binning-uneven", camera=label, binning=state.binning))
        self._grey = camera_grey(raw, int(core.get_image_bit_depth()), label, warnings)
        height, width = raw.shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            raise BadInput(
                "sources.field-too-small", camera=label, width=width, height=height, least=MIN_SIDE_PX
            )
        pixel, pixel_from = pixel_size(core, settings.pixel_size_um, warnings)
        if pixel is None:
            warnings.append(say("sources.no-calibration", camera=label, pixel=DEFAULT_PIXEL_SIZE_UM))
        details = details_of(core, label, state) | {
            "fps_measured": f"{fps:g}",
            "pixel_size_from": pixel_from,
        }
        details["times_from"] = self._clock.tag or ARRIVAL
        if not self._clock.tag:
            warnings.append(say("sources.no-times", camera=label))
        if different:
            details["not_as_asked"] = "; ".join(words for words, _ in different)
        return SourceInfo(
            name="DemoCamera" if self._is_demo else label,
            height=height,
            width=width,
            fps=fps,
            pixel_size_um=pixel or DEFAULT_PIXEL_SIZE_UM,
            pixel_size_known=pixel is not None,
            exposure_ms=state.exposure_ms,
            live=True,
            simulated=str(core.get_device_library(label)) in TEST_ADAPTERS,
            details=details,
            warnings=tuple(warnings),
        )

    def _make_room(self, megabytes: int) -> None:
        self._core.set_circular_buffer_memory_footprint(megabytes)

    def _try(self, label: str) -> tuple[Raw, CoreClock]:
        """Run the camera for about half a second; return a frame, and the clock that its frames carry."""
        core = self._core
        patience_s = max(_START_S, 0.02 * (number_in(core.get_exposure()) or 0.0))
        raw: Raw | None = None
        came: list[Came] = []
        try:
            self._start_sequence()
            began = empty = time.monotonic()
            while len(came) < 31 and not (len(came) > 4 and time.monotonic() - began > 0.6):
                looked = time.monotonic()
                if not self._waiting():
                    empty = looked
                    if not self._running() or looked - began > patience_s:
                        break
                    time.sleep(0.002)
                    continue
                tagged = core.pop_next_tagged_image()
                popped = time.monotonic()
                if raw is None:
                    self._first_s = max(_START_S, 2 * (popped - began))
                    began = popped
                raw = channels(tagged.pix)
                came.append(Came(tagged.tags, 1000 * empty, 1000 * popped))
        finally:
            core.stop_sequence_acquisition()
            core.clear_circular_buffer()
        if raw is None:
            raise BadInput("sources.no-first-frame", camera=label, seconds=patience_s)
        if len(came) < 3:
            raise BadInput("sources.few-first-frames", camera=label, frames=len(came))
        return raw, choose_clock(came)


def _in_time(call: Callable[[], None]) -> bool:
    """Make a call that a driver may never return from; tell whether it did within `_ANSWER_S`."""
    thread = threading.Thread(target=call, name="rbcflow-camera", daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    return not thread.is_alive()


class MicroManagerCamera(CoreCamera):
    """The camera of a Micro-Manager configuration; None: the DemoCamera, at 1376 x 1096 px, 8 bit."""

    def __init__(
        self,
        config: Path | None = None,
        settings: CameraSettings | None = None,
        *,
        mm_path: Path | str | None = None,
    ) -> None:
        super().__init__(settings or CameraSettings())
        self._config = config
        self._mm_path = None if mm_path is None else Path(mm_path)
        self._is_demo = config is None

    def _connect(self) -> Any:
        if self._config is not None and not self._config.is_file():
            raise BadInput("sources.config-missing", path=self._config)
        self._folders = adapter_folders(self._mm_path, self._config)
        return start_core(self._folders)

    def _configure(self, core: Any) -> None:
        if self._config is None:
            load_demo(core)
        else:
            configure(core, self._config, self._folders)

    def _disconnect(self, core: Any) -> None:
        stop_core(core)
