"""Tracks a second through both stages, and what each step of it costs.

    python benchmarks/classification.py [--device cpu] [--tracks 960] [--frames 33] [--reliable 1.0]

Prints CPU time (this thread's), for wall time on a shared machine says little; on a GPU wall time.
`--reliable` is the share of tracks that reach stage 2; 1.0 is the worst case, 0.034 the paper's blood.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from napari_rbcflow.classification.networks import MODELS, build
from napari_rbcflow.classification.preparing import level
from napari_rbcflow.classification.sampling import similarity
from napari_rbcflow.classification.two_stage import TwoStage


def measure(device: str, n: int, frames: int, reliable: float) -> dict[str, float | str]:
    """Return seconds' worth: tracks a second of both stages, milliseconds a track of the parts."""
    rng = np.random.default_rng(0)
    cells = rng.normal(120, 8, (64, frames, 31, 31)).astype(np.uint8)
    crops = [cells[k % 64] for k in range(n)]
    two_stage = TwoStage.load(device)
    two_stage.warm_up()
    clock = time.perf_counter if two_stage.device.startswith("cuda") else time.thread_time

    start = clock()
    for first in range(0, n, 64):
        some = crops[first : first + 64]
        two_stage.reliable(some)
        through = round(len(some) * reliable)
        if through:
            two_stage.flipping(some[:through])
    whole = clock() - start

    similarity(crops[0], 20)
    start = clock()
    for one in crops[:200]:
        similarity(one, 20)
    sampling = (clock() - start) / min(n, 200)
    start = clock()
    for one in crops[:200]:
        level(one[:20])
    levelling = (clock() - start) / min(n, 200)
    out: dict[str, float | str] = {
        "device": two_stage.device,
        "tracks_per_s": n / whole,
        "both_stages_ms_per_track": 1e3 * whole / n,
        "similarity_sampling_ms_per_track": 1e3 * sampling,
        "levelling_ms_per_track": 1e3 * levelling,
    }
    if clock is time.thread_time:
        torch.set_num_threads(1)
        for model in MODELS:
            network = build(model, 20).eval()
            images, mask = torch.randn(32, 20, 31, 31), torch.ones(32, 20)
            with torch.inference_mode():
                network(images, mask)
                start = clock()
                network(images, mask)
                out[f"{model}_k20_ms_per_track"] = 1e3 * (clock() - start) / 32
    return out


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--tracks", type=int, default=960)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--reliable", type=float, default=1.0)
    options = parser.parse_args()
    print(json.dumps(measure(options.device, options.tracks, options.frames, options.reliable), indent=1))


if __name__ == "__main__":
    main()
