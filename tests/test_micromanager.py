"""The in-process core of Micro-Manager: its DemoCamera for real, and the account of what is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_keys import refused

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sentences import say
from napari_rbcflow.sources.camera import MicroManagerCamera
from napari_rbcflow.sources.camera_settings import CameraSettings
from napari_rbcflow.sources.factory import open_source
from napari_rbcflow.sources.frame_loss import LossLedger
from napari_rbcflow.sources.grey import camera_grey, match_pixel_type
from napari_rbcflow.sources.mm_core import start_core, stop_core
from napari_rbcflow.types import Frame

PERIOD_MS = 1000 / 60
PICTURE = np.zeros((64, 64), np.uint8)


@pytest.fixture
def demo() -> Path:
    """Folder of the test adapters; skips where they are not installed."""
    adapters = pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed")
    pytest.importorskip("pymmcore", reason="pymmcore is not installed")
    return Path(adapters.device_adapter_path())


def run_for(camera: MicroManagerCamera, seconds: float) -> list[Frame]:
    """Take frames until then; keep no images."""
    got: list[Frame] = []
    began = time.monotonic()
    for frame in camera.frames():
        got.append(Frame(frame.index, frame.time_s, frame.image if len(got) < 2 else PICTURE))
        if time.monotonic() - began > seconds:
            camera.stop()
    return got


def accounted(frames: list[Frame], camera: MicroManagerCamera) -> bool:
    """Every place on the camera's clock is either a frame that came or one that is counted as missed."""
    indices = [frame.index for frame in frames]
    return indices[0] == 0 and indices[-1] + 1 == len(indices) + sum(camera.missed.values())


@pytest.mark.slow
def test_demo_camera_runs_through_the_real_core_and_every_frame_is_accounted_for(demo: Path) -> None:
    camera = open_source("demo")
    assert isinstance(camera, MicroManagerCamera)
    with camera as info:
        assert (info.width, info.height, info.live, info.n_frames) == (1376, 1096, True, None)
        assert 20 < info.fps < 70  # as measured: a busy machine slows this camera
        assert not info.pixel_size_known
        assert say("sources.no-calibration", camera="Camera", pixel=0.605) in info.warnings
        frames = run_for(camera, 3)
    indices = np.array([frame.index for frame in frames])
    assert (np.diff(indices) > 0).all()
    assert accounted(frames, camera)
    times = np.array([frame.time_s for frame in frames])
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    # Places follow the camera's time, but for periods that a busy machine stretched by less than a half.
    assert times[-1] * info.fps / 1.6 < indices[-1] < times[-1] * info.fps * 1.6
    assert frames[0].image.shape == (1096, 1376)
    assert frames[0].image.dtype == np.uint8
    assert frames[0].image.any()
    frames[0].image[:] = 0  # an owned copy: the core's buffer is not behind it
    assert frames[1].image.any()


@pytest.mark.slow
def test_opened_again_and_again_in_one_process(demo: Path) -> None:
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    for _ in range(3):
        camera = MicroManagerCamera()
        with camera:
            frames = run_for(camera, 0.3)
        assert len(frames) > 5
        assert accounted(frames, camera)
        camera.close()
        assert not [t for t in threading.enumerate() if "Acq" in t.name]
        assert Engine.get_instance() is None  # else pycromanager's acquisitions would use the dead core


def test_stop_from_another_thread_ends_the_run_and_the_camera(demo: Path) -> None:
    camera, got = MicroManagerCamera(), []
    with camera:
        threading.Timer(0.3, camera.stop).start()
        got = [frame.index for frame in camera.frames()]
        assert not camera._core.is_sequence_running()
    assert got


def test_close_under_a_running_thread_ends_it_with_a_sentence(demo: Path) -> None:
    """Devices are unloaded under the thread that pops: it must neither crash nor hang."""
    camera, ended = MicroManagerCamera(), []

    def take() -> None:
        try:
            for _ in camera.frames():
                pass
            ended.append("stopped")
        except RunFailed as error:
            ended.append(str(error))

    camera.open()
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    time.sleep(0.3)
    camera.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_settings_are_read_back(demo: Path) -> None:
    camera = MicroManagerCamera(
        settings=CameraSettings(
            fps=100, exposure_ms=2.2, binning=2, roi=(8, 16, 320, 240), pixel_size_um=1.21
        )
    )
    with camera as info:
        assert (info.width, info.height) == (320, 240)
        assert info.details["roi_px"] == "8,16,320,240"
        assert info.details["binning"] == "2"
        assert info.details["pixel_size_from"] == "setting"
        assert info.details["not_as_asked"].startswith("exposure 10 ms, not 2.2")
        assert (info.pixel_size_um, info.pixel_size_known) == (1.21, True)
        assert info.exposure_ms == pytest.approx(10, abs=0.1)
        assert 20 < info.fps < 120
        assert any(say("sources.because-of-demo") in warning for warning in info.warnings)


