"""What the viewer remembers from one day to the next: the person, the camera, the display.

The same settings are in napari's own File > Preferences, which keeps them in a file of its own. What was
last put there is remembered beside our settings: where napari's value differs now, a person has changed it
there, and that value is used.
"""

from __future__ import annotations

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
from napari_rbcflow.sentences import say
from napari_rbcflow.sources import CameraSettings, binning_in, parse_roi
from napari_rbcflow.tracking import Direction

FORMAT = 1  # version of the file
NAME = "settings.json"
FOLDER_VARIABLE = "RBCFLOW_CONFIG"
PORT_RANGE = (1.0, 65535.0)
PICTURE_HZ_RANGE = (1.0, 30.0)
PICTURE_DELAY_RANGE_S = (0.0, 10.0)
PictureMode = Literal["cells", "newest"]

# Key of what napari's Preferences held when they last agreed with our file.
_IN_PREFERENCES = "in_preferences"
_NOT_IN_FILE = ("unknown", "remark")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the viewer remembers; None and an empty text leave it to the camera, the file or the computer."""

    sessions_folder: Path = field(default_factory=lambda: Path.home() / "rbcflow-sessions")
    person: str = ""  # whose name is offered to who changes labels by hand
    calibration: str = ""  # a file, as `calibration` of `rbcflow live`
    record_template: str = ""  # a file, as `record_template` of `rbcflow live`
    camera: str = "simulated"  # as `camera` of `rbcflow live`
    mm_path: str = ""
    exposure_ms: float | None = None
    fps: float | None = None
    pixel_size_um: float | None = None
    binning: int | None = None
    roi: str = ""  # as `parse_roi` reads it
    pixel_type: str = ""
    port: int | None = None
    flow: Direction = "left-to-right"
    picture_hz: float = 25.0  # how often the live picture is drawn, at most
    picture_delay_s: float = 1.0  # how far the live picture may be behind the camera
    picture_mode: PictureMode = "cells"  # the frame just tracked, or the newest one without marks
    show_unreliable: bool = True
    unknown: Mapping[str, Any] = field(default_factory=dict)  # what else the file held; written back
    remark: str = ""  # what a person must be told of the file that was read; not written

    def __post_init__(self) -> None:
        for name in ("person", "calibration", "record_template", "camera", "mm_path", "roi", "pixel_type"):
            self._check("forms.not-text", name, isinstance(getattr(self, name), str))
        self._check("forms.not-a-folder", "sessions_folder", isinstance(self.sessions_folder, Path))
        if not self.camera:
            raise BadInput("forms.no-camera")
        for name in ("exposure_ms", "fps", "pixel_size_um", "binning"):
            if getattr(self, name) is not None:
                self._check_number(name)
        for name in ("binning", "port"):
            self._check("forms.not-a-whole-number", name, isinstance(getattr(self, name), int | None))
        if self.port is not None:
            self._check_number("port", PORT_RANGE)
        CameraSettings(
            self.exposure_ms, self.fps, self.binning, parse_roi(self.roi or None), self.pixel_size_um
        ).check()
        self._check_number("picture_hz", PICTURE_HZ_RANGE)
        self._check_number("picture_delay_s", PICTURE_DELAY_RANGE_S)
        for name, choices in (("flow", get_args(Direction)), ("picture_mode", get_args(PictureMode))):
            if (value := getattr(self, name)) not in choices:
                raise BadInput("forms.not-a-choice", setting=name, choices=" or ".join(choices), value=value)
        self._check("forms.not-yes-or-no", "show_unreliable", isinstance(self.show_unreliable, bool))

    def _check(self, key: str, setting: str, fits: bool) -> None:
        if not fits:
            raise BadInput(key, setting=setting, value=getattr(self, setting))

    def _check_number(self, setting: str, bounds: tuple[float, float] | None = None) -> None:
        value = getattr(self, setting)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        self._check("forms.not-a-number", setting, number)
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            low, high = bounds
            raise BadInput("forms.not-between", setting=setting, low=low, high=high, value=value)

    @property
    def calibration_file(self) -> Path | None:
        """The laboratory's calibration for new runs; None if there is none."""
        return Path(self.calibration).expanduser() if self.calibration.strip() else None


def read_number(
    setting: str, text: str, *, whole: bool = False, within: tuple[float, float] | None = None
) -> Any:
    """Return the number in a field, with a decimal point or comma; None where the field is empty."""
    text = text.strip()
    if setting == "binning" and (binning := binning_in(text)):
        return binning  # 2x2, as cameras say it
    number = text.replace(",", ".")
    try:
        value = (int(number) if whole else float(number)) if number else None
    except ValueError:
        key = "forms.not-a-whole-number" if whole else "forms.not-a-number"
        raise BadInput(key, setting=setting, value=text) from None
    if value is not None and within is not None and not within[0] <= value <= within[1]:
        raise BadInput("forms.not-between", setting=setting, low=within[0], high=within[1], value=value)
    return value


