"""The command line: the only place that reads arguments, prints results and chooses exit codes."""

from __future__ import annotations

from napari_rbcflow.cli import benchmark, calibration, live, movies, networks, review, sessions
from napari_rbcflow.cli.group import cli, main

__all__ = ["benchmark", "calibration", "cli", "live", "main", "movies", "networks", "review", "sessions"]