CONFIG = """
Device,Cam,DemoCamera,DCam
Property,Core,Initialize,1
Property,Core,Camera,Cam
Property,Cam,OnCameraCCDXSize,320
Property,Cam,OnCameraCCDYSize,200
Property,Cam,PixelType,{pixel_type}
Property,Cam,BitDepth,{bits}
Property,Cam,Mode,{mode}
ConfigGroup,System,Startup,Cam,Binning,1
ConfigPixelSize,Res,Cam,Binning,1
PixelSize_um,Res,0.31
"""


@pytest.mark.parametrize(
    ("pixel_type", "bits", "mode", "warning"),
    [
        ("8bit", 8, "Artificial Waves", None),
        ("16bit", 12, "Artificial Waves", say("sources.deep-camera", camera="Cam", bits=12, divisor=16)),
        ("32bitRGB", 8, "Color Test Pattern", say("sources.in-colour", name="Cam")),
    ],
)
def test_a_configuration_file_gives_grey_at_its_own_calibration(
    demo: Path, tmp_path: Path, pixel_type: str, bits: int, mode: str, warning: str | None
) -> None:
    config = tmp_path / "scope.cfg"
    config.write_text(CONFIG.format(pixel_type=pixel_type, bits=bits, mode=mode))
    camera = open_source(str(config), mm_path=demo, exposure_ms=12.5, fps=300, pixel_size_um=0.605)
    with camera as info:
        assert info.details["not_as_asked"].endswith("frames/s, not 300")
        assert say("sources.no-fps-setting", camera="Cam") in info.warnings
        assert info.details["pixel_size_from"] == "calibration"
        assert (info.name, info.width, info.height) == ("Cam", 320, 200)
        assert (info.pixel_size_um, info.pixel_size_known) == (0.31, True)
        assert say("sources.calibration-used", calibrated=0.31, given=0.605) in info.warnings
        assert info.exposure_ms == 12.5
        assert warning is None or warning in info.warnings
        frame = next(iter(camera.frames()))
    assert frame.image.dtype == np.uint8
    assert frame.image.shape == (200, 320)
    assert np.ptp(frame.image) > 5


def test_a_calibration_that_no_microscope_has_is_not_believed(demo: Path, tmp_path: Path) -> None:
    config = tmp_path / "scope.cfg"
    text = CONFIG.format(pixel_type="8bit", bits=8, mode="Noise").replace("Res,0.31", "Res,31")
    config.write_text(text + "Property,Cam,Exposure,7.5\n")
    with open_source(str(config), mm_path=demo, pixel_size_um=0.4) as info:
        assert (info.pixel_size_um, info.pixel_size_known) == (0.4, True)
        origin = say("sources.origin-calibration")
        assert say("sources.pixel-size-implausible", origin=origin, pixel=31) in info.warnings
        assert info.exposure_ms == 7.5  # the configuration's own, not the paper's


