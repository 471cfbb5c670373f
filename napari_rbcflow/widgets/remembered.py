"""What the viewer remembers from one day to the next: the person, the camera, the display.

The same settings stand in napari's own File > Preferences, which keeps them in a file of its own. What was
last put there is remembered beside our settings: where napari's value is another one now, a person has
changed it there, and it holds.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs

from napari_rbcflow.errors import BadInput
from napari_rbcflow.ring import replace_file
from napari_rbcflow.sources import CameraSettings, parse_roi
from napari_rbcflow.tracking import Direction

FORMAT = 1
"""Version of the file."""
NAME = "settings.json"
FOLDER_VARIABLE = "RBCFLOW_CONFIG"
PORT_RANGE = (1.0, 65535.0)
PICTURE_HZ_RANGE = (1.0, 30.0)
PICTURE_DELAY_RANGE_S = (0.0, 10.0)
PictureMode = Literal["cells", "newest"]

_IN_PREFERENCES = "in_preferences"
"""Key of what napari's Preferences held when they were last in step with us."""
_NOT_IN_FILE = ("unknown", "remark")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the viewer remembers.

    Attributes
    ----------
    sessions_folder : Path
        Where new sessions are made.
    person : str
        Who changes labels by hand; see `who`.
    camera : str
        As ``--camera`` of ``rbcflow live``.
    mm_path : str
        Micro-Manager's folder; empty where it is found by itself.
    exposure_ms, fps, pixel_size_um : float or None
        None leaves it to the camera or to the file.
    binning : int or None
    roi : str
        As ``--roi``; empty for the whole field.
    pixel_type : str
        As ``--pixel-type``; empty leaves it to the camera.
    port : int or None
        Of the server of a Micro-Manager that is open, as ``--port``; None for its usual one.
    flow : {"left-to-right", "right-to-left"}
    picture_hz : float
        How often the live picture is drawn.
    picture_delay_s : float
        How far the live picture may stand behind the camera.
    picture_mode : {"cells", "newest"}
        Show the frame whose cells were just tracked, or the newest one without marks.
    show_unreliable : bool
        Whether unreliable cells are marked too.
    unknown : mapping
        What the file held besides; kept when it is written again.
    remark : str
        What a person must be told of the file that was read; empty if nothing. Not written.

    Raises
    ------
    BadInput
        For a value that cannot be.
    """

    sessions_folder: Path = field(default_factory=lambda: Path.home() / "rbcflow-sessions")
    person: str = ""
    camera: str = "simulated"
    mm_path: str = ""
    exposure_ms: float | None = None
    fps: float | None = None
    pixel_size_um: float | None = None
    binning: int | None = None
    roi: str = ""
    pixel_type: str = ""
    port: int | None = None
    flow: Direction = "left-to-right"
    picture_hz: float = 20.0
    picture_delay_s: float = 1.0
    picture_mode: PictureMode = "cells"
    show_unreliable: bool = True
    unknown: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""

    def __post_init__(self) -> None:
        for name in ("person", "camera", "mm_path", "roi", "pixel_type"):
            if not isinstance(getattr(self, name), str):
                raise BadInput(f"The setting {name} is a text, not {getattr(self, name)!r}.")
        if not isinstance(self.sessions_folder, Path):
            raise BadInput(f"The setting sessions_folder is a folder, not {self.sessions_folder!r}.")
        if not self.camera:
            raise BadInput(
                "The setting camera is empty: write simulated, demo, running or the path of a FILE.cfg."
            )
        for name in ("exposure_ms", "fps", "pixel_size_um", "binning"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))
        for name in ("binning", "port"):
            if not isinstance(getattr(self, name), int | None):
                raise BadInput(f"The setting {name} is a whole number, not {getattr(self, name)!r}.")
        if self.port is not None:
            _check_number("port", self.port, PORT_RANGE)
        CameraSettings(
            self.exposure_ms, self.fps, self.binning, parse_roi(self.roi or None), self.pixel_size_um
        ).check()
        _check_number("picture_hz", self.picture_hz, PICTURE_HZ_RANGE)
        _check_number("picture_delay_s", self.picture_delay_s, PICTURE_DELAY_RANGE_S)
        _check_choice("flow", self.flow, get_args(Direction))
        _check_choice("picture_mode", self.picture_mode, get_args(PictureMode))
        if not isinstance(self.show_unreliable, bool):
            raise BadInput(f"The setting show_unreliable is true or false, not {self.show_unreliable!r}.")

    @property
    def who(self) -> str:
        """The person, or where none is set, who is logged in at this computer."""
        if self.person.strip():
            return self.person.strip()
        try:
            return getpass.getuser()
        except (OSError, KeyError, ImportError):  # a computer without user names
            return "unknown"


def settings_path() -> Path:
    """Return where the settings lie: the environment variable `FOLDER_VARIABLE` names another folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return (Path(folder) if folder else Path(platformdirs.user_config_dir("napari-rbcflow"))) / NAME


