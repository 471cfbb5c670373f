"""Work that a process of the benchmark cannot do; imported there, so it imports little itself."""

from __future__ import annotations

import os
from typing import Any

from napari_rbcflow.errors import BadInput


def die(order: Any, say: Any) -> None:
    say(0.5, str(order))
    os._exit(3)


def refuse(order: Any, report: Any) -> None:
    print("a library's chatter", flush=True)
    raise BadInput("benchmark.no-folder", folder=order)


def break_down(order: Any, report: Any) -> None:
    raise ZeroDivisionError(order)
