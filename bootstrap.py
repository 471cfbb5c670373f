#!/usr/bin/env python3
"""From a fresh machine to the demo or the tests, in one command.

  python3 bootstrap.py demo [options of `rbcflow demo`]
  python3 bootstrap.py test [options of pytest]

Makes `.venv` beside this file, installs the package into it once, and runs. Needs Python 3.11 or
later and the package index; no display, GPU, Micro-Manager or compiler.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent
VENV = TOP / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "installed-from"
TORCH = "torch==2.13.0"  # the version that the weights were trained and measured with


def install() -> None:
    """Make the environment, unless it stands already for these very files."""
    made_from = [TOP / name for name in ("pyproject.toml", "hatch_build.py", "napari.yaml")]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in made_from)).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not STAMP.exists():
        # Half an environment, left by a try that failed, is made anew.
        shutil.rmtree(VENV, ignore_errors=True)
        print(f"making {VENV} ...", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit("bootstrap: this Python has no venv; on Debian: apt-get install python3-venv")
    python = str(BIN / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print("installing (some minutes the first time) ...", flush=True)
    for what in ([TORCH], ["--editable", f"{TOP}[all,dev]"]):
        if subprocess.run([*pip, *what], cwd=TOP).returncode:
            sys.exit(f"bootstrap: pip could not install {what[-1]}; its own words are above")
    STAMP.write_text(wanted)


def main() -> int:
    """Install, then run the demo or the tests."""
    if sys.version_info < (3, 11):  # noqa: UP036  # whoever runs this has no pip to stop them
        sys.exit(f"bootstrap: needs Python 3.11 or later; this is {sys.version.split()[0]}")
    what, *rest = sys.argv[1:] or ["help"]
    if what not in ("demo", "test"):
        print(__doc__)
        return 0 if what in ("help", "-h", "--help") else 2
    install()
    if what == "demo":
        return subprocess.run([str(BIN / "rbcflow"), "demo", *rest]).returncode
    tests = ["pytest", "-n", "2", "--dist", "loadfile", *rest]  # `-n 0` at the end: in one process
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
        # Not --quiet: with it, MkDocs counts no warning, and --strict finds nothing.
        ["mkdocs", "build", "--strict", "--site-dir", str(VENV / "site")],
        tests,
    ]
    for check in checks:
        print("$ " + " ".join(check), flush=True)
        code = subprocess.run([str(BIN / check[0]), *check[1:]], cwd=TOP).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
