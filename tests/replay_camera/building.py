"""Build the camera that replays a known movie, and write the configuration that plays one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("ReplayCamera.cpp")
LIBRARY = "libmmgr_dal_Replay.so.0"
_PARTS = ("DeviceUtils.cpp", "MMDevice.cpp", "ModuleInterface.cpp", "Property.cpp")


class CannotBuild(Exception):
    """There is no compiler, or no way to the sources that the camera stands on."""


def build(folder: Path) -> Path:
    """Build the adapter in `folder`, if it is not there yet; return the folder that holds it.

    The interface that Micro-Manager's devices implement is in the source distribution of
    mm-test-adapters: of the very version that is installed, since core and device must agree on it.

    Raises
    ------
    CannotBuild
        With the reason.
    """
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        raise CannotBuild("there is no g++ on Linux here")
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # tests in another process may want it at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = folder / f"{version('mm-test-adapters')}-{SOURCE.stat().st_mtime_ns}"
        if not (built / LIBRARY).is_file():
            _compile(compiler, built)
        return built


def _compile(compiler: str, built: Path) -> None:
    sources = _sources(built.parent) / "src" / "mmCoreAndDevices" / "MMDevice"
    built.mkdir(parents=True, exist_ok=True)
    new = built / "new"
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-DMODULE_EXPORTS", f"-I{sources}"]
    command += [str(SOURCE), *(str(sources / part) for part in _PARTS), "-o", str(new), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the replay camera does not compile:\n{done.stderr}")
    new.rename(built / LIBRARY)


def _sources(folder: Path) -> Path:
    wanted = f"mm-test-adapters=={version('mm-test-adapters')}"
    if not list(folder.glob("mm_test_adapters-*.tar.gz")):
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        fetch += ["--no-binary", ":all:", "-d", str(folder), wanted]
        done = subprocess.run(fetch, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode:
            raise CannotBuild(f"pip cannot fetch the sources of {wanted}: {done.stderr.strip()[-300:]}")
    (packed,) = folder.glob("mm_test_adapters-*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


@dataclass(frozen=True)
class Replay:
    """A folder with the built adapter."""

    adapters: Path

    def config(
        self,
        folder: Path,
        movie: NDArray[np.unsignedinteger],
        refuses: str = "",
        **faults: object,
    ) -> Path:
        """Write `movie` and a configuration that plays it; return the configuration.

        Parameters
        ----------
        folder : Path
        movie : ndarray, shape (frames, height, width)
            8 or 16 bits of grey, or BGRA in 32 bits.
        refuses : str
            In these words, and without a comma, the camera refuses to be initialized.
        **faults
            Properties of the camera: ``FrameRate``, ``LostInCamera``, ``EndsAfter``, ...
        """
        raw = folder / "movie.raw"
        movie.tofile(raw)
        _, height, width = movie.shape
        kind = {1: "8bit", 2: "16bit", 4: "32bitRGB"}[movie.dtype.itemsize]
        before = {"Movie": raw, "Width": width, "Height": height, "PixelType": kind, "Refuses": refuses}
        lines = ["Device,Cam,Replay,ReplayCamera"]
        lines += [f"Property,Cam,{name},{value}" for name, value in before.items()]
        lines += ["Property,Core,Initialize,1", "Property,Core,Camera,Cam"]
        lines += [f"Property,Cam,{name},{value}" for name, value in faults.items()]
        config = folder / "replay.cfg"
        config.write_text("\n".join(lines) + "\n")
        return config
