"""A batch's folder, on a disk or in an object store: what was done, the sessions, the table.

What was done lies in ``.batch/rows``, a small file a movie, written where the movie was analysed. So a batch
that is killed at any moment knows what is finished, and the table is made anew from these files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.ring import read_json, replace_file
from napari_rbcflow.session import RUN_FILE, Session, locked, open_session

if TYPE_CHECKING:
    import pandas as pd

TABLE = "batch.csv"
PARQUET = "batch.parquet"
_STATE = ".batch"
_MARKER = "batch.json"
FORMAT = 1
FINISHED, FAILED, UNFINISHED = "finished", "failed", "unfinished"
"""How a movie stands; `UNFINISHED` only while its session is on its way into an object store."""
WAITING, RUNNING = "waiting", "running"
"""While a batch goes on; in no table."""

Row = dict[str, Any]


class BatchCount(NamedTuple):
    """How a batch stands: movies finished, failed and in all, and what share of all is done (0 to 1)."""

    finished: int
    failed: int
    movies: int
    share: float

    @property
    def done(self) -> int:
        """Movies that are finished or failed."""
        return self.finished + self.failed

    @classmethod
    def of(cls, rows: Collection[Mapping[str, Any]]) -> BatchCount:
        """Count the rows that a look at a batch gives."""
        states = Counter(row["status"] for row in rows)
        done = states[FINISHED] + states[FAILED] + sum(row.get("share", 0.0) for row in rows)
        return cls(states[FINISHED], states[FAILED], len(rows), done / max(len(rows), 1))


OF_MOVIE = ("movie", "status", "reason", "session", "patient", "sample", "date")
NUMBERS: dict[str, str] = {
    "fraction": "Float64",
    "fraction_low": "Float64",
    "fraction_high": "Float64",
    "fraction_level": "Float64",
    "fraction_method": "string",
    "n": "Int64",
    "fraction_corrected": "Float64",
    "fraction_corrected_low": "Float64",
    "fraction_corrected_high": "Float64",
    "result": "Float64",
    "result_low": "Float64",
    "result_high": "Float64",
    "result_level": "Float64",
    "result_method": "string",
    "result_n": "Int64",
}
"""The machine's number, that corrected for its errors, and the one to act on, where there is one."""
COLUMNS: dict[str, str] = {
    **dict.fromkeys((*OF_MOVIE, "verdict", "verdict_reason"), "string"),
    **NUMBERS,
    **dict.fromkeys(
        ("tracked", "tank_treading", "flipping", "unreliable", "too_short", "uncounted"), "Int64"
    ),
    **dict.fromkeys(("frames", "frames_processed", "frames_dropped", "frames_missed"), "Int64"),
    "fps": "Float64",
    "pixel_size_um": "Float64",
    **dict.fromkeys(
        ("warnings", "started", "ended", "version", "movie_hash", "settings_hash", "as_of"), "string"
    ),
}
"""The columns of the table, with pandas' types; the records' fields and a person's own columns follow."""


# ------------------------------------------------------------------ addresses


def local_path(address: str) -> Path | None:
    """Return the path of an address on a disk; None for an object store."""
    if "://" not in address:
        return Path(address)
    if address.startswith(("file://", "local://")):
        from fsspec.implementations.local import LocalFileSystem

        return Path(LocalFileSystem._strip_protocol(address))
    return None