def settings_path() -> Path:
    """Return the path of the settings; the environment variable `FOLDER_VARIABLE` names another folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return (Path(folder) if folder else Path(platformdirs.user_config_dir("napari-rbcflow"))) / NAME


def load_settings() -> Settings:
    """Read the settings, and what a person has changed in napari's Preferences; never fails.

    Without a file, they are the defaults. A file that is damaged or from a newer version is renamed, and
    `remark` says so.
    """
    settings = _read()
    if not _beside_preferences():
        return settings
    last_put = settings.unknown.get(_IN_PREFERENCES)
    try:
        changed = _changed_in_preferences(last_put if isinstance(last_put, dict) else {})
        if not changed and (isinstance(last_put, dict) or settings == Settings()):
            return settings
        if "sessions_folder" in changed:
            folder = changed["sessions_folder"]
            changed["sessions_folder"] = Path(folder).expanduser() if folder else Settings().sessions_folder
        save_settings(replace(settings, **changed))
    except BadInput as error:
        remark = say("forms.preferences-not-used", why=error)
        return replace(settings, remark=f"{settings.remark} {remark}".strip())
    return replace(_read(), remark=settings.remark)


def _read() -> Settings:
    path = settings_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except UnicodeDecodeError:
        return _set_aside(path, say("forms.settings-damaged", path=path))
    except OSError as error:
        return _remarked(say("forms.settings-unreadable", path=path, why=error.strerror))
    try:
        data = json.loads(text)
        version = data["format"]
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int) or isinstance(version, bool):
        return _set_aside(path, say("forms.settings-damaged", path=path))
    if version > FORMAT:
        return _set_aside(path, say("forms.settings-newer", path=path))
    del data["format"]
    names = {f.name for f in fields(Settings)} - set(_NOT_IN_FILE)
    known = {name: value for name, value in data.items() if name in names}
    if isinstance(known.get("sessions_folder"), str):
        known["sessions_folder"] = Path(known["sessions_folder"])
    unknown = {name: value for name, value in data.items() if name not in names}
    try:
        return Settings(**known, unknown=unknown)
    except BadInput as error:
        return _set_aside(path, say("forms.settings-unusable", path=path, why=error))


def save_settings(settings: Settings) -> None:
    """Write the settings, in one step."""
    path = settings_path()
    data = {name: value for name, value in asdict(settings).items() if name not in _NOT_IN_FILE}
    data["sessions_folder"] = str(settings.sessions_folder)
    if _beside_preferences():
        held = _show_in_preferences(data)
        settings = replace(settings, unknown={**settings.unknown, _IN_PREFERENCES: held})
    text = json.dumps({"format": FORMAT, **data, **settings.unknown}, indent=2, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (text + "\n").encode(errors="backslashreplace"))
    except OSError as error:
        raise BadInput(
            "forms.settings-folder-unusable", folder=path.parent, why=error.strerror or error
        ) from error


def _set_aside(path: Path, reason: str) -> Settings:
    """Rename a file that cannot be used, and go on with the defaults."""
    aside = next(
        p for k in range(1, 10_000) if not (p := path.with_name(f"settings.aside-{k}.json")).exists()
    )
    try:
        path.rename(aside)
    except OSError as error:
        return _remarked(say("forms.settings-in-the-way", reason=reason, why=error.strerror))
    return _remarked(say("forms.settings-set-aside", reason=reason, aside=aside.name))


def _remarked(sentence: str) -> Settings:
    _log.warning(sentence)
    return Settings(remark=sentence)


# Our settings in napari's own Preferences.

PLUGIN = "napari-rbcflow"
# By category, as in napari.yaml.
FIELDS: dict[str, tuple[str, ...]] = {
    "camera": (
        *("camera", "mm_path", "exposure_ms", "fps", "pixel_size_um"),
        *("binning", "roi", "pixel_type", "port", "flow"),
    ),
    "display": ("picture_mode", "picture_hz", "picture_delay_s", "show_unreliable"),
    "records": ("sessions_folder", "person", "calibration", "record_template"),
}
_WHOLE = frozenset({"binning", "port"})
# Texts there: a number could not be left empty, and napari 0.9.2 would show 0.605 um as 0.60 or 0.61.
_NUMBERS = frozenset({"exposure_ms", "fps", "pixel_size_um"}) | _WHOLE


def _beside_preferences() -> bool:
    """Whether napari is there to show our settings, and ours are in their usual place."""
    return "napari" in sys.modules and not os.environ.get(FOLDER_VARIABLE)


def _changed_in_preferences(last_put: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a person has changed in the Preferences since `_show_in_preferences`.

    `last_put` is what that returned; empty at the first time, when nothing counts as changed unless it
    differs from what ``napari.yaml`` declares.
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
                changed[name] = read_number(name, value, whole=name in _WHOLE) if name in _NUMBERS else value
    return changed


def _show_in_preferences(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Show our settings in the Preferences; return what they hold now."""
    model = _model()
    if model is None:
        return {}
    held = {}
    for category, names in FIELDS.items():
        part = getattr(model, category)
        for name in names:
            value = settings[name]
            if name in _NUMBERS:
                value = "" if value is None else str(value)
            if getattr(part, name) != value:
                try:
                    setattr(part, name, value)
                except ValueError as error:  # beyond the bounds in napari.yaml: ours is used all the same
                    _log.debug("%s is not shown in napari's preferences: %s", name, error)
            held[name] = getattr(part, name)
    return held


def _model() -> Any | None:
    """Return napari's model of our settings; None where it has none, or another plugin's breaks it."""
    try:
        from napari.settings import get_plugin_settings

        model = get_plugin_settings(PLUGIN)
        for category, names in FIELDS.items():
            for name in names:
                getattr(getattr(model, category), name)
    except Exception as error:
        _log.debug("no settings in napari's preferences: %s", error)
        return None
    return model
