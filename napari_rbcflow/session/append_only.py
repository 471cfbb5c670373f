"""Tables that only grow, ``changes.csv`` and ``reviews.csv``: what persons said, kept for good.

A line is on the disk before it is shown as done. One that a crash cut was never shown, and is ignored; the
next line is written behind it, and nothing is ever removed. Any other damage is a fault, and no number rests
on a part of a table.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import is_full, sync_folder, write_all
from napari_rbcflow.sentences import say
from napari_rbcflow.session.tables import header, unreadable

CUT = b" (cut by a crash)\n"
"""Ends a line that a crash cut, so that the next one is whole; nothing is removed from the file."""
NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR})
"""Errors that say that the folder may not be written to."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Audit(Generic[Row]):
    """What such a table holds."""

    rows: list[Row] = field(default_factory=list)  # in the order in which they were written
    cut: list[str] = field(default_factory=list)
    """Lines that a crash cut: they were never shown as done, and are ignored. A sentence each."""
    faults: list[str] = field(default_factory=list)  # what cannot be right, a sentence each


@dataclass(frozen=True)
class AppendOnly(Generic[Row]):
    """One such table of a session.

    `parse` takes the fields of a line and returns the row; it raises ValueError with what is wrong, as part
    of a sentence.
    """

    name: str
    columns: tuple[str, ...]
    parse: Callable[[Sequence[str]], Row]

    def read(self, folder: Path) -> bytes:
        """Return the bytes of the file; none where there is no file."""
        path = folder / self.name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise unreadable(path, error.strerror) from error

    def audit(self, folder: Path) -> Audit[Row]:
        """Read the table as far as it goes; empty where there is no file."""
        lines = self.read(folder).splitlines(keepends=True)
        audit: Audit[Row] = Audit()
        if not lines:
            return audit
        first = header(self.columns)
        if lines[0] != first:
            if len(lines) > 1 or not first.startswith(lines[0]):
                columns = ",".join(self.columns)
                audit.faults.append(say("session.records-first-line", name=self.name, columns=columns))
            else:
                audit.cut.append(say("session.records-line-cut", name=self.name, line=1))
            return audit
        for number, line in enumerate(lines[1:], start=2):
            if not line.endswith(b"\n") or line.endswith(CUT):
                audit.cut.append(say("session.records-line-cut", name=self.name, line=number))
                continue
            try:
                audit.rows.append(self.parse(self._fields(line)))
            except ValueError as error:
                fault = say("session.records-line", name=self.name, line=number, why=error)
                audit.faults.append(fault)
        return audit

    def rows(self, folder: Path) -> list[Row]:
        """Return all rows; `RunFailed` if any is damaged, as no number may rest on a part."""
        audit = self.audit(folder)
        if audit.faults:
            raise RunFailed("session.records-unusable", path=folder / self.name, fault=audit.faults[0])
        return audit.rows

    def append(self, folder: Path, rows: Iterable[Iterable[object]]) -> None:
        """Write rows behind all others, all or none; on the disk when it returns.

        Where the folder may not be written to (BadInput), or the disk is full or broken (RunFailed), the file
        is as it was.
        """
        path = folder / self.name
        try:
            self._append(path, rows)
        except OSError as error:
            raise _refusal(path, error) from error

    def _append(self, path: Path, rows: Iterable[Iterable[object]]) -> None:
        is_new = not path.exists()
        there = b"" if is_new else path.read_bytes()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode()
        if b"\n" not in there:  # none yet, or a crash cut the very first line
            data = header(self.columns) + data
        elif not there.endswith(b"\n"):
            data = CUT + data
        with path.open("ab", buffering=0) as file:
            if there and b"\n" not in there:
                file.truncate(0)
            end = os.fstat(file.fileno()).st_size
            try:
                write_all(file, data)
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
        if is_new:
            sync_folder(path.parent)

    def _fields(self, line: bytes) -> list[str]:
        try:
            rows = list(csv.reader([line.decode()], strict=True))
        except (UnicodeDecodeError, csv.Error):
            raise ValueError(say("session.records-not-columns")) from None
        if len(rows) != 1 or len(rows[0]) != len(self.columns):
            raise ValueError(say("session.records-column-count", columns=len(self.columns)))
        return rows[0]


def when(text: str) -> str:
    """Return a time as a line holds it; ValueError where it is none."""
    try:
        if datetime.fromisoformat(text).utcoffset() is not None:
            return text
    except ValueError:
        pass
    raise ValueError(say("session.records-not-a-time", text=text))


def who(text: str) -> str:
    """Return a name as a line holds it; ValueError where it is none."""
    if not text:
        raise ValueError(say("session.records-nobody"))
    return text


def cell_number(text: str) -> int:
    """Return the number of a cell as a line holds it; ValueError where it is none."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) < 2**53):
        raise ValueError(say("session.records-not-a-cell", text=text))
    return int(text)


def one_of(labels: Sequence[str], text: str) -> str:
    """Return a label as a line holds it; ValueError where it is not one of some."""
    if text not in labels:
        raise ValueError(say("session.records-not-a-label", text=text))
    return text


def one_line(name: str) -> str:
    """Return a name without what would break a line, with its accents in their one usual form."""
    name = unicodedata.normalize("NFC", name)
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def _refusal(path: Path, error: OSError) -> BadInput | RunFailed:
    """Return the error for a table that cannot be written."""
    if is_full(error):
        return RunFailed("session.records-disk-full", path=path)
    why = error.strerror or str(error)
    if error.errno in NO_RIGHT:
        return BadInput("session.records-no-right", path=path, why=why)
    return RunFailed("session.records-failed", path=path, why=why)
