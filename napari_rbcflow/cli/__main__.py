"""``python -m napari_rbcflow.cli``: the command `rbcflow`."""

from __future__ import annotations

from napari_rbcflow.cli import main

main()