def in_store(address: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it; `BadInput` where there is none."""
    import fsspec

    try:
        # Another thread or computer writes there too: what was listed once says nothing.
        store, at = fsspec.core.url_to_fs(address, use_listings_cache=False)
        return store, str(at)
    except (ImportError, ValueError) as error:
        raise BadInput("pipeline.batch-no-store", address=address, why=error) from None


def absolute(address: str) -> str:
    """Return an address by which any process finds it."""
    path = local_path(address)
    return address.rstrip("/") if path is None else str(Path(os.path.abspath(path)))  # noqa: PTH100


def fingerprint(address: str) -> str:
    """Return what changes with a movie, without reading it: sizes and times, in a store its own checksums."""
    path = local_path(address)
    if path is not None:
        if not path.is_dir():
            stat = path.stat()
            return f"{stat.st_size}-{stat.st_mtime_ns}"
        stats = ((file.relative_to(path).as_posix(), file.stat()) for file in files_in(path))
        return _digest(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    store, at = in_store(address)
    info = store.info(at)
    if info["type"] != "directory":
        return _state(info)
    found = store.find(at, detail=True)
    return _digest(f"{name} {_state(info)}" for name, info in sorted(found.items()))


def _state(info: Mapping[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
    state = next((info[name] for name in names if info.get(name)), "")
    return f"{info['size']}-{str(state).strip(chr(34))}"


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a movie; of a folder, that of its files' names and hashes."""
    if path.is_dir():
        return _digest(f"{file.relative_to(path).as_posix()} {content_hash(file)}" for file in files_in(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def fetch(address: str, folder: Path, spare_bytes: int = 2**30) -> Path:
    """Copy a movie out of a store into a new folder; return where it lies there. RunFailed without room."""
    folder.mkdir()
    store, at = in_store(address)
    info = store.info(at)
    target = folder / Path(at).name
    found = store.find(at, detail=True) if info["type"] == "directory" else {at: info}
    need = sum(one["size"] or 0 for one in found.values())
    if shutil.disk_usage(folder).free < need + spare_bytes:
        raise RunFailed("pipeline.batch-no-room", movie=address, size=need / 1e9, folder=folder)
    relative = [name[len(at) :].strip("/") for name in found]
    _get(store, list(found), [target / name if name else target for name in relative])
    return target


def _get(store: Any, paths: list[str], to: list[Path]) -> None:
    for parent in {path.parent for path in to}:
        parent.mkdir(parents=True, exist_ok=True)
    store.get(paths, [str(path) for path in to])


# ------------------------------------------------------------------ results

_FIGURE = ("estimate", "low", "high", "level", "method", "n")
_SAYS_RESULTS = (RUN_FILE, "review.json")  # the files that `results_of` reads


def results_of(session: Session) -> Row:
    """Return what a table of results needs of a closed session, as it is now."""
    run, conclusion = session.run, session.conclusion
    frames, corrected, result = run["frames"], run.get("fraction_corrected") or {}, conclusion.headline
    numbers = {
        "fraction": run["fraction"],
        "fraction_corrected": {name: corrected.get(name) for name in ("estimate", "low", "high")},
        "result": dict.fromkeys(_FIGURE) if result is None else vars(result),
    }
    return {
        "verdict": str(conclusion.verdict),
        "verdict_reason": conclusion.reason,
        **{
            name if entry == "estimate" else f"{name}_{entry}": value
            for name, figure in numbers.items()
            for entry, value in figure.items()
            if entry in _FIGURE
        },
        "n": run["fraction"]["n"],
        **run["cells"],
        "frames": frames["received"],
        "frames_processed": frames["processed"],
        "frames_dropped": sum(frames["dropped"].values()),
        "frames_missed": sum(frames["missed"].values()),
        "fps": run["parameters"]["fps"],
        "pixel_size_um": run["parameters"]["pixel_size_um"],
        "record": run.get("record") or {},
        "warnings": " ".join(warning.key for warning in session.warnings),
        "started": run["started"],
        "ended": run["ended"],
        "as_of": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


# ------------------------------------------------------------------ the folder


class BatchFolder:
    """Where a batch lies; every process that works on it makes one of its own from the address.

    Attributes
    ----------
    address : str
        Absolute.
    local : Path or None
        On a disk.
    """

    def __init__(self, address: str) -> None:
        self.address = absolute(address)
        self.local = local_path(self.address)
        self._store: Any = None
        self._root = ""
        if self.local is None:
            self._store, self._root = in_store(self.address)

    @property
    def begun(self) -> bool:
        """Whether a batch was begun here; raises `BadInput` if something else is here, or nothing can be."""
        if self.local is not None:
            if (self.local / _MARKER).is_file():
                return True
            if os.path.lexists(self.local):
                raise BadInput("pipeline.batch-other-folder", folder=self.address)
            if not self.local.parent.is_dir():
                raise BadInput("session.no-parent-folder", folder=self.local, parent=self.local.parent)
            return False
        try:
            if self._store.exists(f"{self._root}/{_MARKER}"):
                return True
            if self._store.exists(self._root) and self._store.ls(self._root):
                raise BadInput("pipeline.batch-other-folder", folder=self.address)
        except OSError as error:
            raise BadInput("pipeline.batch-no-store", address=self.address, why=error) from None
        return False

    def create(self) -> None:
        """Make it, whole or not at all."""
        marker = json.dumps({"format": FORMAT}).encode()
        if self.local is None:
            self._store.pipe_file(f"{self._root}/{_MARKER}", marker)
            return
        beside = self.local.with_name(f".{self.local.name}-{uuid.uuid4().hex[:8]}")
        try:
            (beside / _STATE / "rows").mkdir(parents=True)
            (beside / _MARKER).write_bytes(marker)
            beside.rename(self.local)
        except (OSError, ValueError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            why = getattr(error, "strerror", None) or error
            raise BadInput("session.cannot-create", folder=self.local, why=why) from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep another batch out of a folder on a disk, and clear away what one left half done."""
        if self.local is None:
            yield
            return
        with locked(self.local / _MARKER, busy="pipeline.batch-busy", patience_s=0.5):
            shutil.rmtree(self.local / _STATE / "work", ignore_errors=True)
            yield

    # -------------------------------------------------------------- files

    def path(self, name: str) -> str:
        """Return the address of a file or folder in it."""
        return f"{self.address}/{name}" if self.local is None else str(self.local / name)

    def exists(self, name: str) -> bool:
        if self.local is not None:
            return (self.local / name).exists()
        return bool(self._store.exists(f"{self._root}/{name}"))

    def read(self, name: str) -> bytes | None:
        try:
            if self.local is not None:
                return (self.local / name).read_bytes()
            return self._store.cat_file(f"{self._root}/{name}")  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all."""
        if self.local is None:
            self._store.pipe_file(f"{self._root}/{name}", data)
            return
        (self.local / name).parent.mkdir(exist_ok=True)
        replace_file(self.local / name, data)

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """Make an empty folder for one movie's session; of a batch on a disk, on the same disk."""
        if self.local is None:
            with tempfile.TemporaryDirectory(prefix="rbcflow-batch-", ignore_cleanup_errors=True) as name:
                yield Path(name)
            return
        folder = self.local / _STATE / "work" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # -------------------------------------------------------------- what was done

    def rows(self) -> dict[str, Row]:
        """Return what is known of each movie, by its key."""
        if self.local is not None:
            rows = {}
            for path in (self.local / _STATE / "rows").glob("*.json"):
                with contextlib.suppress(OSError, ValueError):
                    rows[path.stem] = read_json(path)
            return rows
        try:
            names = self._store.ls(f"{self._root}/{_STATE}/rows", detail=False, refresh=True)
        except FileNotFoundError:
            return {}
        told = self._store.cat(names, on_error="omit") if names else {}
        return {Path(name).stem: json.loads(data) for name, data in told.items()}

    def keep(self, row: Row, session: Path | None = None) -> None:
        """Write down how a movie ended, and take its session in.

        On a disk the row comes first and a rename last: a finished row without its session is not finished.
        A store has no rename: the row says `UNFINISHED` until all files of the session are there.
        """
        name = f"{_STATE}/rows/{row['key']}.json"
        if session is not None and self.local is None:
            self.write(name, _json(row | {"status": UNFINISHED}))
            self._put(session, row["session"])
        if row["status"] == FINISHED:
            self.write(self._done(row["movie_hash"], row["settings_hash"]), _json(row))
        self.write(name, _json(row))
        if session is not None and self.local is not None:
            shutil.rmtree(self.local / row["session"], ignore_errors=True)  # one that failed before
            session.rename(self.local / row["session"])

    def _put(self, session: Path, name: str) -> None:
        root = f"{self._root}/{name}"
        if self._store.exists(root):
            self._store.rm(root, recursive=True)
        files = files_in(session)
        # Without run.json it is no session: that comes when all else is there.
        files.sort(key=lambda file: file == session / "run.json")
        to = [f"{root}/{file.relative_to(session).as_posix()}" for file in files]
        self._store.put([str(file) for file in files[:-1]], to[:-1])
        self._store.put([str(files[-1])], to[-1:])

    @staticmethod
    def _done(movie_hash: str, settings_hash: str) -> str:
        return f"{_STATE}/done/{movie_hash[:32]}-{settings_hash[:32]}.json"

    def done(self, movie_hash: str, settings_hash: str) -> Row | None:
        """Return the row of these frames with these settings, if they were analysed and are still here."""
        told = self.read(self._done(movie_hash, settings_hash))
        if told is None:
            return None
        row: Row = json.loads(told)
        run = self.read(f"{row['session']}/run.json")
        # A person may have deleted the session, and another have got its name.
        return row if run is not None and json.loads(run)["started"] == row["started"] else None

    def results(self, name: str) -> Row | None:
        """Return what a session says now, None where it is gone; `BadInput` if it is damaged."""
        if not self.exists(f"{name}/{RUN_FILE}"):
            return None
        if self.local is not None:
            return results_of(open_session(self.local / name))
        with tempfile.TemporaryDirectory(prefix="rbcflow-batch-") as folder:
            for file in _SAYS_RESULTS:
                if (data := self.read(f"{name}/{file}")) is not None:
                    (Path(folder) / file).write_bytes(data)
            return results_of(open_session(folder))

    def copy_session(self, name: str, to: Path) -> None:
        """Copy a session out of the batch's folder."""
        if self.local is not None:
            shutil.copytree(self.local / name, to)
            return
        root = f"{self._root}/{name}"
        found = self._store.find(root)
        _get(self._store, found, [to / path[len(root) :].strip("/") for path in found])

    # -------------------------------------------------------------- the table

    def table(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Return rows as a table, with the addresses of the sessions."""
        import pandas as pd

        told, types = [], dict(COLUMNS)
        for row in rows:
            record = {f"record_{name}": value for name, value in row.get("record", {}).items()}
            for name, value in record.items():
                number = isinstance(value, (int, float)) and types.get(name) != "string"
                types[name] = "Float64" if number else "string"
            told.append(
                row["columns"]
                | record
                | {name: row[name] for name in COLUMNS if name in row}
                | {"session": self.path(row["session"]) if row["session"] else ""}
            )
        types |= {name: "string" for row in rows for name in row["columns"] if name not in types}
        return pd.DataFrame(told, columns=list(types)).astype(types)

    def write_table(self, rows: Sequence[Row]) -> None:
        """Write ``batch.csv`` and ``batch.parquet``, each in one step."""
        table = self.table([row for row in rows if row["status"] != UNFINISHED])
        self.write(TABLE, table.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogateescape"))
        parquet = io.BytesIO()
        table.to_parquet(parquet, index=False)
        self.write(PARQUET, parquet.getvalue())


def _json(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, indent=1, ensure_ascii=True, default=str).encode()
