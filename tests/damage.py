"""Damages session folders in every way a disk, a person or another program can, and says what then breaks.

`benchmarks/fuzz_sessions.py` does it for hours, `test_damaged_sessions.py` for seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from factories import account_of, begin, some_pairs, write

from napari_rbcflow.cli import main
from napari_rbcflow.errors import RbcflowError
from napari_rbcflow.session import CellBrowser, CellQuery, ChangeLog, Review, open_session
from napari_rbcflow.session.recovery import close_interrupted

LONGEST_S, MOST_BYTES = 10, 1 << 30
ODD: tuple[Any, ...] = (None, -1, 0, 0.5, 10**18, -(10**30), 1e308, float("nan"), float("inf"), True, "", "x")
ODD += ("\0", "ü" * 300, [], {}, [1], {"x": 1}, "2026-13-45T99:99", "../../away")
FIELDS = (
    "",
    "-1",
    "0",
    "1e999",
    "nan",
    "9" * 25,
    "x" * 5000,
    "a,b",
    '"',
    "flipping",
    "0x1",
    "1.5",
    "\0",
    "é",
)


class Find(NamedTuple):
    """What must not happen: `key` tells one fault in the program from another."""

    key: str
    damage: str
    told: str


# ------------------------------------------------------------------ sessions


def make(folder: Path) -> dict[str, Path]:
    """Write a session that was reviewed and changed by hand, another one, and one whose process died."""
    made = {name: folder / name for name in ("whole", "other", "crashed")}
    for name, seed in (("whole", 1), ("other", 2)):
        pairs = some_pairs(120, seed)
        write(made[name], pairs, patient=f"P{seed}")
        labels = {track.cell: str(said.label) for track, said in pairs}
        review = Review(made[name])
        review.add({cell: labels[cell] for cell in review.sample(60)}, "Anna")
        review.add({cell: labels[cell] for cell in review.sample(30, "Bert")[:30]}, "Bert")
        review.finish()
        cell = next(c for c, label in labels.items() if label == "flipping")
        ChangeLog(made[name]).add(cell, "struck-out", "Anna")
    pairs = some_pairs(40, 3)
    writer = begin(made["crashed"])
    writer.keep(pairs)
    writer.heartbeat(account_of(pairs))
    writer._marker._file.close()  # as its process died
    return made


# ------------------------------------------------------------------ damage


def _json(data: bytes, rng: random.Random) -> bytes:
    """Falsify one value, or leave it out."""
    wrapper: Any = {"": json.loads(data)}
    at, key = wrapper, ""
    while isinstance(at[key], (dict, list)) and at[key] and (at is wrapper or rng.random() < 0.75):
        at = at[key]
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
    if at is not wrapper and isinstance(at, dict) and rng.random() < 0.2:
        at.pop(key)
    else:
        at[key] = rng.choice(ODD)
    return json.dumps(wrapper[""]).encode()


def _field(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode("utf-8", "replace").splitlines()
    k = rng.randrange(len(lines))
    fields = lines[k].split(",")
    fields[rng.randrange(len(fields))] = rng.choice(FIELDS)
    lines[k] = ",".join(fields)
    return ("\n".join(lines) + "\n").encode()


def _lines(data: bytes, rng: random.Random) -> bytes:
    """Lose, repeat or move some lines."""
    lines = data.splitlines(keepends=True)
    a, b = sorted(rng.randrange(len(lines) + 1) for _ in range(2))
    kind = rng.randrange(3)
    if kind == 0:
        return b"".join(lines[:a] + lines[b:])
    return b"".join(lines[:b] + lines[a:] if kind == 1 else lines[a:b] + lines[:a] + lines[b:])


def _bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _stretch(data: bytes, rng: random.Random) -> bytes:
    a = rng.randrange(len(data))
    return data[:a] + bytes(rng.choice((0, 255)) for _ in range(rng.randrange(1, 64))) + data[a:]


TEXTS = (b"{}", b"[]", b"null", b"\xff\xfe", b"0", b"\0" * 100, b"[" * 10**5)
CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "bits": _bits,
    "stretched": _stretch,
    "emptied": lambda data, rng: b"",
    "lines": _lines,
    "text": lambda data, rng: rng.choice(
        (b"{}", b"[]", b"null", b"\xff\xfe", b"0", b"\0" * 100, b"[" * 10**5)
    ),
}


def damage(folder: Path, other: Path, rng: random.Random) -> str:
    """Damage one file of a session, and say how."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    tables = [p for p in files if p.suffix in (".json", ".csv")]
    path = rng.choice(tables if rng.random() < 0.7 else files)
    place, name = path.relative_to(folder), "foreign"
    kind = rng.random()
    if kind < 0.06:
        path.unlink()
        name = "lost"
        if rng.random() < 0.3:
            path.mkdir()
            name = "a folder"
        elif rng.random() < 0.2:
            path.symlink_to(path.name)
            name = "a link to itself"
    elif kind < 0.14 and (other / place).is_file():
        shutil.copy(other / place, path)
    elif data := path.read_bytes():
        if path.suffix == ".json" and rng.random() < 0.75:
            name, change = "falsified", _json
        elif path.suffix == ".csv" and rng.random() < 0.55:
            name, change = "field", _field
        else:
            name, change = rng.choice(list(CHANGES.items()))
        with contextlib.suppress(ValueError):  # damaged before, so that it is no JSON
            path.write_bytes(change(data, rng))
    return f"{place} {name}"