def test_every_pixel_type_of_the_demo_camera_arrives_as_grey(demo: Path) -> None:
    """Asked for by the names of another camera. In colour this one draws other waves in each channel."""
    greys = []
    for asked, took in (("8bit-MONO", "8bit"), ("16bit-mono", "16bit"), ("8bit-COLOR", "32bitRGB")):
        source = open_source("demo", pixel_type=asked, roi=(0, 0, 320, 240), fps=100)
        with source as info:
            assert info.details["pixel_type"] == took
            assert not any("pixel type" in warning for warning in info.warnings)
            image = next(iter(source.frames())).image
        assert (image.dtype, image.shape) == (np.uint8, (240, 320))
        assert np.ptp(image) > 5
        greys.append(image.astype(int))
    # It draws 16 bits in finer steps of its waves.
    assert np.abs(greys[1] - greys[0]).max() <= 1
    assert np.abs(greys[2][0] - greys[0][0]).max() <= 1  # the first line is grey


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_whatever_the_depth_the_grey_is_that_of_8_bits(bits: int) -> None:
    """A 16-bit pixel holds fewer bits with most cameras; a camera that says a wrong number is found out."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    raw = grey.astype(np.uint16) << (bits - 8)
    warnings: list[str] = []
    assert np.array_equal(camera_grey(raw, bits, "Cam", warnings).apply(raw), grey)
    assert warnings == [say("sources.deep-camera", camera="Cam", bits=bits, divisor=1 << (bits - 8))]
    left = grey.astype(np.uint16) << 8  # in the upper bits, which no camera of fewer than 16 can fill else
    assert np.array_equal(camera_grey(left, bits, "Cam", []).apply(left), grey)
    if bits < 16:
        dark: list[str] = []
        camera_grey(raw, 16, "Cam", dark)
        unused = say(
            "sources.bits-unused", camera="Cam", bits=16, greatest=int(raw.max()), held=bits + bits % 2
        )
        assert dark[0] == unused


@pytest.mark.parametrize(
    ("wanted", "allowed", "meant"),
    [
        ("8bit-mono", ["8bit-MONO", "16bit-MONO", "8bit-COLOR"], "8bit-MONO"),
        ("16 BIT mono", ["8bit-MONO", "16bit-MONO", "8bit-COLOR"], "16bit-MONO"),
        ("8bit", ["8bit-COLOR", "8bit-MONO"], "8bit-MONO"),
        ("8bit-COLOR", ["8bit", "16bit", "32bit", "32bitRGB", "64bitRGB"], "32bitRGB"),
        ("16bit-colour", ["8bit", "16bit", "32bit", "32bitRGB", "64bitRGB"], "64bitRGB"),
        ("32bit", ["8bit", "32bit", "32bitRGB"], "32bit"),
        ("12bit", ["Mono8", "Mono12", "Mono16"], "Mono12"),
        ("8bit", ["16bit"], None),
        ("mono", ["8bit-MONO"], None),
        ("8bit", [], None),
    ],
)
def test_a_pixel_type_is_found_under_the_cameras_own_name(
    wanted: str, allowed: list[str], meant: str | None
) -> None:
    assert match_pixel_type(wanted, allowed) == meant


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (None, "config-missing", None),
        ("# nothing\n", "config-no-camera", None),
        ("what is this\n", "config-no-camera", None),
        ("Device,C,Lumenera,LumeneraCamera\nProperty,Core,Initialize,1\n", "config-unreadable", "Lumenera"),
        ("Device,C,DemoCamera,NoSuchDevice\nProperty,Core,Initialize,1\n", "config-unreadable", "scope.cfg"),
        (CONFIG.format(pixel_type="7bit", bits=8, mode="Noise"), "config-unreadable", "scope.cfg"),
        # A name given twice is "already in use", too, and no other program has anything to do with it.
        (2 * "Device,C,DemoCamera,DCam\n", "config-unreadable", "scope.cfg"),
        ("Device,C,DemoCamera,DCam\n" + 2 * "Property,Core,Initialize,1\n", "config-unreadable", None),
    ],
)
def test_a_wrong_configuration_is_refused_and_the_next_one_opens(
    demo: Path, tmp_path: Path, text: str | None, key: str, words: str | None
) -> None:
    config = tmp_path / "scope.cfg"
    if text is not None:
        config.write_text(text)
    with pytest.raises(BadInput, match=words) as caught, open_source(str(config)):
        pass
    assert caught.value.key == f"sources.{key}"
    assert "\n" not in str(caught.value)
    with MicroManagerCamera(settings=CameraSettings(roi=(0, 0, 128, 64))) as info:
        assert info.width == 128


@pytest.mark.parametrize(
    ("asked", "key", "words"),
    [
        ({"binning": 3}, "binning-unknown", "by 3.* 1, 2, 4, 8"),
        ({"roi": (1300, 0, 100, 100)}, "field-too-large", "1300,0,100,100"),
        ({"roi": (0, 0, 63, 100)}, "field-too-small", "63 x 100"),
        ({"fps": 0}, "fps-impossible", "0.1 to 10,000 frames/s"),
        ({"pixel_size_um": 0.01}, "pixel-size-impossible", "0.05 to 5 µm"),
        ({"binning": 0}, "binning-impossible", None),
        ({"pixel_type": "7bit"}, "pixel-type-unknown", "'7bit'.* 16bit, 32bit, 32bitRGB, 64bitRGB, 8bit"),
        ({"pixel_type": " "}, "pixel-type-empty", None),
        ({"pixel_type": "32bit"}, "camera-32-bit-grey", None),
        ({"exposure_ms": -1}, "exposure-impossible", "0.001 to 10,000 ms"),
        ({"mm_path": "/no/such/folder"}, "mm-path-no-folder", "/no/such/folder"),
    ],
)
def test_settings_that_the_camera_cannot_take_are_refused(
    demo: Path, asked: dict[str, object], key: str, words: str | None
) -> None:
    with pytest.raises(BadInput, match=words) as caught, open_source("demo", **asked):  # type: ignore[arg-type]
        pass
    assert caught.value.key == f"sources.{key}"


def test_a_second_camera_at_the_same_time_is_refused_and_the_first_goes_on(demo: Path) -> None:
    first = MicroManagerCamera(settings=CameraSettings(roi=(0, 0, 128, 64)))
    with first:
        with refused(BadInput, "sources.camera-in-use"):
            MicroManagerCamera().open()
        assert len(run_for(first, 0.2)) > 3


def test_a_core_that_somebody_else_started_is_left_alone(demo: Path) -> None:
    from pycromanager import start_headless

    start_headless(str(demo), config_file=None, python_backend=True, buffer_size_mb=16)
    try:
        with refused(BadInput, "sources.core-in-use"):
            MicroManagerCamera().open()
    finally:
        stop_core(None)
    core = start_core([demo])
    stop_core(core)


def test_without_the_packages_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mm_test_adapters", None)
    with refused(BadInput, "sources.demo-missing"):
        MicroManagerCamera().open()
    monkeypatch.setitem(__import__("sys").modules, "pycromanager", None)
    with refused(BadInput, "sources.packages-missing"):
        MicroManagerCamera(mm_path=Path(__file__).parent).open()


class Faulty:
    """Stands before a real core and breaks one of its calls on request, as a camera that goes away does."""

    def __init__(self, core: object) -> None:
        self.core, self.silent, self.thrown = core, False, ""

    def __getattr__(self, name: str) -> object:
        if self.thrown and name == "get_remaining_image_count":
            raise OSError(self.thrown)
        if self.silent and name == "get_remaining_image_count":
            return lambda: 0
        return getattr(self.core, name)


@pytest.fixture
def faulty(demo: Path) -> Iterator[tuple[MicroManagerCamera, Faulty]]:
    camera = MicroManagerCamera(settings=CameraSettings(roi=(0, 0, 128, 64)))
    with camera:
        camera._core = Faulty(camera._core)
        yield camera, camera._core


@pytest.mark.slow
def test_a_camera_that_falls_silent_fails_the_run(faulty: tuple[MicroManagerCamera, Faulty]) -> None:
    camera, core = faulty
    got: list[Frame] = []

    def until_silent() -> None:
        for frame in camera.frames():
            got.append(frame)
            core.silent = len(got) >= 10

    with pytest.raises(RunFailed, match=" 2 s") as failed:
        until_silent()
    assert failed.value.key == "sources.camera-silent"
    assert len(got) >= 10


def test_a_core_that_throws_fails_the_run(faulty: tuple[MicroManagerCamera, Faulty]) -> None:
    camera, core = faulty

    def until_unplugged() -> None:
        for _ in camera.frames():
            core.thrown = "Error in device\nCamera unplugged"

    with pytest.raises(RunFailed, match="DemoCamera") as failed:
        until_unplugged()
    assert failed.value.key == "sources.camera-failed"
    assert "unplugged" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.slow
def test_an_overflow_is_counted_and_the_run_goes_on(demo: Path) -> None:
    camera = MicroManagerCamera(settings=CameraSettings(fps=100))
    with camera:
        camera._core.set_circular_buffer_memory_footprint(16)  # 11 frames
        frames = []
        for frame in camera.frames():
            frames.append(Frame(frame.index, frame.time_s, PICTURE))
            if len(frames) == 20:
                time.sleep(0.4)
            if len(frames) >= 40:
                camera.stop()
    assert camera.missed.get("overflow", 0) > 10
    assert accounted(frames, camera)
    gap = int(np.argmax(np.diff([frame.index for frame in frames])))
    assert frames[gap + 1].time_s - frames[gap].time_s > 0.2


def place(frames: list[tuple[int, float]], period_ms: float = PERIOD_MS) -> tuple[list[int], dict[str, int]]:
    ledger, placed = LossLedger(period_ms), []
    for number, time_ms in frames:
        placed += ledger.take(number, time_ms, PICTURE)
    placed += ledger.finish()
    return [frame.index for frame in placed], ledger.missed


@settings(deadline=None)
@given(
    lost_in_camera=st.sets(st.integers(1, 99), max_size=15),
    lost_in_core=st.sets(st.integers(1, 99), max_size=15),
    jitter=st.lists(st.floats(-0.1, 0.1), min_size=101, max_size=101),
)
def test_every_lost_frame_is_counted_once_with_its_reason(
    lost_in_camera: set[int], lost_in_core: set[int], jitter: list[float]
) -> None:
    """Frames lost in the camera leave no gap in the image number, those lost in the core do."""
    lost_in_core -= lost_in_camera
    came, number = [], 0
    for k in range(101):
        if k in lost_in_camera:
            continue
        if k not in lost_in_core:
            came.append((k, number, (k + jitter[k]) * PERIOD_MS))
        number += 1
    indices, missed = place([(number, time_ms) for _, number, time_ms in came])
    assert indices == [k for k, _, _ in came]
    assert missed.get("time-gap", 0) == len(lost_in_camera)
    assert missed.get("image-number", 0) == len(lost_in_core)


@settings(deadline=None)
@given(late=st.dictionaries(st.integers(1, 15).map(lambda k: 6 * k), st.floats(0.6, 2.9)))
def test_a_frame_that_is_only_late_is_no_loss(late: dict[int, float]) -> None:
    """A thread that slept delivers late, and those that waited behind it at once."""
    times, latest = [], 0.0
    for k in range(101):
        latest = max(latest + 0.01, k + late.get(k, 0.0))
        times.append(latest * PERIOD_MS)
    assert place(list(enumerate(times))) == (list(range(101)), {})


@settings(deadline=None)
@given(
    lost_in_camera=st.sets(st.integers(1, 99), max_size=15),
    lost_in_core=st.sets(st.integers(1, 99), max_size=15),
    breaks=st.dictionaries(st.integers(1, 98), st.sampled_from(["overflow", "image-number"]), max_size=4),
    jitter=st.lists(st.floats(-0.1, 0.1), min_size=101, max_size=101),
)
def test_a_loss_that_shows_in_two_signs_is_counted_once(
    lost_in_camera: set[int], lost_in_core: set[int], breaks: dict[int, str], jitter: list[float]
) -> None:
    """A sequence that broke numbers its frames anew, with an overflow flag or without; more is lost."""
    ledger, placed, came, number = LossLedger(PERIOD_MS), [], [], 0
    for k in range(101):
        if k in breaks:
            number = 0
            if breaks[k] == "overflow":
                placed += ledger.restarted("overflow")
        if k in lost_in_camera:
            continue
        if k not in lost_in_core:
            came.append(k)
            placed += ledger.take(number, (k + jitter[k]) * PERIOD_MS, PICTURE)
        number += 1
    placed += ledger.finish()
    assert [frame.index for frame in placed] == came
    assert sum(ledger.missed.values()) == 101 - len(came)
    assert set(ledger.missed) <= {"time-gap", "image-number", "overflow"}
    assert "overflow" not in ledger.missed or "overflow" in breaks.values()


@pytest.mark.parametrize("first", [0, 900])
def test_numbers_that_begin_anew_are_placed_by_time(first: int) -> None:
    """Also where they begin higher than they were: the time tells that so many cannot have gone by."""
    frames = [(k, k * PERIOD_MS) for k in range(5)]
    frames += [(first + k, (k + 9) * PERIOD_MS) for k in range(5)]
    assert place(frames) == ([0, 1, 2, 3, 4, 9, 10, 11, 12, 13], {"image-number": 4})
