"""The run's record in a form: a folded group of fields, by the laboratory's template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QVBoxLayout, QWidget

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session import FieldKind, RecordField, RecordTemplate, RunRecord
from napari_rbcflow.widgets.panel import Fold
from napari_rbcflow.widgets.remembered import load_settings

# Characters of what is filled in that the folded title has room for.
_SHORT = 44
# What is of one blood sample only; the rest stays from run to run.
_OF_ONE_SAMPLE = frozenset({"control_lot"})


class RecordForm(QWidget):
    """Fields for the record; while it is folded, its title tells what is filled in."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fields: dict[str, QLineEdit | QComboBox] = {}
        self._template = RecordTemplate()
        self._from = ""  # the file that the template was read from
        self._by_order = False  # the template came with a run that was begun elsewhere
        self._rows = QWidget()
        self.fold = Fold(say("forms.record"), self._rows)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.fold)
        column.addWidget(self._rows)
        self.fold.setChecked(False)
        self.fold.toggled.connect(self._name_fold)
        self._build({})
        try:
            self.take_template()
        except BadInput:
            return  # it is said when a run is to start

    def take_template(self) -> None:
        """Read the template that the settings name; what is filled in stays."""
        if self._by_order:
            return
        path = load_settings().record_template.strip()
        read = RecordTemplate.read(Path(path).expanduser()) if path else RecordTemplate()
        if (path, read) != (self._from, self._template):
            self._from, self._template = path, read
            self._build(self.texts())

    def texts(self) -> dict[str, str]:
        """Return what is filled in."""
        return {name: text for name in self.fields if (text := self._text(name))}

    def record(self, *, complete: bool = True) -> RunRecord:
        """Return the record; `BadInput`, with the fields to be seen, where it is wrong or not `complete`."""
        try:
            self.take_template()
            record = self._template.record(self.texts())
            if complete:
                record.refuse_incomplete()
        except BadInput:
            self.fold.setChecked(True)
            raise
        return record

    def write(self, texts: Mapping[str, str]) -> None:
        """Show these texts in the fields that there are."""
        for name in self.fields:
            self._set(name, texts.get(name, ""))

    def fill(self, record: RunRecord) -> None:
        """Show a record, with its own template."""
        self._by_order = record.template != RecordTemplate()
        self._template = record.template
        self._build(
            {name: f"{v:g}" if isinstance(v, (int, float)) else v for name, v in record.values.items()}
        )

    def forget_sample(self) -> None:
        """Empty what belongs to one blood sample: another patient's is to be measured."""
        for field in self._template.fields:
            if field.kind is FieldKind.TIME or field.name in _OF_ONE_SAMPLE:
                self._set(field.name, "")

    def _build(self, texts: dict[str, str]) -> None:
        """Make the rows anew, with these texts."""
        layout = self._rows.layout()
        if layout is None:
            layout = QFormLayout(self._rows)
            layout.setContentsMargins(12, 0, 0, 0)
            layout.setVerticalSpacing(4)
            layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        assert isinstance(layout, QFormLayout)
        while layout.rowCount():
            layout.removeRow(0)
        self.fields = {}
        for field in self._template.fields:
            widget = self._field(field)
            self.fields[field.name] = widget
            layout.addRow(
                say("forms.record-needed", title=field.title) if field.required else field.title, widget
            )
            self._set(field.name, texts.get(field.name, ""))
        self._name_fold()

    def _field(self, field: RecordField) -> QLineEdit | QComboBox:
        widget: QLineEdit | QComboBox
        if field.choices:
            widget = QComboBox()
            widget.addItems(["", *field.choices])
            widget.currentIndexChanged.connect(self._name_fold)
        else:
            widget = QLineEdit()
            widget.textChanged.connect(self._name_fold)
            if field.kind is FieldKind.TIME:
                widget.setPlaceholderText(say("forms.record-time-example"))
        widget.setToolTip(field.help)
        return widget

    def _text(self, name: str) -> str:
        widget = self.fields[name]
        return (widget.currentText() if isinstance(widget, QComboBox) else widget.text()).strip()

    def _set(self, name: str, text: str) -> None:
        widget = self.fields[name]
        if isinstance(widget, QComboBox):
            widget.setCurrentIndex(max(0, widget.findText(text)))
        else:
            widget.setText(text)

    def _name_fold(self, *_: object) -> None:
        given = ", ".join(self.texts().values())
        needed = sum(field.required and field.name not in self.texts() for field in self._template.fields)
        title = say("forms.record")
        if given and not self.fold.isChecked():
            title = say("forms.record-given", details=given if len(given) <= _SHORT else given[:_SHORT] + "…")
        elif needed and not self.fold.isChecked():
            title = say("forms.record-to-fill", fields=needed)
        self.fold.setText(title.replace("&", "&&"))
        self.fold.setToolTip(given)