def load_settings() -> Settings:
    """Read the settings; never fails.

    Returns
    -------
    Settings
        The defaults where there is no file yet. A file that is damaged or from a newer version is put
        aside, and `remark` says so. What a person has changed in napari's Preferences holds.
    """
    settings = _read()
    if not _beside_preferences():
        return settings
    last_put = settings.unknown.get(_IN_PREFERENCES)
    try:
        changed = changed_there(last_put if isinstance(last_put, dict) else {})
        if not changed and (isinstance(last_put, dict) or settings == Settings()):
            return settings
        if "sessions_folder" in changed:
            folder = changed["sessions_folder"]
            changed["sessions_folder"] = Path(folder).expanduser() if folder else Settings().sessions_folder
        save_settings(replace(settings, **changed))
    except BadInput as error:
        remark = f"What was set in napari's Preferences is not used: {error}"
        return replace(settings, remark=f"{settings.remark} {remark}".strip())
    return replace(_read(), remark=settings.remark)


def _read() -> Settings:
    path = settings_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except UnicodeDecodeError:
        return _without(path, "is damaged")
    except OSError as error:
        return _remarked(f"The settings in {path} cannot be read ({error.strerror}): the defaults are used.")
    try:
        said = json.loads(text)
        version = said["format"]
    except (ValueError, KeyError, TypeError):
        return _without(path, "is damaged")
    if not isinstance(version, int) or isinstance(version, bool):
        return _without(path, "is damaged")
    if version > FORMAT:
        return _without(path, "is from a newer napari-rbcflow")
    del said["format"]
    names = {f.name for f in fields(Settings)} - set(_NOT_IN_FILE)
    known = {name: value for name, value in said.items() if name in names}
    if isinstance(known.get("sessions_folder"), str):
        known["sessions_folder"] = Path(known["sessions_folder"])
    unknown = {name: value for name, value in said.items() if name not in names}
    try:
        return Settings(**known, unknown=unknown)
    except BadInput as error:
        return _without(path, f"cannot be used ({error})")


def save_settings(settings: Settings) -> None:
    """Write the settings, in one step.

    Raises
    ------
    BadInput
        Where the folder may not be written.
    """
    path = settings_path()
    said = {name: value for name, value in asdict(settings).items() if name not in _NOT_IN_FILE}
    said["sessions_folder"] = str(settings.sessions_folder)
    if _beside_preferences():
        settings = replace(settings, unknown={**settings.unknown, _IN_PREFERENCES: put_there(said)})
    text = json.dumps({"format": FORMAT, **said, **settings.unknown}, indent=2, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (text + "\n").encode(errors="backslashreplace"))
    except OSError as error:
        raise BadInput(
            f"The settings cannot be kept in {path.parent} ({error.strerror or error}): give yourself the "
            "right to write there, or set them anew each time."
        ) from error


