"""A stage's networks as one ONNX graph, which ONNX Runtime runs on a CPU faster than PyTorch does.

The graph is written from the weights, node by node (no exporter, no tracing), in tens of milliseconds. It
computes what `blend.ensemble_logits` does, for `Blend` and `SmallNetwork` of any options and any number of
members. What the members share is computed once: deviations from the mean image, and handcrafted features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from napari_rbcflow.classification.networks import Ensemble
from napari_rbcflow.classification.networks.measures import (
    AWAY_SHARES,
    FARTHEST,
    SHARES,
    STEP_SHARES,
    TINY,
    maps,
)
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.types import CROP_SIDE

if TYPE_CHECKING:
    from torch import nn

_Tensors = Mapping[str, NDArray[Any]]
_OPSET, _IR = 18, 9  # of ONNX 1.14 (2023): every recent runtime knows them
_PIXELS = CROP_SIDE * CROP_SIDE
_BEYOND = 1e30  # replaces padded frames while a feature is sorted over time


def is_supported(networks: Sequence[nn.Module]) -> bool:
    """Whether `write_graph` knows this kind of network; others stay in PyTorch."""
    return Ensemble.of(networks).model in ("blend", "small")


class OnnxNetworks:
    """An ensemble of one shape on the CPU, in ONNX Runtime, for batches of (rows, frames)."""

    def __init__(self, networks: Sequence[nn.Module], rows: int, frames: int, threads: int = 1) -> None:
        model = write_graph(networks, rows, frames).SerializeToString()
        try:
            import onnxruntime

            onnxruntime.disable_telemetry_events()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 4  # errors are raised, not logged
            self._session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        except Exception as error:
            raise _failed(error) from error

    def logits(self, images: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum the members' logits, (rows, 2), of images (rows, frames, 31, 31), zero for padded frames.

        If ONNX Runtime fails, PyTorch does not take over: its fourth decimal may differ.
        """
        try:
            out: NDArray[np.float32] = self._session.run(None, {"images": images, "mask": mask})[0]
        except Exception as error:
            raise _failed(error) from error
        return out


def _failed(error: Exception) -> RunFailed:
    why = " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
    return RunFailed("classification.onnx-failed", why=why)


def write_graph(networks: Sequence[nn.Module], rows: int, frames: int) -> onnx.ModelProto:
    """Write the graph of an ensemble: ``images`` and ``mask`` in, the sum of the members' ``logits`` out."""
    g = _Graph()
    images, mask, shown = "images", "mask", frames
    if frames == 1:  # one frame has no steps: add an empty one
        frames = 2
        images = g.op("Pad", images, _ints(0, 0, 0, 0, 0, 1, 0, 0))
        mask = g.op("Pad", mask, _ints(0, 0, 0, 1))
    tracks = _Tracks(g, images, mask, rows, frames)
    ensemble = Ensemble.of(networks)
    logits = _learned(g, tracks, ensemble)
    if ensemble.model == "blend":
        logits = g.op("Add", logits, _handcrafted(g, tracks, ensemble.tensors))
    g.op("Identity", logits, name="logits")
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "ensemble",
        [
            helper.make_tensor_value_info("images", kind, [rows, shown, CROP_SIDE, CROP_SIDE]),
            helper.make_tensor_value_info("mask", kind, [rows, shown]),
        ],
        [helper.make_tensor_value_info("logits", kind, [rows, 2])],
        g.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


