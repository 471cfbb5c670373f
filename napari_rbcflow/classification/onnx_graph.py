"""A stage's networks as one ONNX graph, which ONNX Runtime runs on a CPU faster than PyTorch does.

The graph is written from the weights, node by node (no exporter, no tracing), in tens of milliseconds. It
computes what `blend.ensemble_logits` does, for `Blend` and `SmallNetwork` of any options and any number of
members. What the members share is computed once: deviations from the mean image, and handcrafted features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from napari_rbcflow.classification.networks.blend import FARTHEST, Blend, SmallNetwork
from napari_rbcflow.classification.networks.handcrafted import (
    AWAY_SHARES,
    SHARES,
    STEP_SHARES,
    TINY,
    HandcraftedFeatures,
)
from napari_rbcflow.errors import RunFailed
from napari_rbcflow.types import CROP_SIDE

_OPSET, _IR = 18, 9  # of ONNX 1.14 (2023): every recent runtime knows them
_PIXELS = CROP_SIDE * CROP_SIDE
_BEYOND = 1e30  # replaces padded frames while a feature is sorted over time


def is_supported(networks: Sequence[nn.Module]) -> bool:
    """Whether `write_graph` knows this kind of network; others stay in PyTorch."""
    return all(type(network) is Blend for network in networks) or all(
        type(network) is SmallNetwork for network in networks
    )


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
    blends = [network for network in networks if isinstance(network, Blend)]
    learned = [blend.learned for blend in blends] or [n for n in networks if isinstance(n, SmallNetwork)]
    logits = _learned(g, tracks, learned)
    if blends:
        logits = g.op("Add", logits, _handcrafted(g, tracks, blends))
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
        """Add a node of several outputs; a Tensor, array or number among the inputs becomes a constant."""
        given = [of if isinstance(of, str) else self._constant(of) for of in inputs]
        self.nodes.append(helper.make_node(kind, given, list(names), name=f"{kind}.{names[0]}", **attributes))
        return names

    def _constant(self, value: Any) -> str:
        value = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
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


def _learned(g: _Graph, tracks: _Tracks, networks: Sequence[SmallNetwork]) -> str:
    """Sum of the members' `SmallNetwork` logits, (rows, 2)."""
    rows, frames = tracks.rows, tracks.frames
    both = [
        g.reshape(of, rows * frames, 1, CROP_SIDE, CROP_SIDE) for of in (tracks.images, tracks.deviations)
    ]
    seen = g.op("Concat", *both, axis=1)
    edge = networks[0]._edge
    if edge:
        ends = _ints(CROP_SIDE - edge, CROP_SIDE - edge)
        seen = g.op("Slice", seen, _ints(edge, edge), ends, _ints(2, 3))
    weight = g.reshape(g.op("Transpose", tracks.mask, perm=[1, 0]), frames, rows, 1)
    lengths = g.op("Cast", g.reshape(tracks.count, rows), to=TensorProto.INT32)
    members = [_features(g, network, seen, weight, lengths, rows, frames) for network in networks]
    stacked = g.op("Concat", *members, axis=0)  # members, frames, rows, features
    share = g.reshape(g.op("Transpose", tracks.share, perm=[1, 0]), frames, rows, 1)
    average = g.op("ReduceSum", g.op("Mul", stacked, share), _ints(1), keepdims=1)
    far = g.op("Mul", g.square(g.op("Sub", stacked, average)), share)
    spread = g.op("Sqrt", g.op("Add", g.op("ReduceSum", far, _ints(1), keepdims=0), 1e-4))
    there = g.op("Greater", weight, 0.0)
    highest = g.op("ReduceMax", g.op("Where", there, stacked, -1e4), _ints(1), keepdims=0)
    average = g.op("Squeeze", average, _ints(1))
    told = g.op("Concat", average, spread, g.op("Max", highest, -10.0), axis=2)
    return _dense(g, told, [(n.head[1], n.head[4]) for n in networks])