def _beside_preferences() -> bool:
    """Say whether napari is there to show our settings, and ours lie in their usual place."""
    return "napari" in sys.modules and not os.environ.get(FOLDER_VARIABLE)


def _check_number(name: str, value: object, bounds: tuple[float, float] | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"The setting {name} is a number, not {value!r}.")
    if bounds is not None and not bounds[0] <= value <= bounds[1]:
        raise BadInput(f"The setting {name} is {bounds[0]:g} to {bounds[1]:g}, not {value:g}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadInput(f"The setting {name} is {' or '.join(choices)}, not {value!r}.")


def _without(path: Path, what: str) -> Settings:
    """Put a file aside that cannot be used, and go on with the defaults."""
    aside = next(
        p for k in range(1, 10_000) if not (p := path.with_name(f"settings.aside-{k}.json")).exists()
    )
    try:
        path.rename(aside)
    except OSError as error:
        return _remarked(f"{path} {what} and cannot be put aside ({error.strerror}): the defaults are used.")
    return _remarked(
        f"{path.name} in {path.parent} {what}: it was put aside as {aside.name}, the defaults are used."
    )


def _remarked(sentence: str) -> Settings:
    _log.warning(sentence)
    return Settings(remark=sentence)


# Our settings in napari's own Preferences.

PLUGIN = "napari-rbcflow"
FIELDS: dict[str, tuple[str, ...]] = {
    "camera": (
        *("camera", "mm_path", "exposure_ms", "fps", "pixel_size_um"),
        *("binning", "roi", "pixel_type", "port", "flow"),
    ),
    "display": ("picture_mode", "picture_hz", "picture_delay_s", "show_unreliable"),
    "records": ("sessions_folder", "person"),
}
"""As in ``napari.yaml``, by category."""
_WHOLE = frozenset({"binning", "port"})
_NUMBERS = frozenset({"exposure_ms", "fps", "pixel_size_um"}) | _WHOLE
"""Texts there: a number could not be left empty, and napari 0.9.2 would show 0.605 um as 0.60 or 0.61."""


def changed_there(last_put: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a person has changed in the Preferences since `put_there`.

    Parameters
    ----------
    last_put : mapping
        What `put_there` returned; empty at the first time, when nothing counts as changed unless it
        differs from what ``napari.yaml`` declares.

    Raises
    ------
    BadInput
        For a text that is no number.
    """
    model = _model()
    if model is None:
        return {}
    changed = {}
    for category, names in FIELDS.items():
        part = getattr(model, category)
        for name in names:
            value = getattr(part, name)
            before = last_put.get(name, type(part).model_fields[name].default)
            if value != before:
                changed[name] = _number(name, value) if name in _NUMBERS else value
    return changed


def put_there(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Show our settings in the Preferences; return what stands there now."""
    model = _model()
    if model is None:
        return {}
    stands = {}
    for category, names in FIELDS.items():
        part = getattr(model, category)
        for name in names:
            value = settings[name]
            if name in _NUMBERS:
                value = "" if value is None else str(value)
            if getattr(part, name) != value:
                try:
                    setattr(part, name, value)
                except ValueError as error:  # beyond the bounds in napari.yaml: ours holds all the same
                    _log.info("%s is not shown in napari's preferences: %s", name, error)
            stands[name] = getattr(part, name)
    return stands


def _number(name: str, text: str) -> float | None:
    text = text.strip().replace(",", ".")
    try:
        return (int(text) if name in _WHOLE else float(text)) if text else None
    except ValueError:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise BadInput(f"{name} is {kind}, not {text!r}.") from None


def _model() -> Any | None:
    """Return napari's model of our settings; None where it has none, or another plugin's breaks it."""
    try:
        from napari.settings import get_plugin_settings

        model = get_plugin_settings(PLUGIN)
        for category, names in FIELDS.items():
            for name in names:
                getattr(getattr(model, category), name)
    except Exception as error:
        _log.info("no settings in napari's preferences: %s", error)
        return None
    return model
