"""What a disk does to a run: it fills up, and it writes back late."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from napari_rbcflow.errors import RunFailed
from napari_rbcflow.sentences import say

T = TypeVar("T")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DENIED_S = 2.0  # seconds for which a denied rename is tried again
_MOST = 2.0**53  # no count and no figure is greater
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def is_full(error: OSError) -> bool:
    """Say whether the disk (or the user's share of it) is full."""
    return error.errno in FULL


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Turn what the disk says while `folder` is written into one sentence.

    Raises
    ------
    RunFailed
        For any `OSError` inside.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise RunFailed("ring.disk-full", folder=folder) from error
        raise RunFailed("ring.disk-failed", folder=folder, why=error.strerror or error) from error


def preallocate(file: IO[bytes], size: int) -> None:
    """Give `file` its `size` bytes, as zeros, and where the system can, their place on the disk.

    Raises
    ------
    OSError
        Where there is no room. Where the system cannot reserve (macOS, some network disks) a full
        disk shows only when the bytes are written.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
        else:
            return
    file.truncate(size)


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, which may take less than that at once."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ValueError
        Where the file holds anything else, or a number that nothing of ours can be.
    OSError
        Where it cannot be read.
    """
    try:
        read = json.loads(
            path.read_bytes(),
            parse_int=_possible(int),
            parse_float=_possible(float),
            parse_constant=_possible(float),
        )
    except RecursionError:
        raise ValueError(say("ring.not-json")) from None
    if not isinstance(read, dict):
        raise ValueError(say("ring.not-json"))
    return read


def _possible(kind: Callable[[str], T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        if not -_MOST <= float(text) <= _MOST:
            raise ValueError(say("ring.not-a-number", text=text[:20]))
        return kind(text)

    return read


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in the place of `path` in one step, and on the disk before returning."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb", buffering=0) as file:
            write_all(file, data)
            os.fsync(file.fileno())
        rename_over(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def rename_over(beside: Path, path: Path) -> None:
    """Rename over `path`, for `DENIED_S` again and again where that is denied.

    Windows, and a network disk on which such a computer works too, refuse while a virus scanner or a viewer
    has the file open.
    """
    until = time.monotonic() + DENIED_S
    while True:
        try:
            beside.replace(path)
            return
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on the disk; Windows has no way to, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