# ------------------------------------------------------------------ what must go on


def _read(folder: Path) -> None:
    session = open_session(folder)
    repr(session.interrupted)
    parts = ("cells", "tracks", "fraction", "counted", "counted_again", "changes", "labels_by_hand")
    for part in (*parts, "fraction_by_hand", "conclusion", "fraction_reviewed", "ring", "warnings"):
        with contextlib.suppress(RbcflowError):
            getattr(session, part)
    with contextlib.suppress(RbcflowError):
        for cell in session.cells["cell"].head(5):
            with contextlib.suppress(RbcflowError):
                session.sequence(cell)
    if (ring := session.ring) is not None:
        ring.check()


def _review(folder: Path) -> None:
    review = Review(folder)
    for part in ("labels", "figure", "conclusion", "agreement", "passed_over", "chosen", "together"):
        with contextlib.suppress(RbcflowError):
            getattr(review, part)
    cells = review.sample(3, "Carl")
    review.add(dict.fromkeys(cells, "flipping"), "Carl")
    review.finish()


def _browse(folder: Path) -> None:
    browser = CellBrowser(folder)
    for row in browser.rows(CellQuery())[:3]:
        with contextlib.suppress(RbcflowError):
            browser.look(row.cell)


def _change(folder: Path) -> None:
    log = ChangeLog(folder)
    log.labels()
    log.figure(tank_treading=10, flipping=3)
    cells = open_session(folder).cells
    for cell in cells["cell"].head(1).tolist():
        log.add(int(cell), "struck-out", "Carl")


PYTHON: dict[str, Callable[[Path], object]] = {
    "open_session": _read,
    "CellBrowser": _browse,
    "close_interrupted": lambda folder: close_interrupted(folder, "it died"),
    "Review": _review,
    "ChangeLog": _change,
}
COMMANDS: dict[str, list[str]] = {
    "verify": ["verify", "S"],
    "trend": ["trend", "S", "--csv", "out/t.csv"],
    "trend of many": ["trend", ".", "--csv", "out/m.csv", "--patient", "P1"],
    "export": ["export", "S", "-o", "out/e"],
    "table": ["export", "S", "--as", "table", "-o", "out/r.csv"],
    "fhir": ["export", "S", "--as", "fhir", "-o", "out/o.json"],
    "ome-zarr": ["export", "S", "--as", "ome-zarr", "-o", "out/f"],
    "geff": ["export", "S", "--as", "geff", "-o", "out/g"],
    "calibrate": ["calibrate", "S", "-o", "out/c.json"],
    "review": ["review", "S"],
}


def broken(work: Path, how: str) -> Iterator[Find]:
    """Do with the session ``S`` in a folder all that can be done, and return what must not happen."""
    (work / "out").mkdir()
    for name, words in COMMANDS.items():
        before = _listing(work / "S")
        said = io.StringIO()
        with _limits(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                main(["--debug", *words])
                code: Any = 0
            except SystemExit as end:
                code = end.code
            except BaseException as error:
                yield Find(f"{name}: {_where(error)}", how, traceback.format_exc())
                continue
        text = said.getvalue()
        if code not in (0, 1, 2) or "rbcflow: unexpected" in text:
            yield Find(f"{name}: {_last_place(text)}", how, text)
        if code == 2 and list((work / "out").iterdir()):
            yield Find(f"{name}: leaves something with exit 2", how, text)
        if _listing(work / "S") != before and name != "review":
            yield Find(f"{name}: writes into the session", how, text)
        shutil.rmtree(work / "out")
        (work / "out").mkdir()
    for name, call in PYTHON.items():
        with _limits():
            try:
                call(work / "S")
            except RbcflowError:
                pass
            except BaseException as error:
                yield Find(f"{name}: {_where(error)}", how, traceback.format_exc())
    if away := {p.name for p in work.iterdir()} - {"S", "out", "other"}:
        yield Find(f"writes elsewhere: {sorted(away)}", how, "")


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    found = [(p, p.lstat()) for p in sorted(folder.rglob("*"))]
    return [(str(p), s.st_size, s.st_mtime_ns) for p, s in found]


class TooLong(BaseException):
    """Nothing of ours catches that."""


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Raise `TooLong` after `LONGEST_S`, and MemoryError where `MOST_BYTES` more than now are taken."""

    def ring(*_: object) -> None:
        raise TooLong

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _where(error: BaseException) -> str:
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "napari_rbcflow" in f.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} in {place}"


def _last_place(text: str) -> str:
    lines = text.splitlines()
    ours = [line for line in lines if 'File "' in line and "napari_rbcflow" in line]
    kinds = [line.split(":")[0] for line in lines if line[:1].isalpha() and "Error" in line.split(":")[0]]
    parts = ours[-1].split('"') if ours else ["", "?", ", in ?"]
    return f"{kinds[-1] if kinds else '?'} in {Path(parts[1]).name}:{parts[2].split(' in ')[-1]}"


def one(base: dict[str, Path], work: Path, seed: int, kind: str = "") -> list[Find]:
    """Damage a copy of a session as the seed says, and return what must not happen."""
    rng = random.Random(seed)
    kind = kind or rng.choice(("whole", "whole", "whole", "crashed"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copytree(base[kind], work / "S")
    shutil.copytree(base["whole"], work / "other")
    how = "; ".join(damage(work / "S", base["other"], rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    with contextlib.chdir(work):
        return list(broken(work, f"seed {seed}, {kind}: {how}"))


assert sys.platform != "win32"
