"""Training sequences as our own pipeline cuts them: labelled cells flow through composed movies.

A published sequence is cut as its authors' tracker cut it. Ours finds other centres, meets other neighbours
and loses a cell elsewhere. So the published cells flow through a field with light, dust, noise and each
other, and the networks learn from the tracks that our pipeline finds in it, with the label that the experts
gave the cell. A movie holds the cells of one patient only, so holding back a patient holds back everything
composed of that patient's cells.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rbcflow.classification.dataset import UNRELIABLE, LabelledSequence
from napari_rbcflow.sentences import say
from napari_rbcflow.tracking import MovieBackground, Tracker
from napari_rbcflow.types import CROP_SIDE, DEFAULT_FPS, DEFAULT_PIXEL_SIZE_UM, Frame, Track

_HALF = CROP_SIDE // 2
_LEAST_FRAMES = 8  # of a sequence that flows: a shorter one is hardly a track
_EDGE_PX = 3.5  # a pasted cell fades into the field over this distance
_FASTEST_PX = 70.0
_MATCH_PX = 9.0  # a track's position belongs to the nearest cell within this
# Share of a track's positions on one cell: from the first it is that cell's track, below the second of none.
_PURE, _MIXED = 0.8, 0.6
# Share of a reliable cell's frames that a track must hold: with fewer, its turn may be missing, or an expert
# would not judge it.
_WHOLE = 0.7
_MOST_INTRUDED = 0.5  # share of frames with a neighbour above which experts would not judge a cell
_BACKGROUND_FRAMES = 50


@dataclass(frozen=True)
class MovieSettings:
    """What a composed movie shows."""

    frames: int = 150
    height: int = 1096
    width: int = 1376
    cells_per_frame: float = 115.0  # on average
    reliable: float = 0.5  # share of reliable cells
    crossing: bool = False  # every cell crosses the whole field, at the speed that its frames need
    noise_grey: float = 1.0  # standard deviation of the noise added to that of the published crops
    light_grey: float = 125.0  # of the empty field, near its centre
    contrast: float = 1.0  # factor on the cells' differences from their background


@dataclass(frozen=True, eq=False)
class _Cell:
    """A cell of a movie: in frame t it is at round(x + v * (t - first)), y."""

    sequence: LabelledSequence
    pictures: NDArray[np.float32]
    first: int
    x: float
    y: int
    v: float

    def x_at(self, t: int) -> int:
        return round(self.x + self.v * (t - self.first))


def tracked_sequences(
    sequences: Sequence[LabelledSequence],
    *,
    seed: int,
    movies: int = 3,
    settings: MovieSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[LabelledSequence]:
    """Compose `movies` of each patient's cells, track them, and return the tracks with the cells' labels.

    Sequences under eight frames do not flow. The movies differ in density, noise, light, contrast and speed,
    unless `settings` are given. A track is named after the sequence that flowed, ``~`` and a number; a track
    that follows no single cell is unreliable, and named after its patient's first run.
    """
    by_patient: dict[str, list[LabelledSequence]] = defaultdict(list)
    for sequence in sequences:
        if len(sequence.crops) >= _LEAST_FRAMES:
            by_patient[sequence.patient].append(sequence)
    out: list[LabelledSequence] = []
    for number, patient in enumerate(sorted(by_patient)):
        for movie in range(movies):
            rng = np.random.default_rng([seed, number, movie])
            of_movie = settings or _drawn(rng, movie)
            cells = _placed(by_patient[patient], of_movie, rng)
            tracks = _tracked(_frames(cells, of_movie, rng), of_movie)
            found = _labelled(tracks, cells, f"{movie}")
            out += found
            if progress is not None:
                at = {"patient": patient, "movie": movie + 1, "movies": movies}
                progress(say("classification.movie-composed", **at, tracks=len(found)))
    return out


def _drawn(rng: np.random.Generator, movie: int) -> MovieSettings:
    """Draw how a movie looks; every third has fast cells, and one in three is crowded."""
    return MovieSettings(
        cells_per_frame=float(rng.uniform(80, 130) if movie % 3 else rng.uniform(150, 220)),
        reliable=float(rng.uniform(0.35, 0.6)),
        crossing=movie % 3 == 1,
        noise_grey=float(rng.uniform(0.2, 1.8)),
        light_grey=float(rng.uniform(100, 145)),
        contrast=float(np.exp(rng.uniform(-0.2, 0.2))),
    )


def _placed(sequences: Sequence[LabelledSequence], s: MovieSettings, rng: np.random.Generator) -> list[_Cell]:
    """Draw cells, equally many of either reliable kind, until the field is full enough."""
    pools = [[q for q in sequences if q.label == label] for label in range(3)]
    kinds = [label for label in range(2) if pools[label]]
    cells: list[_Cell] = []
    placed = 0
    while placed < s.cells_per_frame * s.frames:
        reliable = bool(kinds) and (rng.random() < s.reliable or not pools[UNRELIABLE])
        pool = pools[kinds[int(rng.integers(len(kinds)))] if reliable else UNRELIABLE]
        sequence = pool[int(rng.integers(len(pool)))]
        n = min(len(sequence.crops), s.frames)
        crossing = (s.width - 2 * (_HALF + 1)) / n
        if s.crossing:
            v, x = min(crossing, _FASTEST_PX), float(_HALF + 1)
        else:
            v = min(float(rng.normal(24, 2.5) if reliable else rng.uniform(6, 60)), crossing)
            x = float(rng.uniform(_HALF + 1, s.width - _HALF - 2 - v * (n - 1)))
        crops = sequence.crops[:n, :: 1 if rng.random() < 0.5 else -1].astype(np.float32)
        level = float(np.median(crops))
        # A cell changes the light by a share, not by an amount.
        scale = np.float32(s.contrast * s.light_grey / max(level, 1.0))
        first = int(rng.integers(1 - n // 2, s.frames - n // 2))
        y = int(rng.integers(_HALF + 1, s.height - _HALF - 1))
        cells.append(_Cell(sequence, (crops - level) * scale * _mask(), first, x, y, v))
        placed += n
    return cells


def _mask() -> NDArray[np.float32]:
    far = np.hypot(*np.mgrid[-_HALF : _HALF + 1, -_HALF : _HALF + 1])
    mask: NDArray[np.float32] = np.clip((_HALF + 0.5 - far) / _EDGE_PX, 0, 1).astype(np.float32)
    return mask


def _frames(cells: Sequence[_Cell], s: MovieSettings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render a movie, shape (frames, height, width)."""
    y, x = np.mgrid[-1 : 1 : s.height * 1j, -1 : 1 : s.width * 1j].astype(np.float32)
    slope = rng.uniform(-4, 4, 2).astype(np.float32)
    light = s.light_grey + slope[0] * x + slope[1] * y - rng.uniform(0, 6) * (x * x + y * y) / 2
    for _ in range(int(rng.integers(20, 80))):
        at_y, at_x = int(rng.integers(8, s.height - 8)), int(rng.integers(8, s.width - 8))
        speck = np.exp(-(np.hypot(*np.mgrid[-8:9, -8:9]) ** 2) / (2 * rng.uniform(1, 4) ** 2))
        light[at_y - 8 : at_y + 9, at_x - 8 : at_x + 9] -= rng.uniform(5, 25) * speck.astype(np.float32)
    # Twice as long as a frame, and read from a new start for each.
    pixels = s.height * s.width
    noise = rng.standard_normal(2 * pixels, dtype=np.float32) * np.float32(s.noise_grey)
    out = np.empty((s.frames, s.height, s.width), np.uint8)
    for t in range(s.frames):
        at = int(rng.integers(pixels))
        frame = light + noise[at : at + pixels].reshape(s.height, s.width)
        for cell in cells:
            if 0 <= t - cell.first < len(cell.pictures):
                left, top = cell.x_at(t) - _HALF, cell.y - _HALF
                frame[top : top + CROP_SIDE, left : left + CROP_SIDE] += cell.pictures[t - cell.first]
        out[t] = np.clip(frame, 0, 255)
    return out


