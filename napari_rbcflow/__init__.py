"""napari-rbcflow: the tank-treading fraction of red blood cells in shear flow, live.

How a frame becomes a number: `sources` gives frames, `tracking` turns them into tracks,
`ring` keeps them, `classification` judges each finished track, `estimate` makes the fraction,
`session` keeps it all on disk, and `pipeline` wires these together. Nothing of that knows Qt or
napari; `widgets` does, and holds no science.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_rbcflow.version import __version__

if TYPE_CHECKING:
    from napari_rbcflow.pipeline import analyze, analyze_many
    from napari_rbcflow.session import open_session as open_session

__all__ = ["__version__", "analyze", "analyze_many", "open_session"]


def __getattr__(name: str) -> Any:
    # Lazy: `rbcflow --help` and napari's plugin discovery must not wait for torch.
    if name == "analyze":
        from napari_rbcflow.pipeline import analyze

        return analyze
    if name == "analyze_many":
        from napari_rbcflow.pipeline import analyze_many

        return analyze_many
    if name == "open_session":
        from napari_rbcflow.session import open_session

        return open_session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
