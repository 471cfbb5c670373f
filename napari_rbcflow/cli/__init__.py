"""The command line: the only place that reads arguments, prints results and chooses exit codes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_rbcflow.cli.process import guard_streams, nothing_made_yet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_rbcflow.cli.group import cli as cli

__all__ = ["cli", "main"]
_COMMANDS = ("live", "movies", "networks", "review", "sessions")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``rbcflow``; being told to end is heard before anything else is loaded."""
    if arguments is None:
        guard_streams()
    with nothing_made_yet():
        __getattr__("cli")
    importlib.import_module("napari_rbcflow.cli.group").run(arguments)


def __getattr__(name: str) -> Any:
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for part in _COMMANDS:
        importlib.import_module(f"napari_rbcflow.cli.{part}")
    return importlib.import_module("napari_rbcflow.cli.group").cli
