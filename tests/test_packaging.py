"""What is installed is what stands in the tree."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PACKAGE = TOP / "napari_rbcflow"


def test_the_manifest_is_found_valid_and_its_commands_exist() -> None:
    from npe2 import PluginManifest

    (entry,) = entry_points(group="napari.manifest", name="napari-rbcflow")
    assert entry.value == "napari_rbcflow:napari.yaml"
    manifest = PluginManifest.from_distribution("napari-rbcflow")
    commands = manifest.contributions.commands or []
    assert commands
    for command in commands:
        module, name = str(command.python_name).split(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_sample_opens() -> None:
    from napari_rbcflow.widgets.npe2_hooks import simulated_chamber

    (movie, _, _), (tracks, _, _) = simulated_chamber()
    assert movie.ndim == 3
    assert tracks.shape[1] == 4


def test_a_wheel_holds_manifest_sample_and_weights(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=TOP, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert {"napari_rbcflow/napari.yaml", "napari_rbcflow/sample_data/flow_chamber.tif"} <= set(names)
    assert sum(n.endswith(".safetensors") for n in names) >= 2
    assert {"napari_rbcflow/sentences/ring.toml", "napari_rbcflow/session/report.html.j2"} <= set(names)
    (metadata,) = (n for n in names if n.endswith("METADATA"))
    description = zipfile.ZipFile(wheel).read(metadata).decode()
    targets = re.findall(r"\]\(([^)]+)\)", description)
    assert all(target.startswith(("https:", "#")) for target in targets), "relative links lead nowhere"


def test_the_core_knows_nothing_of_qt_or_napari() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "widgets" in path.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )  # fmt: skip
            for name in names:
                assert name.split(".")[0] not in {"napari", "qtpy", "PySide6", "PyQt6", "magicgui"}, (
                    f"{path}: {name}"
                )
