"""Who signed a session's report off, ``signatures.csv``, and what it was then, by hash.

Each line holds the SHA-256 of the files that were signed and of all lines before it, so that no line can be
edited or removed unseen but the last ones. It is a name and a hash, no cryptographic signature: whoever may
write to the folder could sign as another, so keep the hash of the last line elsewhere where that matters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.session.append_only import CUT, AppendOnly, when, who
from napari_rbcflow.session.label_edits import CHANGES_FILE
from napari_rbcflow.session.schema import RUN_FILE, now
from napari_rbcflow.session.verdict import REVIEW_FILE, REVIEWS_FILE

SIGNATURES_FILE = "signatures.csv"
REPORT_FILE = "report.html"
_SIGNED_FILES = (RUN_FILE, CHANGES_FILE, REVIEWS_FILE, REVIEW_FILE, REPORT_FILE)
"""run.json holds the hashes of the tables, and those hold what every crop must fit."""
_BLOCK = re.compile(rb'<section class="signed".*?</section>\n', re.DOTALL)
"""In the report, what tells of the signatures: it is not signed itself."""
_FILES = re.compile(r"[a-z.]+=[0-9a-f]{64}(;[a-z.]+=[0-9a-f]{64})*")


@dataclass(frozen=True)
class Signature:
    """One line of ``signatures.csv``.

    Attributes
    ----------
    signed : str
        ISO 8601 with offset.
    by : str
    files : str
        ``name=sha256`` of each file that was signed, separated by semicolons.
    before : str
        SHA-256 of the signatures before it.
    """

    signed: str
    by: str
    files: str
    before: str

    def changed(self, folder: Path, *, without_report: bool = False) -> list[str]:
        """Return the names of the files that are other than when they were signed, gone or new."""
        told, present = dict(part.split("=") for part in self.files.split(";")), _hashes(folder)
        names = [name for name in _SIGNED_FILES if told.get(name) != present.get(name)]
        return [name for name in names if not (without_report and name == REPORT_FILE)]

    def words(self, changed: Sequence[str]) -> str:
        """Say who signed when, and what has changed since."""
        day = self.signed[:16].replace("T", " ")
        if changed:
            return say("session.signed-changed", by=self.by, signed=day, names=", ".join(changed))
        return say("session.signed-unchanged", by=self.by, signed=day)


def _signature(texts: Sequence[str]) -> Signature:
    signed, by, files, before = texts
    if not _FILES.fullmatch(files):
        raise ValueError(say("session.signatures-files"))
    return Signature(when(signed), who(by), files, before)


_TABLE = AppendOnly(SIGNATURES_FILE, tuple(field.name for field in fields(Signature)), _signature)


def read_signatures(folder: Path) -> list[Signature]:
    """Return the signatures in their order; empty where nobody signed; `RunFailed` if one is damaged."""
    return _TABLE.rows(folder)


def signature_words(folder: Path) -> list[str]:
    """Return a sentence for each signature, for the report; a page cannot hold its own hash."""
    return [one.words(one.changed(folder, without_report=True)) for one in read_signatures(folder)]


def append_signature(folder: Path, by: str) -> Signature:
    """Sign as the files are now; `BadInput` where that person has signed them so already."""
    for other in read_signatures(folder):
        if other.by == by and not other.changed(folder):
            raise BadInput("session.sign-again", by=by, folder=folder)
    files = ";".join(f"{name}={digest}" for name, digest in _hashes(folder).items())
    signature = Signature(now(), by, files, _hash_of(_whole_lines(folder)))
    _TABLE.append(folder, [astuple(signature)])
    return signature


def signature_findings(folder: Path) -> Iterator[str]:
    """Say what is wrong with the signatures, and what was changed after the last one."""
    audit = _TABLE.audit(folder)
    yield from (*audit.faults, *audit.cut)
    if audit.faults:
        return
    lines = _whole_lines(folder)
    for number, row in enumerate(audit.rows):
        if row.before != _hash_of(lines[:number]):
            yield say("session.signatures-edited", line=number + 1, by=row.by)
    if audit.rows and (changed := audit.rows[-1].changed(folder)):
        yield f"{audit.rows[-1].words(changed)} {say('session.signed-anew')}"


def signed_hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of what is signed, without the report, which is written again for it."""
    return {name: digest for name, digest in _hashes(folder).items() if name != REPORT_FILE}


def without_signatures(page: bytes) -> bytes:
    """Return a report without what tells of signatures."""
    return _BLOCK.sub(b"", page)


def report_hash(folder: Path) -> str | None:
    """Return the SHA-256 of the report without what tells of signatures; None where there is none."""
    return _hashes(folder).get(REPORT_FILE)


def _whole_lines(folder: Path) -> list[bytes]:
    """Return the lines of signatures, without the first line and what a crash cut."""
    lines = _TABLE.read(folder).splitlines(keepends=True)[1:]
    return [line for line in lines if line.endswith(b"\n") and not line.endswith(CUT)]


def _hash_of(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for name in _SIGNED_FILES:
        try:
            data = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        found[name] = hashlib.sha256(without_signatures(data) if name == REPORT_FILE else data).hexdigest()
    return found
