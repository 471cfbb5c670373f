"""Judge finished tracks: whether the cell can be judged, and if so, whether it tank-treads or flips."""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import logging
import runpy
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.classification.batches import StageRunner
from napari_rbcflow.classification.sampling import LONGEST
from napari_rbcflow.classification.weight_files import SHIPPED, TrainedStage, held_back_counts, load_weights
from napari_rbcflow.errors import BadInput
from napari_rbcflow.sentences import say
from napari_rbcflow.types import CROP_SIDE, Judgement, Label, Track

log = logging.getLogger(__name__)

# Live, about three tracks end in each frame and one in thirty passes stage 1: a larger batch would be mostly
# padding, and saves ONNX Runtime only a twentieth of its time.
CPU_BATCH, CPU_BATCH_2, CPU_LINGER_S = 4, 1, 0.05
GPU_BATCH, GPU_LINGER_S = 256, 0.02


class TwoStage:
    """Both stages on one device.

    Every batch has the same shape and the last one is padded, so that a track's probabilities do not depend
    on what else is judged. Probabilities are rounded to four decimals, and labels follow from these. One
    `judge` runs at a time; other threads wait.

    If a GPU fails (out of memory, driver error), the CPU judges the sequences that the GPU had not finished
    and all later ones, each exactly once. `fault` then says so.

    Parameters
    ----------
    stage1, stage2 : TrainedStage
    device : str or torch.device
    threads : int
        Threads that judge on a CPU, one by default: the others belong to tracking. Those of PyTorch are set
        for the calling thread during `judge` only.
    mixed : bool
        Half precision on a GPU; sequences near a threshold are judged again in full precision, so that
        labels stay those of the CPU. Off by default: the fourth decimal of a probability may differ.

    Attributes
    ----------
    batch : int
        Tracks that are judged at the cost of one; fewer cost as much.
    linger_s : float
        Seconds that a track should wait for others to share its batch.
    fault : str
        One sentence if a GPU failed and the CPU took over; otherwise empty.
    """

    batch: int = CPU_BATCH
    linger_s: float = CPU_LINGER_S
    fault: str = ""

    def __init__(
        self,
        stage1: TrainedStage,
        stage2: TrainedStage,
        device: Any,
        *,
        threads: int = 1,
        mixed: bool = False,
    ) -> None:
        self.stage1, self.stage2 = stage1, stage2
        self._device, self._threads = str(device), threads
        self._lock = threading.Lock()
        if self._on_card:
            # Nothing can be copied back from a GPU that has failed.
            self._spare = [replace(t, networks=copy.deepcopy(t.networks)) for t in (stage1, stage2)]
            self._gpu_name = "GPU"
        try:
            self._make_runners(mixed)
        except Exception as error:
            self._fall_back_to_cpu(error)

    @property
    def _on_card(self) -> bool:
        return self._device != "cpu"

    def _make_runners(self, mixed: bool) -> None:
        if self._on_card:
            import torch

            self._gpu_name = torch.cuda.get_device_name(self._device)
            self.batch, self.linger_s = GPU_BATCH, GPU_LINGER_S
        rows = (self.batch, self.batch if self._on_card else CPU_BATCH_2)
        stages = zip((self.stage1, self.stage2), rows, strict=True)
        self._runners = [
            StageRunner(t, self._device, n, mixed=mixed, threads=self._threads) for t, n in stages
        ]

    def _fall_back_to_cpu(self, error: Exception) -> None:
        """Continue on the CPU, or raise the error if the CPU is what failed."""
        if not self._on_card:
            raise error
        import torch

        why = " ".join(str(error).split("\n", 1)[0].split())[:120].rstrip(". ") or type(error).__name__
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in why:
            self.fault = say("classification.gpu-out-of-memory", card=self._gpu_name)
        else:
            self.fault = say("classification.gpu-failed", card=self._gpu_name, why=why)
        log.warning("%s", self.fault)
        self._device = "cpu"
        self.stage1, self.stage2 = self._spare
        self.batch, self.linger_s = CPU_BATCH, CPU_LINGER_S
        self._make_runners(mixed=False)

    @classmethod
    def load(
        cls,
        device: str = "auto",
        stage1: Path | None = None,
        stage2: Path | None = None,
        *,
        threads: int = 1,
        mixed: bool = False,
    ) -> TwoStage:
        """Load weights, by default the shipped ones.

        Parameters
        ----------
        device : {'auto', 'cpu', 'cuda'}
            ``auto`` takes the GPU if there is one.
        stage1, stage2 : Path, optional
            ``.safetensors`` files, each with its card beside it.
        threads, mixed
            See the class.

        Raises
        ------
        BadInput
            For a device that is not there, or weights that are missing, damaged or of the other stage.
        RunFailed
            If ONNX Runtime, which judges on a CPU, fails.
        """
        chosen = choose_device(device)
        return cls(
            load_weights(stage1 or SHIPPED / "stage1.safetensors", 1),
            load_weights(stage2 or SHIPPED / "stage2.safetensors", 2),
            chosen,
            threads=threads,
            mixed=mixed,
        )

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Of both stages: what makes a label, and how often it is right, with the counts behind that."""
        models: dict[str, dict[str, Any]] = {
            f"stage{trained.stage}": {
                "name": trained.name,
                "hash": trained.sha256,
                # The hash is of the tensors; with these values a label can be reproduced.
                "slope": trained.slope,
                "offset": trained.offset,
                "threshold": trained.threshold,
                "thresholds": trained.thresholds,
                "short": trained.short,
                "told_from": trained.told_from,
                # The correction of the fraction uses these counts (estimate.rates).
                "counts": held_back_counts(trained.card),
            }
            for trained in (self.stage1, self.stage2)
        }
        for figures in self.stage1.card.get("figures", {}).values():
            share, least = (
                figures.get(key)
                for key in ("precision at 3.4% reliable", "the same, at the leak's upper end")
            )
            if isinstance(share, float) and share > 0:
                models["stage1"]["precision_in_real_life"] = round(share, 4)
                if isinstance(least, float):
                    models["stage1"]["precision_in_real_life_at_least"] = round(least, 4)
                break
        return models

    @property
    def device(self) -> str:
        """Where the next track is judged: ``cpu``, or ``cuda`` and the card's name."""
        return f"cuda ({self._gpu_name})" if self._on_card else "cpu"

    def warm_up(self) -> None:
        """Compile and allocate in advance, so that the first real label is not late."""
        rng = np.random.default_rng(0)
        longer = max(self.stage1.frames, self.stage2.frames) + 4
        shapes = range(longer, LONGEST + 16, 16) if self._on_card else ()
        for frames in (longer, longer, *shapes):
            crops = [rng.integers(100, 140, (frames, CROP_SIDE, CROP_SIDE)).astype(np.uint8)]
            self.reliable(crops)
            self.flipping(crops)

    def judge(self, tracks: Sequence[Track], *, leave_out_intruded: bool = True) -> list[Judgement]:
        """Judge tracks, in their order.

        Parameters
        ----------
        tracks : sequence of Track
        leave_out_intruded : bool
            Show the networks `Track.crops_alone`, as in the training of the shipped ones; otherwise all
            crops.

        Returns
        -------
        list of Judgement
            Tracks under six frames are ``too-short`` and have no probabilities; `p_tank_treading` is None
            for tracks that do not reach stage 2. The reason is ``too-short``, ``stage-1`` (unreliable),
            ``stage-2``, or ``undecided``: unreliable because stage 2 cannot decide.
        """

        def shown(track: Track) -> NDArray[np.uint8]:
            return track.crops_alone if leave_out_intruded else track.crops

        long = [track for track in tracks if not track.too_short]
        p_reliable = dict(zip(map(id, long), self.reliable([shown(t) for t in long]), strict=True))
        good = [track for track in long if p_reliable[id(track)] >= self.stage1.threshold]
        p_flipping = dict(zip(map(id, good), self.flipping([shown(t) for t in good]), strict=True))
        judgements = []
        for track in tracks:
            if track.too_short:
                judgements.append(Judgement(track.cell, Label.TOO_SHORT, None, None, "too-short"))
                continue
            reliable = float(p_reliable[id(track)])
            if id(track) not in p_flipping:
                judgements.append(Judgement(track.cell, Label.UNRELIABLE, reliable, None, "stage-1"))
                continue
            flipping = float(p_flipping[id(track)])
            label, reason = self.kind(flipping)
            if reason == "stage-2" and not self.stage1.passes(reliable, flipping=label is Label.FLIPPING):
                label, reason = Label.UNRELIABLE, "stage-1"
            judgements.append(Judgement(track.cell, label, reliable, round(1 - flipping, 4), reason))
        return judgements

    def kind(self, p_flipping: float) -> tuple[Label, str]:
        """Label and reason of a reliable cell; an undecided cell is unreliable, never a guess."""
        if not self.stage2.told(p_flipping):
            return Label.UNRELIABLE, "undecided"
        return (Label.FLIPPING if p_flipping >= self.stage2.threshold else Label.TANK_TREADING), "stage-2"

    def reliable(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Probability, rounded to four decimals, that each sequence is reliable, however short."""
        return self._probabilities(0, crops)

    def flipping(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Probability, rounded to four decimals, that each sequence, if reliable, is flipping."""
        return self._probabilities(1, crops)

    def _probabilities(self, stage: int, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        with self._lock:
            try:
                return self._runners[stage].probabilities(crops)
            except Exception as error:
                self._fall_back_to_cpu(error)
                return self._runners[stage].probabilities(crops)


def choose_device(wanted: str) -> str:
    """Return the device for ``auto``, ``cpu`` or ``cuda``: ``cpu`` or ``cuda``."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise BadInput("classification.no-device", device=wanted)
    present = wanted != "cpu" and _may_have_a_card()
    if present:
        import torch

        present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise BadInput("classification.no-cuda")
    return "cuda" if present else "cpu"


def _may_have_a_card() -> bool:
    """Whether PyTorch, which takes a second to import, has to be asked for a graphics card."""
    if "torch" in sys.modules:
        return True
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return True
    try:
        built = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    except Exception:
        return True
    if built.get("hip") or built.get("rocm"):
        return True
    if not built.get("cuda"):  # a build for CPUs
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:  # no driver
        return False
    return True
