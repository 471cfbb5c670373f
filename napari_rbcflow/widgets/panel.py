"""What every panel is made of: the fields' labels, texts that fit, warnings, buttons, and a fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from qtpy.QtCore import QEvent, QObject, QPoint, QSize, Qt, QTimer
from qtpy.QtGui import (
    QFontMetrics,
    QMoveEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rbcflow.sentences import name_settings, say
from napari_rbcflow.widgets.label_styles import CHIPS, EDGES

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
    "series": say("forms.field-series"),
    "binning": say("forms.field-binning"),
    "roi": say("forms.field-roi"),
    "pixel_type": say("forms.field-pixel-type"),
    "port": say("forms.field-port"),
    "end_live_mode": say("forms.end-live-mode"),
    "seed": say("forms.field-seed"),
    "tank_fraction": say("forms.field-tank-fraction"),
    "cells_per_frame": say("forms.field-cells-per-frame"),
    "flow": say("forms.field-flow"),
    "rotate": say("forms.field-rotate"),
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
    "out": say("forms.field-out"),
    "person": say("forms.field-person"),
    "calibration": say("forms.field-calibration"),
    "record_template": say("forms.field-record-template"),
    "check_cells": say("viewer.check-cells"),
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


_BETWEEN = " · "


def _shortened(names: Sequence[str], metrics: QFontMetrics, room: int) -> str:
    """Return the names side by side, each shortened by itself to the room there is."""
    if metrics.horizontalAdvance(whole := _BETWEEN.join(names)) <= room:
        return whole
    room -= metrics.horizontalAdvance(_BETWEEN) * (len(names) - 1)
    widths = [metrics.horizontalAdvance(name) for name in names]
    half = room // len(names)
    # What a short name leaves is for the other.
    rooms = [max(half, room - (sum(widths) - width)) for width in widths]
    middle = Qt.TextElideMode.ElideMiddle
    return _BETWEEN.join(
        metrics.elidedText(name, middle, width) for name, width in zip(names, rooms, strict=True)
    )


class ElidingLabel(QLabel):
    """A line of plain text that is shortened in the middle to the room there is; the tooltip has it whole.

    Of a patient and a sample each is shortened by itself: one that is long takes nothing of a short one.
    """

    def __init__(self, style: str = "") -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setStyleSheet(style)

    def setText(self, text: str) -> None:
        """Show another text."""
        super().setText(" ".join(text.split()))
        self.setToolTip(self.text())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw what there is room for."""
        painter = QPainter(self)
        room = self.contentsRect()
        shown = self.shown(room.width())
        painter.drawText(room, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
        painter.end()

    def shown(self, room: int) -> str:
        """Return what there is room for."""
        return _shortened(self.text().split(_BETWEEN), self.fontMetrics(), room)


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


class HeldInView(QObject):
    """Keeps what is seen of a scrolled panel in its place, where something above it comes or goes.

    `parts` are what may be looked at: of those that are seen the first one is held, of none the one that
    reaches into view from above. At the top of the panel nothing is held.
    """

    def __init__(self, scroll: QScrollArea, parts: Sequence[QWidget]) -> None:
        super().__init__(scroll)
        self._bar, self._content, self._parts = scroll.verticalScrollBar(), scroll.widget() or scroll, parts
        self._held: list[QWidget] = []  # the first part that is seen, and what it is in
        for part in parts:
            for around in self._around(part):
                around.installEventFilter(self)
        self._bar.valueChanged.connect(self._choose)
        self._bar.rangeChanged.connect(self._scroll)
        self._wanted: int | None = None  # until the panel is laid out
        self._laid_out = QTimer(self)
        self._laid_out.setSingleShot(True)
        self._laid_out.timeout.connect(self._settle)

    def _around(self, part: QWidget) -> list[QWidget]:
        around = [part]
        while (parent := around[-1].parentWidget()) is not None and parent is not self._content:
            around.append(parent)
        return around

    def _choose(self, top: int) -> None:
        if self._wanted is not None:
            return

        shown = [part for part in self._parts if not part.isHidden()] if top else []
        tops = {part: part.mapTo(self._content, QPoint(0, 0)).y() for part in shown}
        seen = (part for part in shown if top <= tops[part] < top + self._bar.pageStep())
        above = [part for part in shown if tops[part] < top]
        part = next(seen, max(above, key=lambda part: tops[part], default=None))
        self._held = [] if part is None else self._around(part)

    def eventFilter(self, part: QObject, event: QEvent) -> bool:
        """Scroll as far as the part was moved."""
        if event.type() == QEvent.Type.Move and part in self._held and isinstance(event, QMoveEvent):
            before = self._bar.value() if self._wanted is None else self._wanted
            self._wanted = before + event.pos().y() - event.oldPos().y()
            self._laid_out.start(0)
            self._scroll()
        return False

    def _scroll(self, *_: object) -> None:
        # The bar's range grows only after what is in the panel was moved.
        if self._wanted is not None:
            self._bar.setValue(self._wanted)

    def _settle(self) -> None:
        self._wanted = None
        self._choose(self._bar.value())


class AsHigh(QScrollArea):
    """As high as what is in it, up to a share of the height around it; beyond that it is scrolled."""

    _LEAST_PX = 100
    _SHARE = 0.66

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
        self.setWidget(content)

    def sizeHint(self) -> QSize:
        """The height that the content takes at this width."""
        content, width = self.widget(), self.viewport().width()
        if content is None:
            return QSize(0, 0)
        height = content.heightForWidth(width) if content.hasHeightForWidth() else -1
        frame = self.height() - self.viewport().height()
        return QSize(width, frame + (height if height >= 0 else content.sizeHint().height()))

    def minimumSizeHint(self) -> QSize:
        """The same: what is below, which is scrolled too, gets what is left."""
        around = self.parentWidget()
        most = self._LEAST_PX if around is None else max(self._LEAST_PX, round(self._SHARE * around.height()))
        return QSize(0, min(most, self.sizeHint().height()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Ask for the height at the new width."""
        super().resizeEvent(event)
        self.updateGeometry()

    def eventFilter(self, content: QObject, event: QEvent) -> bool:
        """Follow what is in it."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(content, event))


_STYLES = {
    "grave": f"{CHIPS['grave'].css} font-size: 17px; font-weight: 600; border-radius: 4px; padding: 8px;",
    "mild": f"border: 2px solid {EDGES['caution']}; font-size: 14px; border-radius: 4px; padding: 6px;",
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

    @property
    def mild(self) -> tuple[str, ...]:
        """The milder ones."""
        return self._shown[1]


_LEAST_BUTTON_WIDTH = 110
# Pixels of a button's width that padding and frame take.
_BESIDE_TEXT = 24


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
        text = self._what
        if self._names:
            text, metrics = f"{self._what}: ", self.fontMetrics()
            room = self.width() - _BESIDE_TEXT - metrics.horizontalAdvance(text)
            text += _shortened(self._names, metrics, room)
        text = text.replace("&", "&&")  # which is else a shortcut's mark
        if text != self.text():
            self.setText(text)


_BUTTON = "font-size: 20px; font-weight: 600; padding: 8px;"
_START = _BUTTON + CHIPS["start"].css
_STOP = _BUTTON + CHIPS["stop"].css
_OFF = _BUTTON + f" color: {EDGES['none']};"


class RunButtons(QWidget):
    """Two large buttons, of which only the one that can be pressed now has a colour."""

    def __init__(self, start: str, stop: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.start, self.stop = PatientButton(start), QPushButton(stop)
        # Who clicks one keeps the keys: a button that is disabled would pass the focus on to some field.
        for button in (self.start, self.stop):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.start, 2)
        row.addWidget(self.stop, 1)
        self.allow(start=True, stop=False)

    def allow(self, *, start: bool, stop: bool) -> None:
        """Let only what can be done now be pressed."""
        for button, allowed, style in ((self.start, start, _START), (self.stop, stop, _STOP)):
            if button.hasFocus() and not allowed:
                self.setFocus()
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