class _Graph:
    """Nodes and constants; `op` adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._named = 0

    def op(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, names=[name or self.name()], **attributes)[0]

    def ops(self, kind: str, *inputs: Any, names: Sequence[str], **attributes: Any) -> Sequence[str]:
        """Add a node of several outputs; an array or number among the inputs becomes a constant."""
        given = [of if isinstance(of, str) else self._constant(of) for of in inputs]
        self.nodes.append(helper.make_node(kind, given, list(names), name=f"{kind}.{names[0]}", **attributes))
        return names

    def _constant(self, value: Any) -> str:
        value = np.asarray(value)
        if value.dtype != np.int64:
            value = value.astype(np.float32)
        name = self.name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def name(self) -> str:
        self._named += 1
        return f"v{self._named}"

    def reshape(self, of: str, *shape: int) -> str:
        return self.op("Reshape", of, _ints(*shape))

    def slice(self, of: str, axis: int, start: int, end: int) -> str:
        return self.op("Slice", of, _ints(start), _ints(end), _ints(axis))

    def root(self, of: str, least: float) -> str:
        return self.op("Sqrt", self.op("Max", of, least))

    def square(self, of: str) -> str:
        return self.op("Mul", of, of)


def _ints(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


class _Tracks:
    """What every part of the graph begins with: the images, their mean, their deviations from it."""

    def __init__(self, g: _Graph, images: str, mask: str, rows: int, frames: int) -> None:
        self.rows, self.frames, self.mask = rows, frames, mask
        self.count = g.op("Max", g.op("ReduceSum", mask, _ints(1), keepdims=1), 1.0)
        self.share = g.op("Div", mask, self.count)
        self.images = g.reshape(images, rows, frames, _PIXELS)
        self.mean = g.op("MatMul", g.reshape(self.share, rows, 1, frames), self.images)
        self.deviations = g.op("Sub", self.images, self.mean)


def _learned(g: _Graph, tracks: _Tracks, ensemble: Ensemble) -> str:
    """Sum of the members' `SmallNetwork` logits, (rows, 2)."""
    networks = ensemble.tensors
    if ensemble.model == "blend":
        of = "learned."
        networks = [{k.removeprefix(of): v for k, v in n.items() if k.startswith(of)} for n in networks]
    rows, frames = tracks.rows, tracks.frames
    both = [
        g.reshape(of, rows * frames, 1, CROP_SIDE, CROP_SIDE) for of in (tracks.images, tracks.deviations)
    ]
    seen = g.op("Concat", *both, axis=1)
    edge = ensemble.edge
    if edge:
        ends = _ints(CROP_SIDE - edge, CROP_SIDE - edge)
        seen = g.op("Slice", seen, _ints(edge, edge), ends, _ints(2, 3))
    weight = g.reshape(g.op("Transpose", tracks.mask, perm=[1, 0]), frames, rows, 1)
    lengths = g.op("Cast", g.reshape(tracks.count, rows), to=TensorProto.INT32)
    shared = (seen, weight, lengths, rows, frames)
    members = [_features(g, network, ensemble.strides, *shared) for network in networks]
    stacked = g.op("Concat", *members, axis=0)  # members, frames, rows, features
    share = g.reshape(g.op("Transpose", tracks.share, perm=[1, 0]), frames, rows, 1)
    average = g.op("ReduceSum", g.op("Mul", stacked, share), _ints(1), keepdims=1)
    far = g.op("Mul", g.square(g.op("Sub", stacked, average)), share)
    spread = g.op("Sqrt", g.op("Add", g.op("ReduceSum", far, _ints(1), keepdims=0), 1e-4))
    there = g.op("Greater", weight, 0.0)
    highest = g.op("ReduceMax", g.op("Where", there, stacked, -1e4), _ints(1), keepdims=0)
    average = g.op("Squeeze", average, _ints(1))
    told = g.op("Concat", average, spread, g.op("Max", highest, -10.0), axis=2)
    return _dense(g, told, [_layers(network, "head") for network in networks])


