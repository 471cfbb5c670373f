"""What the camera really took, in a line."""

from __future__ import annotations

from html import escape

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rbcflow.sources.contract import SourceInfo
from napari_rbcflow.widgets.labels import say, wrapping_label
from napari_rbcflow.widgets.theme import WARNING_COLOUR

_SMALL = "font-size: 13px; padding: 0px 4px;"
_DIFFERS = f"font-size: 15px; border: 2px solid {WARNING_COLOUR}; border-radius: 4px; padding: 4px;"
_PIXEL_FROM = {
    "calibration": "from Micro-Manager's calibration",
    "setting": "as it was set",
    "default": "nobody says, so the usual one",
}


class CameraLine(QWidget):
    """Field, rate, exposure, binning and pixels as read back; what is not as asked stands out.

    Attributes
    ----------
    took, differs : QLabel
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.took, self.differs = wrapping_label(_SMALL), wrapping_label(_DIFFERS)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.took)
        column.addWidget(self.differs)
        self.clear()

    def clear(self) -> None:
        """Say nothing."""
        say(self.took, "")
        say(self.differs, "")
        self.hide()

    def show_info(self, info: SourceInfo) -> None:
        """Say what a source that is open does."""
        say(self.took, escape(took_words(info)))
        self.setToolTip("\n".join(took_lines(info)))
        amiss = info.details.get("not_as_asked", "")
        say(self.differs, f"▲ Not as asked: {escape(amiss)}." if amiss else "")
        self.show()


def took_words(info: SourceInfo) -> str:
    """Return what a source does, as short as can be."""
    details = info.details
    said = [f"{info.width} x {info.height} px", f"{info.fps:.4g} frames/s"]
    if info.exposure_ms is not None:
        said.append(f"{info.exposure_ms:.4g} ms")
    if "binning" in details:
        said.append(f"binning {details['binning']}")
    if "pixel_type" in details:
        said.append(details["pixel_type"])
    said.append(f"{info.pixel_size_um:.4g} µm/px" + ("" if info.pixel_size_known else " (?)"))
    return " · ".join(said)


def took_lines(info: SourceInfo) -> list[str]:
    """Return the same at length, and whatever the source has to say, a line each."""
    details = info.details
    lines = [f"{info.name}: what it really does, not what was asked."]
    if "adapter" in details:
        lines.append(f"Camera: {details['adapter']}, {details.get('bit_depth', '?')} bits")
    if "roi_px" in details:
        lines.append(f"Field: x, y, width, height {details['roi_px']} px")
    lines.append(
        f"Frame rate: {info.fps:.4g} a second"
        + (
            ", measured"
            if "fps_measured" in details
            else ""
            if info.fps_known
            else ", nobody says: the usual"
        )
    )
    origin = details.get("pixel_size_from", "" if info.pixel_size_known else "default")
    words = _PIXEL_FROM.get(origin, "")
    lines.append(f"Pixel: {info.pixel_size_um:.4g} µm" + (f", {words}" if words else ""))
    return [*lines, *(f"▲ {warning}" for warning in info.warnings)]
