"""A camera that is mounted turned, and light that falls off: both are seen in the picture, and mended."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from factories import SaysAll, chamber
from sentence_keys import is_said, refused

from napari_rbcflow.errors import BadInput
from napari_rbcflow.pipeline import Run, RunSettings
from napari_rbcflow.session import Session, open_session
from napari_rbcflow.sources import open_frames, open_movie, open_source, turned
from napari_rbcflow.tracking.background import Evenness, MovieBackground
from napari_rbcflow.tracking.tracker import Tracker
from napari_rbcflow.types import Frame, Grey, Track

FRAMES, HEIGHT, WIDTH = 130, 160, 256
Command = Callable[..., tuple[int, str, str]]


@cache
def flow() -> Grey:
    """Blurred cells with a dark rim that move to the right by 6 to 9 px a frame, for two seconds."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    frames = np.empty((FRAMES, HEIGHT, WIDTH), np.uint8)
    starts = [(rng.uniform(15, HEIGHT - 15), 250 - 17 * k, rng.uniform(7, 10)) for k in range(80)]
    for t in range(FRAMES):
        grey = 120 + rng.normal(0, 1.5, (HEIGHT, WIDTH)).astype(np.float32)
        for row, start, speed in starts:
            at = start + speed * t
            if -20 < at < WIDTH + 20:
                r2 = (y - row) ** 2 + (x - at) ** 2
                grey += 25 * np.exp(-r2 / 18) - 10 * np.exp(-((np.sqrt(r2) - 6) ** 2) / 4)
        frames[t] = np.clip(np.rint(grey), 0, 255)
    return frames


def analysed(folder: Path, frames: Grey, **settings: Any) -> Session:
    tifffile.imwrite(folder / "m.tif", frames)
    given = RunSettings(background="movie", **settings)
    run = Run(open_movie(folder / "m.tif"), folder / "s", given, SaysAll())  # type: ignore[arg-type]
    run.start()
    assert run.wait(60)
    return open_session(folder / "s")


def flow_warnings(session: Session) -> list[str]:
    return [w.sentence for w in session.warnings if w.key == "flow-nowhere"]


@pytest.mark.parametrize("mounted", [0, 90, 180, 270])
@pytest.mark.parametrize("direction", ["left-to-right", "right-to-left"])
def test_a_turned_camera_is_seen_and_the_advice_puts_it_right(
    mounted: int, direction: str, tmp_path: Path
) -> None:
    """`mounted` counterclockwise. Where cells flow along x the wrong way, the other direction helps too."""
    frames = np.ascontiguousarray(np.rot90(flow(), mounted // 90, axes=(1, 2)))
    (tmp_path / "first").mkdir()
    session = analysed(tmp_path / "first", frames, flow=direction)
    said = flow_warnings(session)
    right = 0 if direction == "left-to-right" else 180
    if mounted == right:
        assert said == []
        return
    (sentence,) = said
    if mounted in (0, 180):
        other = {"right-to-left": "left-to-right", "left-to-right": "right-to-left"}[direction]
        assert is_said("quality.warn-flow-nowhere-backwards", sentence, other=other)
        changes: dict[str, Any] = {"flow": other}
    else:
        degrees = (mounted + right) % 360
        assert is_said("quality.warn-flow-nowhere-turned", sentence, degrees=degrees)
        changes = {"flow": direction, "rotate": degrees}
    (tmp_path / "second").mkdir()
    mended = analysed(tmp_path / "second", frames, **changes)
    assert flow_warnings(mended) == []
    assert mended.run["cells"]["tracked"] > 40
    parameters = mended.run["parameters"]
    assert parameters["rotate"] == changes.get("rotate", 0)
    assert (parameters["height"], parameters["width"]) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_every_source_is_turned_alike(degrees: int, tmp_path: Path) -> None:
    times = -degrees // 90
    tifffile.imwrite(tmp_path / "m.tif", flow()[:30])
    want = np.rot90(flow()[:30], times, axes=(1, 2))
    for source in (open_movie(tmp_path / "m.tif"), open_source(str(tmp_path / "m.tif"), fps=9999)):
        with (one := turned(source, degrees)) as info:
            assert want.shape[1:] == (info.height, info.width)
            np.testing.assert_array_equal(one.sample(99), want)  # type: ignore[attr-defined]
            np.testing.assert_array_equal([frame.image for frame in one.frames()], want)
    frames = open_frames(tmp_path / "m.tif", rotate=degrees)
    assert frames.shape == want.shape
    np.testing.assert_array_equal(frames.frame(7), want[7])
    frames.close()
    straight, other = chamber(0.2), turned(chamber(0.2), degrees)
    with straight, other as info:
        for a, b in zip(straight.frames(), other.frames(), strict=True):
            np.testing.assert_array_equal(np.rot90(a.image, times), b.image)
        assert b.image.shape == (info.height, info.width)


def test_only_right_angles_turn_a_picture(rbcflow: Command, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", flow()[:30])
    for degrees in (45, -90, 360):
        with refused(BadInput, "sources.rotation-impossible"):
            RunSettings(rotate=degrees)
        code, _, said = rbcflow("analyze", tmp_path / "m.tif", "-o", tmp_path / "s", "--rotate", degrees)
        assert code == 2
        assert is_said("sources.rotation-impossible", said.replace("--rotate", "`rotate`"), value=degrees)
    assert not (tmp_path / "s").exists()


def tracked(frames: Grey) -> list[Track]:
    tracker = Tracker(HEIGHT, WIDTH, fps=60, pixel_size_um=0.605, background=MovieBackground(frames))
    found = [track for k, image in enumerate(frames) for track in tracker.process(Frame(k, k / 60, image))]
    return found + tracker.finish("source-ended")


def test_cells_in_the_dark_parts_of_an_uneven_light_look_as_those_in_the_bright_ones() -> None:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    uneven = np.rint(flow() * (1 - 0.6 * (y * y + x * x) / 2)).astype(np.uint8)
    straight, evened = tracked(flow()), tracked(uneven)
    assert abs(len(evened) - len(straight)) <= 2

    def tilt(track: Track) -> float:
        """Of the light across the crops, as the networks see it."""
        mean = track.crops.mean(axis=0)
        return float(abs(mean[:, :3].mean() - mean[:, -3:].mean()) / np.median(mean))

    assert max(map(tilt, evened)) < max(map(tilt, straight)) + 0.02
    # By hand, so that it is seen what evening out does.
    evenness = Evenness(0.605)
    image, background = evenness.of(uneven[60], np.median(uneven, axis=0).astype(np.uint8))
    assert evenness.falloff == pytest.approx(0.57, abs=0.03)
    assert np.ptp(np.median(background.reshape(8, 20, 8, 32), axis=(1, 3))) <= 6
    assert image[:12, :12].mean() == pytest.approx(image[70:90, 118:138].mean(), rel=0.03)


def test_a_light_as_even_as_usual_stays_as_it_is() -> None:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    usual = np.rint(flow()[:40] * (1 - 0.01 * (y * y + x * x))).astype(np.uint8)
    usual[:, 70:80, 90:100] = 40  # dirt on the glass is no fall-off
    background = np.median(usual, axis=0).astype(np.uint8)
    image, same = Evenness(0.605).of(usual[3], background)
    assert image is usual[3] or np.shares_memory(image, usual)
    assert same is background