def _layers(tensors: _Tensors, name: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Weights and biases of a sequence's layers that have any, in their order."""
    keys = (key.split(".") for key in tensors if key.startswith(f"{name}."))
    numbers = sorted({int(number) for _, number, kind in keys if kind == "weight"})
    return [(tensors[f"{name}.{n}.weight"], tensors[f"{name}.{n}.bias"]) for n in numbers]


def _features(
    g: _Graph,
    network: _Tensors,
    strides: Sequence[int],
    seen: str,
    weight: str,
    lengths: str,
    rows: int,
    frames: int,
) -> str:
    """One member's features of every frame and the states of its GRUs, (1, frames, rows, features)."""
    *convolutions, dense = _layers(network, "extractor")
    for stride, layer in zip(strides, convolutions, strict=True):
        seen = g.op("Relu", g.op("Conv", seen, *layer, strides=(stride, stride), pads=[1] * 4))
    seen = g.op("Gemm", g.op("Flatten", seen), *dense, transB=1)
    seen = g.op("LayerNormalization", seen, network["norm.weight"], network["norm.bias"], epsilon=1e-5)
    features = g.reshape(g.op("Relu", seen), rows, frames, -1)
    features = g.op("Transpose", features, perm=[1, 0, 2])  # the GRU wants time first
    parts = [features]
    if "forth.weight_hh_l0" in network:

        def gates(kind: str) -> list[NDArray[np.float32]]:
            return [_gates(network[f"{way}.{kind}_l0"]) for way in ("forth", "back")]

        biases = zip(gates("bias_ih"), gates("bias_hh"), strict=True)
        states = g.op(
            "GRU",
            g.op("Mul", features, weight),
            np.stack(gates("weight_ih")),
            np.stack(gates("weight_hh")),
            np.stack([np.concatenate(both) for both in biases]),
            lengths,
            direction="bidirectional",
            hidden_size=network["forth.weight_hh_l0"].shape[1],
            linear_before_reset=1,
        )
        parts.append(g.reshape(g.op("Transpose", states, perm=[0, 2, 1, 3]), frames, rows, -1))
    return g.op("Unsqueeze", g.op("Concat", *parts, axis=2), _ints(0))


def _gates(weights: NDArray[Any]) -> NDArray[np.float32]:
    """PyTorch keeps a GRU's gates as reset, update, new; ONNX as update, reset, new."""
    reset, update, new = np.split(weights, 3)
    return np.concatenate([update, reset, new])


def _dense(g: _Graph, told: str, layers: Sequence[Sequence[tuple[NDArray[Any], NDArray[Any]]]]) -> str:
    """Two dense layers of every member on (members, rows, features); their sum over members, (rows, 2)."""
    for place in range(2):
        weights = np.stack([pair[place][0].T for pair in layers])
        biases = np.stack([pair[place][1][None] for pair in layers])
        told = g.op("Add", g.op("MatMul", told, weights), biases)
        if place == 0:
            told = g.op("Relu", told)
    return g.op("ReduceSum", told, _ints(0), keepdims=0)


def _handcrafted(g: _Graph, tracks: _Tracks, blends: Sequence[_Tensors]) -> str:
    """Sum of the members' logits from the handcrafted features, (rows, 2)."""
    features = g.op("Unsqueeze", _handcrafted_features(g, tracks), _ints(0))
    centre, spread = (np.stack([blend[of][None] for blend in blends]) for of in ("centre", "spread"))
    standard = g.op("Div", g.op("Sub", features, centre), spread)
    standard = g.op("Clip", standard, -FARTHEST, FARTHEST)
    return _dense(g, standard, [_layers(blend, "by_hand") for blend in blends])


def _handcrafted_features(g: _Graph, tracks: _Tracks) -> str:
    """`HandcraftedFeatures.forward`, (rows, number): see there for what each is."""
    rows, frames = tracks.rows, tracks.frames
    # A row that pads a batch holds no frame: its first, empty one is used.
    first = g.slice(tracks.mask, 1, 0, 1)
    rest = g.slice(tracks.mask, 1, 1, frames)
    mask = g.op("Concat", g.op("Max", first, 1.0), rest, axis=1)
    flat = g.reshape(tracks.images, rows * frames, _PIXELS)
    mean = g.reshape(tracks.mean, rows, _PIXELS)
    all_images = _of_images(g, g.op("Concat", flat, mean, axis=0), rows * (frames + 1))
    each = g.reshape(g.slice(all_images, 0, 0, rows * frames), rows, frames, -1)
    of_mean = g.slice(all_images, 0, rows * frames, rows * (frames + 1))
    # middle, high - low, upper - quarter, low, high of the five quantiles
    mixed = np.array(
        [[0, 0, 1, 0, 0], [-1, 0, 0, 0, 1], [0, -1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], np.float32
    )
    levels = _quantiles(g, each, mask, SHARES, rows, frames, mixed)
    moved = g.op("Abs", g.op("Sub", g.slice(each, 1, 1, frames), g.slice(each, 1, 0, frames - 1)))
    moved = g.op("Mul", moved, g.reshape(rest, rows, frames - 1, 1))
    # The first step also counts if there is only one frame, so that there is always one.
    stepped = g.op("Max", rest, [1.0] + [0.0] * (frames - 2))
    steps = _quantiles(g, moved, stepped, STEP_SHARES, rows, frames - 1)
    far = g.op(
        "MatMul", g.square(g.reshape(tracks.deviations, rows * frames, _PIXELS)), _column(maps()["disc"])
    )
    far = g.op("Sqrt", g.op("Add", g.reshape(far, rows, frames, 1), TINY))
    aways = _quantiles(g, far, mask, AWAY_SHARES, rows, frames)
    thirds = _thirds(g, mask, rows, frames)
    changed = g.op("Abs", g.op("MatMul", thirds, each))
    picture = g.reshape(mean, rows, CROP_SIDE, CROP_SIDE)
    turned = [g.op("Slice", picture, *_backwards(*over)) for over in ((1,), (2,), (1, 2))]
    mirrored = g.op("Sub", g.reshape(g.op("Concat", *turned, axis=1), rows, 3, _PIXELS), tracks.mean)
    mirrored = g.op("ReduceMean", g.op("Abs", mirrored), _ints(2), keepdims=0)
    rows_of = [g.reshape(of, rows, -1) for of in (levels, steps, changed)]
    return g.op("Concat", *rows_of, of_mean, g.reshape(aways, rows, -1), mirrored, axis=1)


def _backwards(*axes: int) -> tuple[NDArray[np.int64], ...]:
    """Start, end, axes and steps of a slice that reverses these axes."""
    n = len(axes)
    return _ints(*[-1] * n), _ints(*[-CROP_SIDE - 1] * n), _ints(*axes), _ints(*[-1] * n)


def _column(disc: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over all pixels of what is on the disc, as a matrix to multiply with."""
    return (disc / np.float32(disc.size)).reshape(-1, 1)


def _thirds(g: _Graph, mask: str, rows: int, frames: int) -> str:
    """Weights that give the mean of a track's first third minus that of its last, (rows, 1, frames)."""
    count = g.op("ReduceSum", mask, _ints(1), keepdims=1)
    third = g.op("Ceil", g.op("Div", count, 3.0))
    place = np.arange(frames, dtype=np.float32)[None]
    early, late = g.op("Less", place, third), g.op("GreaterOrEqual", place, g.op("Sub", count, third))
    parts = [g.op("Mul", g.op("Cast", of, to=TensorProto.FLOAT), mask) for of in (early, late)]
    first, last = (
        g.op("Div", of, g.op("Max", g.op("ReduceSum", of, _ints(1), keepdims=1), 1.0)) for of in parts
    )
    return g.reshape(g.op("Sub", first, last), rows, 1, frames)


def _quantiles(
    g: _Graph,
    values: str,
    mask: str,
    shares: Sequence[float],
    rows: int,
    frames: int,
    mixed: NDArray[np.float32] | None = None,
) -> str:
    """Quantiles over the frames of a track, or `mixed` combinations of them, (rows, quantiles, features).

    Interpolating between two sorted values is weighting all by a hat function at the quantile's place.
    """
    there = g.op("Greater", g.reshape(mask, rows, frames, 1), 0.0)
    known = g.op("Where", there, values, _BEYOND)
    names = [g.name(), g.name()]
    ordered, _ = g.ops("TopK", known, _ints(frames), names=names, axis=1, largest=0, sorted=1)
    last = g.op("Sub", g.op("ReduceSum", mask, _ints(1), keepdims=1), 1.0)
    place = g.op("Mul", g.reshape(last, rows, 1, 1), np.array(shares, np.float32)[None, :, None])
    apart = g.op("Abs", g.op("Sub", np.arange(frames, dtype=np.float32)[None, None], place))
    hats = g.op("Max", g.op("Sub", 1.0, apart), 0.0)
    if mixed is not None:
        hats = g.op("MatMul", mixed, hats)
    return g.op("MatMul", hats, ordered)


def _of_images(g: _Graph, flat: str, n: int) -> str:
    """`HandcraftedFeatures._of_images` of (n, 961) pixels, (n, features)."""
    of = maps()
    rings, waves = len(of["rings"]), len(of["light"]) - len(of["rings"])
    light = g.op("MatMul", flat, of["light"].T)
    means, wave = g.slice(light, 1, 0, rings), g.slice(light, 1, rings, rings + waves)
    squares = g.op("MatMul", g.square(flat), of["rings"].T)
    spreads = g.root(g.op("Sub", squares, g.square(means)), 1e-6)
    pairs = g.reshape(g.square(wave), n, waves // 2, 2)
    heights = g.root(g.op("ReduceSum", pairs, _ints(2), keepdims=0), TINY)
    moments = g.op("MatMul", g.op("Abs", flat), of["moments"].T)
    contrast = g.op("Add", g.slice(moments, 1, 0, 1), 1e-3)
    centred = g.op("Div", g.slice(moments, 1, 1, 6), contrast)
    y, x, raw_yy, raw_xx, raw_yx = (g.slice(centred, 1, k, k + 1) for k in range(5))
    yy, xx = g.op("Sub", raw_yy, g.square(y)), g.op("Sub", raw_xx, g.square(x))
    yx = g.op("Sub", raw_yx, g.op("Mul", y, x))
    size = g.op("Add", g.op("Mul", g.op("Add", yy, xx), 0.5), 1e-3)
    wider = g.op("Mul", g.op("Sub", xx, yy), 0.5)
    longer = g.root(g.op("Add", g.square(wider), g.square(yx)), TINY)
    turned = g.op("Div", yx, size)
    return g.op(
        "Concat",
        *(means, spreads, wave, heights, g.op("Mul", contrast, 0.01)),
        *(y, x, g.op("Sqrt", g.op("Add", size, longer)), g.root(g.op("Sub", size, longer), 1e-3)),
        *(g.op("Div", longer, size), g.op("Div", wider, size), turned, g.op("Abs", turned)),
        *(*_sharpness(g, flat), *_extremes(g, flat)),
        axis=1,
    )


def _sharpness(g: _Graph, flat: str) -> tuple[str, str]:
    """Gradient inside and outside, (n, 2), and Laplacian, (n, 1).

    A neighbour is the pixel so many places later. At the end of a line there is none, and the weight is zero.
    """
    last = _PIXELS - CROP_SIDE
    here = g.slice(flat, 1, 0, last)
    down, right = (g.op("Sub", g.slice(flat, 1, by, last + by), here) for by in (CROP_SIDE, 1))
    slope = g.root(g.op("Add", g.square(down), g.square(right)), TINY)
    round_cell = maps()["disc"]
    inside = round_cell[:-1].copy()
    outside = 1 - inside
    inside[:, -1] = outside[:, -1] = 0
    slopes = g.op("MatMul", slope, np.stack([inside.ravel(), outside.ravel()], 1) / np.float32(100))
    beside = [g.slice(flat, 1, CROP_SIDE + by, last + by) for by in (1, -1, CROP_SIDE, -CROP_SIDE)]
    middle = g.op("Mul", g.slice(flat, 1, CROP_SIDE, last), -4.0)
    bend = g.square(g.op("Sum", *beside, middle))
    disc = np.zeros((CROP_SIDE, CROP_SIDE), np.float32)
    disc[1:-1, 1:-1] = round_cell[1:-1, 1:-1] / (CROP_SIDE - 2) ** 2
    bends = g.op("MatMul", bend, disc[1:-1].reshape(-1, 1))
    return slopes, g.root(bends, TINY)


def _extremes(g: _Graph, flat: str) -> tuple[str, str]:
    """Brightest and darkest pixel of the cell, (n, 1) each."""
    cell = maps()["cell"]
    start, end = int(cell.min()), int(cell.max()) + 1
    beyond = np.full(end - start, _BEYOND, np.float32)
    beyond[cell - start] = -_BEYOND
    lines = g.slice(flat, 1, start, end)
    brightest = g.op("ReduceMax", g.op("Min", lines, -beyond), _ints(1), keepdims=1)
    return brightest, g.op("ReduceMin", g.op("Max", lines, beyond), _ints(1), keepdims=1)
