"""What every dock is made of: colours, labels, warnings, and slots that end in a sentence at worst."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QHideEvent, QResizeEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.errors import BadInput, RbcflowError, sentence_of
from napari_rbcflow.sentences import name_settings, say
from napari_rbcflow.widgets.label_styles import FAULT_COLOUR, WARNING_COLOUR
from napari_rbcflow.widgets.remembered import load_settings, save_settings

# The label of the field for each setting, by its name in Python. Each form takes its labels from here, and
# a sentence that names a setting in backticks is shown with them.
FIELD_LABELS = {
    "patient": say("forms.field-patient"),
    "sample": say("forms.field-sample"),
    "camera": say("forms.field-camera"),
    "mm_path": say("forms.field-mm-path"),
    "exposure_ms": say("forms.field-exposure-ms"),
    "fps": say("forms.field-fps"),
    "pixel_size_um": say("forms.field-pixel-size-um"),
    "binning": say("forms.field-binning"),
    "roi": say("forms.field-roi"),
    "pixel_type": say("forms.field-pixel-type"),
    "port": say("forms.field-port"),
    "end_live_mode": say("forms.end-live-mode"),
    "seed": say("forms.field-seed"),
    "tank_fraction": say("forms.field-tank-fraction"),
    "cells_per_frame": say("forms.field-cells-per-frame"),
    "flow": say("forms.field-flow"),
    "shear_rate_per_s": say("forms.field-shear-rate"),
    "focus_height_um": say("forms.field-focus-height"),
    "background": say("forms.field-background"),
    "stop_reliable": say("forms.field-stop-reliable"),
    "stop_halfwidth": say("forms.field-stop-halfwidth"),
    "stop_seconds": say("forms.field-stop-seconds"),
    "stop_tracks": say("forms.field-stop-tracks"),
    "stop_baseline": say("forms.field-stop-baseline"),
    "least_frames": say("forms.field-least-frames"),
    "sessions_folder": say("forms.field-sessions-folder"),
    "person": say("forms.field-person"),
    "calibration": say("forms.field-calibration"),
    "picture_mode": say("forms.field-picture-mode"),
    "picture_hz": say("forms.field-picture-hz"),
    "picture_delay_s": say("forms.field-picture-delay"),
    "show_unreliable": say("forms.field-show-unreliable"),
    "crises": say("viewer.trend-crises"),
}


def in_form(sentence: str) -> str:
    """Return a sentence with the fields' labels in the place of the settings' names."""
    return name_settings(
        sentence,
        lambda name: say("forms.field", label=FIELD_LABELS[name]) if name in FIELD_LABELS else name,
    )


_LEAST_WIDTH = 340


def wrapping_label(style: str = "") -> QLabel:
    """Return a label that wraps its text, can be copied from, and never widens what it is in."""
    label = QLabel()
    label.setWordWrap(True)
    label.setIndent(0)
    # The height that a layout asks for is that at the least width: much less than this and it is absurd.
    label.setMinimumWidth(_LEAST_WIDTH)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    if style:
        label.setStyleSheet(style)
    return label


def breakable(text: str) -> str:
    """Return text as HTML in which long paths may be broken."""
    html = escape(text)
    for mark in ("/", "\\", "_"):
        html = html.replace(mark, mark + "\u200b")
    return html


def set_text(label: QLabel, text: str) -> None:
    """Set a label's text if it is another one; a label without text takes no room."""
    if label.text() != text:
        label.setText(text)
    if label.isHidden() == bool(text):
        label.setVisible(bool(text))