def _tracked(frames: NDArray[np.uint8], s: MovieSettings) -> list[Track]:
    some = np.linspace(0, len(frames) - 1, min(_BACKGROUND_FRAMES, len(frames))).astype(int)
    tracker = Tracker(
        s.height,
        s.width,
        fps=DEFAULT_FPS,
        pixel_size_um=DEFAULT_PIXEL_SIZE_UM,
        background=MovieBackground(frames[some]),
    )
    tracks: list[Track] = []
    for t, image in enumerate(frames):
        tracks += tracker.process(Frame(t, t / DEFAULT_FPS, image))
    return [track for track in (*tracks, *tracker.finish("source-ended")) if not track.too_short]


def _labelled(tracks: Sequence[Track], cells: Sequence[_Cell], movie: str) -> list[LabelledSequence]:
    """Give each track the label of the cell that it followed; leave out uncertain ones."""
    trees = {}
    for t in {int(t) for track in tracks for t in track.frames}:
        here = [k for k, cell in enumerate(cells) if 0 <= t - cell.first < len(cell.pictures)]
        if here:
            trees[t] = here, cKDTree([(cells[k].y, cells[k].x_at(t)) for k in here])
    out = []
    for track in tracks:
        on: Counter[int] = Counter()
        for t, y, x in zip(track.frames.tolist(), track.y_px.tolist(), track.x_px.tolist(), strict=True):
            if t in trees:
                here, tree = trees[t]
                far, which = tree.query((y, x))
                if far < _MATCH_PX:
                    on[here[which]] += 1
        best, n = on.most_common(1)[0] if on else (-1, 0)
        share = n / len(track)
        if share < _MIXED:
            # It follows no single cell: experts could not judge it.
            name = f"{cells[0].sequence.acquisition}_mixed~{movie}.{track.cell}"
            out.append(LabelledSequence(name, UNRELIABLE, track.crops_alone, composed=True))
        elif share >= _PURE and _judged(cells[best], n, track):
            sequence = cells[best].sequence
            name = f"{sequence.name}~{movie}.{track.cell}"
            out.append(replace(sequence, name=name, crops=track.crops_alone, sampled=False, composed=True))
    return out


def _judged(cell: _Cell, frames: int, track: Track) -> bool:
    """Whether the experts' label of the whole sequence still holds for the track."""
    if cell.sequence.label == UNRELIABLE:
        return True
    return float(track.intruded.mean()) <= _MOST_INTRUDED and frames >= _WHOLE * len(cell.pictures)
