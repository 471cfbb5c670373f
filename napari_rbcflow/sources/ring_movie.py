"""An earlier session's ring, read as a movie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_rbcflow.errors import BadInput, RunFailed
from napari_rbcflow.sources.grey import Raw
from napari_rbcflow.sources.movie_reader import FileFacts, MovieReader, NoSuchFrame, RawFrame


def ring_of(folder: Path) -> Path | None:
    """Return the ring in this folder (a session's) or the folder itself where it is a ring; else None."""
    for place in (folder / "frames.zarr", folder):
        try:
            attributes = json.loads((place / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(attributes, dict) and "rbcflow_ring" in attributes:
            return place
    return None


class RingMovieReader(MovieReader):
    """The frames that a ring held when it was opened. Their places and times count from the oldest."""

    def __init__(self, ring: Path, name: str) -> None:
        from napari_rbcflow.ring import open_ring

        self._ring = open_ring(ring)
        n = len(self._ring.indices)
        if not n:
            raise BadInput(f"{name} holds no frames: its ring is empty; give another session.")
        self.facts = FileFacts(n, format="session ring")
        self.facts.n_places = int(self._ring.indices[-1] - self._ring.indices[0]) + 1
        self.facts.take_fps(self._ring.fps, f"The ring of {name}")
        self.facts.take_pixel_size(self._ring.pixel_size_um, f"The ring of {name}")
        self.facts.details["first_frame_of_session"] = str(int(self._ring.indices[0]))
        if self._ring.damaged_rows:
            self.facts.warnings.append(
                f"The ring of {name} has {self._ring.damaged_rows} damaged rows, whose frames are lost."
            )

    def frames(self) -> Iterator[RawFrame]:
        indices, times = self._ring.indices, self._ring.times_s
        for index, time_s in zip(indices.tolist(), times.tolist(), strict=True):
            yield RawFrame(index - int(indices[0]), time_s - float(times[0]), self._frame(index))

    def at(self, places: Sequence[int]) -> Iterator[Raw]:
        for place in places:
            yield self._frame(int(self._ring.indices[place]))

    def frame(self, place: int) -> Raw:
        index = int(self._ring.indices[0]) + place
        if index not in self._ring.indices:
            raise NoSuchFrame(f"{self._ring.path} does not hold frame {index}")
        return self._frame(index)

    def _frame(self, index: int) -> Raw:
        from napari_rbcflow.ring import FrameGone

        try:
            return self._ring.frame(index)
        except FrameGone as error:
            raise RunFailed(
                f"{self._ring.path} has lost frame {index} to newer ones: read it when its run has ended."
            ) from error

    def close(self) -> None:
        """The ring holds nothing open."""