def _features(
    g: _Graph, network: SmallNetwork, seen: str, weight: str, lengths: str, rows: int, frames: int
) -> str:
    """One member's features of every frame and the states of its GRUs, (1, frames, rows, features)."""
    maps = seen
    for layer in network.extractor:
        if isinstance(layer, nn.Conv2d):
            border = [int(n) for n in layer.padding]
            maps = g.op("Conv", maps, layer.weight, layer.bias, strides=layer.stride, pads=border * 2)
        elif isinstance(layer, nn.ReLU):
            maps = g.op("Relu", maps)
        elif isinstance(layer, nn.Flatten):
            maps = g.op("Flatten", maps)
        elif isinstance(layer, nn.Linear):
            maps = g.op("Gemm", maps, layer.weight, layer.bias, transB=1)
    norm = network.norm
    maps = g.op("LayerNormalization", maps, norm.weight, norm.bias, epsilon=norm.eps)
    features = g.reshape(g.op("Relu", maps), rows, frames, -1)
    features = g.op("Transpose", features, perm=[1, 0, 2])  # the GRU wants time first
    parts = [features]
    if network.forth is not None and network.back is not None:
        both = (network.forth, network.back)
        states = g.op(
            "GRU",
            g.op("Mul", features, weight),
            np.stack([_gates(gru.weight_ih_l0) for gru in both]),
            np.stack([_gates(gru.weight_hh_l0) for gru in both]),
            np.stack([np.concatenate([_gates(gru.bias_ih_l0), _gates(gru.bias_hh_l0)]) for gru in both]),
            lengths,
            direction="bidirectional",
            hidden_size=network.forth.hidden_size,
            linear_before_reset=1,
        )
        parts.append(g.reshape(g.op("Transpose", states, perm=[0, 2, 1, 3]), frames, rows, -1))
    return g.op("Unsqueeze", g.op("Concat", *parts, axis=2), _ints(0))


def _gates(weights: Any) -> NDArray[np.float32]:
    """PyTorch keeps a GRU's gates as reset, update, new; ONNX as update, reset, new."""
    reset, update, new = np.split(weights.detach().numpy(), 3)
    return np.concatenate([update, reset, new])


def _dense(g: _Graph, told: str, layers: Sequence[tuple[Any, Any]]) -> str:
    """Two dense layers of every member on (members, rows, features); their sum over members, (rows, 2)."""
    for place in range(2):
        weights = np.stack([pair[place].weight.detach().numpy().T for pair in layers])
        biases = np.stack([pair[place].bias.detach().numpy()[None] for pair in layers])
        told = g.op("Add", g.op("MatMul", told, weights), biases)
        if place == 0:
            told = g.op("Relu", told)
    return g.op("ReduceSum", told, _ints(0), keepdims=0)


def _handcrafted(g: _Graph, tracks: _Tracks, blends: Sequence[Blend]) -> str:
    """Sum of the members' logits from the handcrafted features, (rows, 2)."""
    features = _handcrafted_features(g, tracks, blends[0].handcrafted)
    features = g.op("Unsqueeze", features, _ints(0))
    centre, spread = (np.stack([getattr(b, of).numpy()[None] for b in blends]) for of in ("centre", "spread"))
    standard = g.op("Div", g.op("Sub", features, centre), spread)
    standard = g.op("Clip", standard, -FARTHEST, FARTHEST)
    return _dense(g, standard, [(b.by_hand[1], b.by_hand[4]) for b in blends])


