"""The live picture without OpenGL, for computers that draw OpenGL in software.

There one draw of napari's canvas keeps two cores busy for 40 ms: Qt composes the whole window with it. A
window of its own over the canvas is composed with nothing, and painted in 4 ms. It shows what napari would:
the picture's two layers, through napari's camera. The mouse goes through it to napari's canvas.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPainterPath, QPen, QPixmap, QRasterWindow, QTransform
from qtpy.QtWidgets import QDialog, QWidget

from napari_rbcflow.widgets.label_styles import CHIPS
from napari_rbcflow.widgets.layers import units_in
from napari_rbcflow.widgets.picture_layers import DrawBudget, Marks

# What drivers without a graphics card call themselves.
_IN_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software", "gdi generic", "basic render")


def is_software(renderer: str) -> bool:
    """Whether OpenGL is drawn by the processor, by the name that its driver gives itself."""
    return any(name in renderer.lower() for name in _IN_SOFTWARE)


class _Window(QRasterWindow):
    """A window that lets the mouse through and is painted by somebody else."""

    def __init__(self, paint: Callable[[QPainter, int, int], None]) -> None:
        super().__init__()
        self._paint = paint
        self.setFlag(Qt.WindowType.WindowTransparentForInput, True)

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        self._paint(painter, self.width(), self.height())
        painter.end()


class RasterCanvas(QObject):
    """Paints an Image layer and the marks on it over napari's canvas.

    Lifecycle: construct -> `show` and `hide`, as often as wished -> `close`; in the interface's thread.
    `words` returns what stands over the picture; `budget` measures each paint.
    """

    def __init__(
        self, viewer: Any, image: Any, marks: Marks, budget: DrawBudget, words: Callable[[], str]
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._image = image
        self._marks = marks
        self._budget = budget
        self._words = words
        self._over: QWidget | None = None
        self._window: _Window | None = None
        self._container: QWidget | None = None
        self._colours: tuple[Any, list[int]] = (None, [])
        self._sprites: dict[tuple[int, int], QPixmap] = {}

    @property
    def shown(self) -> bool:
        """Whether it is over napari's canvas now."""
        return self._container is not None and not self._container.isHidden()

    def fits(self) -> bool:
        """Whether OpenGL is slow here, and napari would show no more than this can paint."""
        if not is_software(self._budget.renderer):
            return False
        viewer, image, marks = self._viewer, self._image, self._marks.layer
        ours = (image, marks)
        return (
            image in viewer.layers
            and image.visible
            and image.data.ndim == 2
            and image.data.dtype == np.uint8
            and viewer.dims.ndisplay == 2
            and tuple(viewer.dims.displayed) == tuple(sorted(viewer.dims.displayed))
            and not viewer.canvas.grid.enabled
            and not any(layer.visible for layer in viewer.layers if layer not in ours)
            and not any(overlay.visible for overlay in self._overlays())
            and not self._covered()
        )

    def _overlays(self) -> list[Any]:
        """Return napari's own drawings over a picture that this does not paint."""
        canvas, scene = self._viewer.canvas.overlays, self._viewer.scene.overlays
        text = [] if self._words() else [self._viewer.text_overlay]  # somebody's own
        return [canvas.scale_bar, canvas.axes, scene.axes, self._image.bounding_box, *text]

    def _covered(self) -> bool:
        """Whether napari shows a message over its canvas, which a window would hide."""
        over = self._find_canvas()
        if over is None:
            return True
        places = (over, over.parentWidget(), over.window())
        return any(
            isinstance(child, QDialog) and child.isVisible() and not child.isWindow()
            for place in places
            if place is not None
            for child in place.children()
        )

    def _find_canvas(self) -> QWidget | None:
        if self._over is None:
            with warnings.catch_warnings():
                # Opened from a menu, the viewer comes in a proxy that warns of private names.
                warnings.simplefilter("ignore", FutureWarning)
                try:
                    self._over = self._viewer.window._qt_viewer.canvas.native
                except (AttributeError, RuntimeError):
                    return None
        return self._over

    def show(self) -> None:
        """Paint what the layers hold now, over napari's canvas."""
        over = self._find_canvas()
        if over is None or not over.isVisible():
            self.hide()
            return
        if self._container is None:
            self._window = _Window(self._paint_measured)
            self._container = QWidget.createWindowContainer(self._window, over.parentWidget())
            self._container.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            self._container.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            over.installEventFilter(self)
            self._viewer.scene.camera.events.connect(self._moved)
        if self._container.isHidden():
            self._container.setGeometry(over.geometry())
            self._container.show()
            self._container.raise_()
        assert self._window is not None
        self._window.update()

    def hide(self) -> None:
        """Leave the canvas to napari."""
        if self.shown:
            assert self._container is not None
            self._container.hide()

    def close(self) -> None:
        """Take the window away."""
        container, self._container, self._window = self._container, None, None
        if container is not None:
            self._viewer.scene.camera.events.disconnect(self._moved)
            try:
                if self._over is not None:
                    self._over.removeEventFilter(self)
                container.hide()
                container.deleteLater()
            except RuntimeError:
                pass  # Qt's side went with the viewer's window
        self._over = None

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Keep to the canvas's place."""
        if event is not None and self._container is not None and self._over is not None:
            if event.type() in (QEvent.Type.Resize, QEvent.Type.Move):
                self._container.setGeometry(self._over.geometry())
            elif event.type() == QEvent.Type.Hide:
                self.hide()
        return False

    def _moved(self, event: Any = None) -> None:
        if self.shown and self._window is not None:
            self._window.update()

    # ------------------------------------------------------------------ painting

    def _paint_measured(self, painter: QPainter, width: int, height: int) -> None:
        with self._budget.update():
            self._paint(painter, width, height)

    def _paint(self, painter: QPainter, width: int, height: int) -> None:
        image = self._image
        painter.fillRect(
            0, 0, width, height, QColor.fromRgbF(*map(float, self._viewer.canvas.background_color[:3]))
        )
        to_canvas = self._to_canvas(image, width, height)
        painter.setTransform(to_canvas)
        painter.setOpacity(float(image.opacity))
        smooth = str(image.interpolation2d) != "nearest"
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, smooth)
        grey = np.ascontiguousarray(image.data)
        rows, columns = grey.shape
        picture = QImage(grey.data, columns, rows, columns, QImage.Format.Format_Indexed8)
        picture.setColorTable(self._colour_table())
        # The middle of napari's first pixel is at 0.
        painter.drawImage(QPointF(-0.5, -0.5), picture)
        painter.resetTransform()
        if self._marks.layer.visible:
            self._paint_marks(painter, to_canvas)
        painter.setOpacity(1.0)
        if words := self._words():
            _paint_words(painter, width, words, float(self._viewer.text_overlay.font_size))

    def _to_canvas(self, layer: Any, width: int, height: int) -> QTransform:
        """Return where a pixel (x, y) of a layer is on the canvas."""
        camera = self._viewer.scene.camera
        um = units_in(self._viewer, layer)[-2:]
        corners = np.array([layer.data_to_world(place)[-2:] for place in ((0, 0), (0, 1), (1, 0))]) * um
        corners = (corners - np.asarray(camera.center[-2:])) * camera.zoom
        (y, x), (dy_dx, dx_dx), (dy_dy, dx_dy) = corners[0], corners[1] - corners[0], corners[2] - corners[0]
        return QTransform(dx_dx, dy_dx, dx_dy, dy_dy, x + width / 2, y + height / 2)

    def _colour_table(self) -> list[int]:
        """Return the colour of each grey level, as the layer's limits, gamma and colormap make it."""
        image = self._image
        key = (tuple(image.contrast_limits), float(image.gamma), image.colormap.name)
        if self._colours[0] != key:
            low, high = key[0]
            share = np.clip((np.arange(256) - low) / max(high - low, 1e-9), 0, 1) ** key[1]
            red, green, blue, _ = np.round(255 * image.colormap.map(share)).astype(np.uint32).T
            self._colours = (key, (0xFF000000 | red << 16 | green << 8 | blue).tolist())
        return self._colours[1]

    def _paint_marks(self, painter: QPainter, to_canvas: QTransform) -> None:
        marks = self._marks
        painter.setOpacity(float(marks.layer.opacity))
        zoom = abs(to_canvas.determinant()) ** 0.5
        if len(self._sprites) > 64:  # a person zooms
            self._sprites.clear()
        ratio = self._window.devicePixelRatio() if self._window is not None else 1.0
        y_px, x_px = marks.layer.data[: len(marks.codes)].T
        x = to_canvas.m11() * x_px + to_canvas.m21() * y_px + to_canvas.dx()
        y = to_canvas.m12() * x_px + to_canvas.m22() * y_px + to_canvas.dy()
        for code, left, top in zip(marks.codes.tolist(), x.tolist(), y.tolist(), strict=True):
            size = marks.size_px(code) * zoom
            sprite = self._sprites.get((code, round(8 * size)))
            if sprite is None:
                sprite = self._sprites[code, round(8 * size)] = self._sprite(code, size, ratio)
            half = sprite.width() / ratio / 2
            painter.drawPixmap(QPointF(left - half, top - half), sprite)

    def _sprite(self, code: int, size: float, ratio: float) -> QPixmap:
        """Return a mark as napari draws it, `size` wide on the canvas."""
        symbol, colour, filled, width = self._marks.style(code)
        pen = width * size
        side = int(np.ceil((size + pen + 2) * ratio))
        sprite = QPixmap(side, side)
        sprite.setDevicePixelRatio(ratio)
        sprite.fill(Qt.GlobalColor.transparent)
        painter = QPainter(sprite)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.translate(side / ratio / 2, side / ratio / 2)
        painter.setPen(QPen(QColor(colour), pen) if pen else QPen(Qt.PenStyle.NoPen))
        painter.setBrush(QColor(colour) if filled else QColor(Qt.GlobalColor.transparent))
        painter.drawPath(_outline(symbol, size))
        painter.end()
        return sprite


