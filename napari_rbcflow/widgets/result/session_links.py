"""Where a session lies, and two buttons that open it."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_rbcflow.widgets.labels import breakable, say, wrapping_label


class SessionLinks(QWidget):
    """The folder's path, and buttons for it and for its report; takes no room without a session."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.line = wrapping_label("font-size: 13px;")
        self.open_folder = QPushButton("Open the session's folder")
        self.open_report = QPushButton("Open the report")
        self.open_folder.clicked.connect(lambda: self._open(""))
        self.open_report.clicked.connect(lambda: self._open("report.html"))
        row = QHBoxLayout()
        row.addWidget(self.open_folder)
        row.addWidget(self.open_report)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.line)
        column.addLayout(row)
        self._folder: Path | None = None
        self.hide()

    def clear(self) -> None:
        """Forget the session."""
        self._folder = None
        say(self.line, "")
        self.hide()

    def show_folder(self, folder: Path) -> None:
        """Show where a session lies."""
        self._folder = Path(folder)
        say(self.line, f"Session: {breakable(str(folder))}")
        self.open_report.setVisible((self._folder / "report.html").exists())
        self.show()

    def _open(self, name: str) -> None:
        if self._folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder / name)))