def _handcrafted_features(g: _Graph, tracks: _Tracks, module: HandcraftedFeatures) -> str:
    """`HandcraftedFeatures.forward`, (rows, number): see there for what each is."""
    rows, frames = tracks.rows, tracks.frames
    # A row that pads a batch holds no frame: its first, empty one is used.
    first = g.slice(tracks.mask, 1, 0, 1)
    rest = g.slice(tracks.mask, 1, 1, frames)
    mask = g.op("Concat", g.op("Max", first, 1.0), rest, axis=1)
    flat = g.reshape(tracks.images, rows * frames, _PIXELS)
    mean = g.reshape(tracks.mean, rows, _PIXELS)
    all_images = _of_images(g, module, g.op("Concat", flat, mean, axis=0), rows * (frames + 1))
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
        "MatMul", g.square(g.reshape(tracks.deviations, rows * frames, _PIXELS)), _column(module._disc)
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


def _column(disc: Tensor) -> NDArray[np.float32]:
    """Mean over all pixels of what is on the disc, as a matrix to multiply with."""
    return (disc / disc.numel()).numpy().reshape(-1, 1)


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


def _of_images(g: _Graph, module: HandcraftedFeatures, flat: str, n: int) -> str:
    """`HandcraftedFeatures._of_images` of (n, 961) pixels, (n, features)."""
    rings, waves = len(module._rings), len(module._light) - len(module._rings)
    light = g.op("MatMul", flat, module._light.T)
    means, wave = g.slice(light, 1, 0, rings), g.slice(light, 1, rings, rings + waves)
    squares = g.op("MatMul", g.square(flat), module._rings.T)
    spreads = g.root(g.op("Sub", squares, g.square(means)), 1e-6)
    pairs = g.reshape(g.square(wave), n, waves // 2, 2)
    heights = g.root(g.op("ReduceSum", pairs, _ints(2), keepdims=0), TINY)
    moments = g.op("MatMul", g.op("Abs", flat), module._moments.T)
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
        *(*_sharpness(g, module, flat), *_extremes(g, module, flat)),
        axis=1,
    )


def _sharpness(g: _Graph, module: HandcraftedFeatures, flat: str) -> tuple[str, str]:
    """Gradient inside and outside, (n, 2), and Laplacian, (n, 1).

    A neighbour is the pixel so many places later. At the end of a line there is none, and the weight is zero.
    """
    last = _PIXELS - CROP_SIDE
    here = g.slice(flat, 1, 0, last)
    down, right = (g.op("Sub", g.slice(flat, 1, by, last + by), here) for by in (CROP_SIDE, 1))
    slope = g.root(g.op("Add", g.square(down), g.square(right)), TINY)
    inside = module._disc.numpy()[:-1].copy()
    outside = 1 - inside
    inside[:, -1] = outside[:, -1] = 0
    slopes = g.op("MatMul", slope, np.stack([inside.ravel(), outside.ravel()], 1) / np.float32(100))
    beside = [g.slice(flat, 1, CROP_SIDE + by, last + by) for by in (1, -1, CROP_SIDE, -CROP_SIDE)]
    middle = g.op("Mul", g.slice(flat, 1, CROP_SIDE, last), -4.0)
    bend = g.square(g.op("Sum", *beside, middle))
    disc = np.zeros((CROP_SIDE, CROP_SIDE), np.float32)
    disc[1:-1, 1:-1] = module._disc[1:-1, 1:-1] / (CROP_SIDE - 2) ** 2
    bends = g.op("MatMul", bend, disc[1:-1].reshape(-1, 1))
    return slopes, g.root(bends, TINY)


def _extremes(g: _Graph, module: HandcraftedFeatures, flat: str) -> tuple[str, str]:
    """Brightest and darkest pixel of the cell, (n, 1) each."""
    cell = module._cell.numpy()
    start, end = int(cell.min()), int(cell.max()) + 1
    beyond = np.full(end - start, _BEYOND, np.float32)
    beyond[cell - start] = -_BEYOND
    lines = g.slice(flat, 1, start, end)
    brightest = g.op("ReduceMax", g.op("Min", lines, -beyond), _ints(1), keepdims=1)
    return brightest, g.op("ReduceMin", g.op("Max", lines, beyond), _ints(1), keepdims=1)
