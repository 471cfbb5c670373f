"""Puts `napari.yaml` and `sample_data/` from the top of the tree into the package.

npe2 looks for the manifest inside the package only. Wheels take the files by force-include; an
editable install needs copies, since there the package is the source folder itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TopLevelFilesHook(BuildHookInterface):  # type: ignore[type-arg]
    """Force-includes for wheels, copies for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run by hatchling before a build."""
        if self.target_name != "wheel":
            return
        top, package = Path(self.root), Path(self.root) / "napari_rbcflow"
        for name in ("napari.yaml", "sample_data"):
            source, copy = top / name, package / name
            if version == "editable":
                shutil.rmtree(copy, ignore_errors=True)
                copy.unlink(missing_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
            else:
                build_data["force_include"][str(source)] = f"napari_rbcflow/{name}"
