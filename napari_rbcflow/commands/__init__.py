"""The command line: the only place that reads arguments, prints results and chooses exit codes."""

from napari_rbcflow.commands import acquire, benchmark, movies, networks, sessions, trend
from napari_rbcflow.commands.group import cli, main

__all__ = ["acquire", "benchmark", "cli", "main", "movies", "networks", "sessions", "trend"]