def scrolling(content: QWidget) -> QScrollArea:
    """Return a frame in which content is scrolled up and down."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(content)
    return scroll


log = logging.getLogger(__name__)


def report_error(error: Exception, where: str, show: Callable[[str], None]) -> None:
    """Log an error, with its traceback where it is none of ours, and show its sentence."""
    if isinstance(error, RbcflowError):
        log.warning("%s", error)
    else:
        log.error("%s", where, exc_info=error)
    show(sentence_of(error))


def report_errors(slot: Callable[..., None], where: str, show: Callable[[str], None]) -> Callable[..., None]:
    """Let a slot end in a sentence at worst, never in a traceback window."""

    def call(*given: Any) -> None:
        try:
            slot(*given)
        except Exception as error:
            report_error(error, where, show)

    return call


_STYLES = {
    "grave": f"background: {FAULT_COLOUR}; color: black; font-size: 17px; font-weight: 600;"
    " border-radius: 4px; padding: 8px;",
    "mild": f"border: 2px solid {WARNING_COLOUR}; font-size: 14px; border-radius: 4px; padding: 6px;",
}
_WORDINGS = {"grave": "forms.warning", "mild": "forms.note"}


class WarningBox(QWidget):
    """Grave sentences on a red ground, milder ones in a yellow frame; takes no room without any."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self._labels = {kind: wrapping_label(style) for kind, style in _STYLES.items()}
        for label in self._labels.values():
            label.hide()
            column.addWidget(label)
        self._shown: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.hide()

    def say(self, *, grave: Iterable[str] = (), mild: Iterable[str] = ()) -> None:
        """Show these sentences instead of those before."""
        shown = (tuple(dict.fromkeys(map(in_form, grave))), tuple(dict.fromkeys(map(in_form, mild))))
        if shown == self._shown:
            return
        self._shown = shown
        for (kind, label), sentences in zip(self._labels.items(), shown, strict=True):
            rows = (say(_WORDINGS[kind], sentence=breakable(sentence)) for sentence in sentences)
            label.setText("<br>".join(rows))
            label.setVisible(bool(sentences))
        self.setVisible(any(shown))

    def clear(self) -> None:
        """Show nothing."""
        self.say()

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is shown, grave ones first."""
        return self._shown[0] + self._shown[1]

    @property
    def grave(self) -> tuple[str, ...]:
        """The grave ones."""
        return self._shown[0]


_LEAST_BUTTON_WIDTH = 110
# Pixels of a button's width that padding and frame take.
_BESIDE_TEXT = 24
_BETWEEN = " · "


class PatientButton(QPushButton):
    """Says what it does and for whom, "Run: PATIENT · SAMPLE".

    A form that is still filled in for the patient before is so noticed before the run starts. Names are
    shortened, each by itself, to the room there is; the tooltip has them whole.
    """

    def __init__(self, what: str, parent: QWidget | None = None) -> None:
        super().__init__(what, parent)
        self._what = what
        self._names: tuple[str, ...] = ()
        # A long name must not widen the dock.
        self.setMinimumWidth(_LEAST_BUTTON_WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_patient(self, patient: str, sample: str) -> None:
        """Say whose run the next one is."""
        self._names = tuple(name for part in (patient, sample) if (name := " ".join(part.split())))
        self.setToolTip(f"{self._what}: {_BETWEEN.join(self._names)}" if self._names else "")
        self._write()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shorten to the new width."""
        super().resizeEvent(event)
        self._write()

    def changeEvent(self, event: QEvent) -> None:
        """Shorten for the new font."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._write()

    def _write(self) -> None:
        text = f"{self._what}: {_BETWEEN.join(self._shortened())}" if self._names else self._what
        text = text.replace("&", "&&")  # which is else a shortcut's mark
        if text != self.text():
            self.setText(text)

    def _shortened(self) -> tuple[str, ...]:
        metrics = self.fontMetrics()
        room = self.width() - _BESIDE_TEXT - metrics.horizontalAdvance(f"{self._what}: ")
        if metrics.horizontalAdvance(_BETWEEN.join(self._names)) <= room:
            return self._names
        room -= metrics.horizontalAdvance(_BETWEEN) * (len(self._names) - 1)
        widths = [metrics.horizontalAdvance(name) for name in self._names]
        half = room // len(self._names)
        # What a short name leaves is for the other.
        rooms = [max(half, room - (sum(widths) - width)) for width in widths]
        middle = Qt.TextElideMode.ElideMiddle
        return tuple(
            metrics.elidedText(name, middle, width) for name, width in zip(self._names, rooms, strict=True)
        )


_BUTTON = "font-size: 20px; font-weight: 600; padding: 8px;"
_START = _BUTTON + " background: #1b6fa8; color: white;"
_STOP = _BUTTON + " background: #b3462f; color: white;"
_OFF = _BUTTON + " color: #7a7f85;"


class RunButtons(QWidget):
    """Two large buttons, of which only the one that can be pressed now has a colour."""

    def __init__(self, start: str, stop: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.start, self.stop = PatientButton(start), QPushButton(stop)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.start, 2)
        row.addWidget(self.stop, 1)
        self.allow(start=True, stop=False)

    def allow(self, *, start: bool, stop: bool) -> None:
        """Let only what can be done now be pressed."""
        for button, allowed, style in ((self.start, start, _START), (self.stop, stop, _STOP)):
            button.setEnabled(allowed)
            button.setStyleSheet(style if allowed else _OFF)


class Fold(QToolButton):
    """A title that shows and hides what is under it."""

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self._content = content
        self.setText(title)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setArrowType(Qt.ArrowType.DownArrow)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._fold)

    def _fold(self, shown: bool) -> None:
        self._content.setVisible(shown)
        self.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)


class Dock(QWidget):
    """A dock that shows errors as sentences in `message`, and shuts down when it is taken away."""

    _built = False  # Qt may call `event` before there is anything to shut down

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumWidth(400)
        self.message = WarningBox()

    def sizeHint(self) -> QSize:
        """Wide enough for the number."""
        return QSize(430, 900)

    def shut_down(self) -> None:
        """Stop what goes on; may be called more than once."""
        raise NotImplementedError

    def put_back(self) -> None:
        """Go on in a dock again."""

    def event(self, event: QEvent) -> bool:
        """Notice the dock's x, and `remove_dock_widget`: both take the widget out of its dock."""
        handled = bool(super().event(event))
        if event.type() == QEvent.Type.ParentChange and self._built:
            self._report_errors(self.shut_down if self.parent() is None else self.put_back)()
        return handled

    def hideEvent(self, event: QHideEvent) -> None:
        """Notice the window being closed. A dock that is only hidden lets the run go on."""
        super().hideEvent(event)
        window = self.parentWidget()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None and not event.spontaneous() and not window.isVisible():
            self._report_errors(self.shut_down)()

    def _report_errors(self, slot: Callable[..., None]) -> Callable[..., None]:
        return report_errors(slot, type(self).__name__, self._show_error)

    def _show_error(self, sentence: str) -> None:
        self.message.say(grave=[sentence])

    def _keep(self, **changed: Any) -> None:
        """Save settings; a run does not wait for a folder that may not be written."""
        # Others write there too: read again, and only what is ours is changed.
        before = load_settings()
        after = replace(before, **changed)
        if after == before:
            return
        try:
            save_settings(after)
        except BadInput as error:
            self.message.say(mild=[str(error)])