def _paint_words(painter: QPainter, width: int, words: str, size: float) -> None:
    """Write words as large as napari does, whose sizes are larger than Qt's by this ratio."""
    chip = CHIPS["on-picture"]
    font = QFont()
    font.setPointSizeF(size * 96 / 72)
    painter.setFont(font)
    flags = Qt.AlignmentFlag.AlignHCenter | Qt.TextFlag.TextWordWrap
    room = QRectF(0, 8, width, 400)
    place = QRectF(painter.boundingRect(room, int(flags), words)).adjusted(-6, -4, 6, 4)
    painter.fillRect(place, QColor(chip.ground))
    painter.setPen(QColor(chip.text))
    painter.drawText(room, int(flags), words)


def _outline(symbol: str, size: float) -> QPainterPath:
    """Return a symbol of napari's Points around (0, 0), in the proportions of vispy."""
    path, half = QPainterPath(), size / 2
    middle = QPointF(0, 0)
    if symbol in ("disc", "ring"):
        path.addEllipse(middle, half, half)
        if symbol == "ring":
            path.addEllipse(middle, half / 2, half / 2)
    elif symbol == "square":
        path.addRect(-half, -half, size, size)
    elif symbol == "diamond":
        path.moveTo(0, -half)
        for x, y in ((half, 0), (0, half), (-half, 0)):
            path.lineTo(x, y)
        path.closeSubpath()
    else:  # cross
        arm = size / 6
        path.setFillRule(Qt.FillRule.WindingFill)
        path.addRect(-arm, -half, 2 * arm, size)
        path.addRect(-half, -arm, size, 2 * arm)
    return path
