"""Do the tests notice small faults? Each of `FAULTS` is put into a copy of the tree, and its tests are run.

The faults were chosen by reading the code, before looking at which tests there are. Run it in a clone, which
it changes and mends again: ``git clone . /tmp/mut; cd /tmp/mut; python benchmarks/mutations.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 600


class Fault(NamedTuple):
    """A line that could be wrong: `old` stands once in the file, `new` takes its place."""

    path: str
    old: str
    new: str
    breaks: str

    @property
    def package(self) -> str:
        return {"types.py": "tracking"}.get(self.path, self.path.partition("/")[0])


FAULTS = [
    # ------------------------------------------------------------------ sources
    Fault(
        "sources/grey.py",
        'cv2.COLOR_RGB2GRAY if self.order == "rgb"',
        'cv2.COLOR_RGB2GRAY if self.order != "rgb"',
        "colours weighted as if red were blue",
    ),
    Fault(
        "sources/frame_loss.py",
        'reason, self._reason = self._reason or "image-number", None',
        'reason = self._reason or "image-number"',
        "after one overflow every loss is an overflow",
    ),
    Fault(
        "sources/frame_loss.py",
        "moved_ms += _COUNTER / self.unit",
        "moved_ms += _COUNTER",
        "a counter of microseconds that begins anew",
    ),
    Fault(
        "sources/movie.py",
        "time_s - float(times[0]), self._frame(index)",
        "time_s, self._frame(index)",
        "a ring's times begin where the run's did",
    ),
    Fault(
        "sources/movie.py",
        'self._missed["not-recorded"] += raw.place - last - 1',
        'self._missed["not-recorded"] = max(self._missed["not-recorded"], raw.place - last - 1)',
        "of several gaps only the longest counts",
    ),
    Fault(
        "sources/movie_reader.py",
        "round(i * (n_frames - 1) / (n_wanted - 1))",
        "round(i * n_frames / n_wanted)",
        "the last frame is not among those spread over a movie",
    ),
    Fault(
        "sources/tiff.py",
        "kind = self._dtype.newbyteorder(self._tif.byteorder)\n            stored",
        "kind = self._dtype\n            stored",
        "16-bit frames in a row, big-endian",
    ),
    Fault(
        "sources/rotation.py",
        "90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE",
        "270: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 90: cv2.ROTATE_90_COUNTERCLOCKWISE",
        "turned the other way",
    ),
    Fault(
        "sources/tiff_metadata.py",
        'facts.take_interval(number(described.get("TimeIntervall")), "s", origin)',
        'facts.take_interval(number(described.get("TimeIntervall")), "ms", origin)',
        "the interval of a LSM in ms",
    ),
    Fault(
        "sources/video.py",
        "facts.fps = next((rate for rate in rates if abs(rate / measured - 1) < _SAME_RATE), measured)",
        "facts.fps = next(iter(rates), measured)",
        "the mean rate of a movie with a hole for its frame rate",
    ),
    # ------------------------------------------------------------------ ring
    Fault(
        "ring/disk.py",
        "write_all(file, data)\n            os.fsync(file.fileno())",
        "write_all(file, data)",
        "a file is renamed before it is on the disk",
    ),
    Fault(
        "ring/writer.py",
        "slot = self.frames_written % self.capacity",
        "slot = frame.index % self.capacity",
        "with gaps, a newer frame than the oldest is overwritten",
    ),
    Fault(
        "ring/writer.py",
        "rows[:, 0] = np.arange(self.crops_written, self.crops_written + n)",
        "rows[:, 0] = np.arange(n)",
        "crops of a second batch are as old as those of the first",
    ),
    Fault(
        "ring/reader.py",
        "        slots = slots[np.argsort(rows[slots, 0])]\n        self.damaged_rows",
        "        self.damaged_rows",
        "frames in the order of slots, once the ring went round",
    ),
    Fault(
        "ring/disk.py",
        "FULL = frozenset({errno.ENOSPC, errno.EDQUOT})",
        "FULL = frozenset({errno.ENOSPC})",
        "a user's share of the disk that is full",
    ),
    Fault(
        "ring/reader.py",
        "y_px=rows[:, 3].astype(np.float32),\n            x_px=rows[:, 4].astype(np.float32),",
        "y_px=rows[:, 4].astype(np.float32),\n            x_px=rows[:, 3].astype(np.float32),",
        "y and x of a crop in the ring swapped",
    ),
    # ------------------------------------------------------------------ tracking
    Fault(
        "tracking/crops.py",
        "return self.length - self._scale - x if self._mirrored else x",
        "return self.length - x if self._mirrored else x",
        "flow from right to left: a pixel off",
    ),
    Fault(
        "tracking/positions.py",
        "return np.rint(centres_px.astype(np.float64) + 0.5 - side_px / 2)",
        "return np.rint(centres_px.astype(np.float64) - side_px / 2)",
        "windows and crops cut half a pixel off",
    ),
    Fault(
        "tracking/crops.py",
        "xc = x0 + ratio / 2 - 0.5",
        "xc = x0 + ratio / 2",
        "crops of a binned camera half a pixel off along x",
    ),
    Fault(
        "tracking/linker.py",
        "self._least = settings.least_speed_px * 60 / fps",
        "self._least = settings.least_speed_px * fps / 60",
        "the least speed at other rates than 60 frames/s",
    ),
    Fault(
        "tracking/linker.py",
        "self._longest_gap = max(1, round(_MAX_GAP_S * fps))",
        "self._longest_gap = 10",
        "the longest gap at other rates than 60 frames/s",
    ),
    Fault(
        "tracking/focus.py",
        "        self._by_static = 0\n        self._frames += 1",
        "        self._frames += 1",
        "short smears add up to one for good",
    ),
    Fault(
        "tracking/tracker.py",
        "for c in self._pale.get(cell, (cell,)))",
        "for c in (() if cell in self._pale else (cell,)))",
        "a chain of fragments breaks at a pale one",
    ),
    Fault(
        "tracking/positions.py",
        "return out * b + (b - 1) / 2 + np.stack([tops, lefts], axis=1)",
        "return out * b + np.stack([tops, lefts], axis=1)",
        "centroids of an unbinned camera half a pixel off",
    ),
    Fault(
        "types.py",
        "span = int(self.frames[-1] - self.frames[0])\n        return float",
        "span = len(self.frames) - 1\n        return float",
        "the speed of a track with a gap",
    ),
    # ------------------------------------------------------------------ classification
    Fault(
        "classification/two_stage.py",
        "        self.batch, self.linger_s = CPU_BATCH, CPU_LINGER_S\n",
        "",
        "the GPU's batch kept on the CPU that takes over",
    ),
    Fault(
        "classification/batches.py",
        "for edge in trained.edges:",
        "for edge in trained.edges[:1]:",
        "half precision trusted near the other thresholds",
    ),
    Fault(
        "classification/two_stage.py",
        "p_reliable[id(track)] >= self.stage1.threshold]",
        "p_reliable[id(track)] > self.stage1.threshold]",
        "a probability that is just the threshold",
    ),
    Fault(
        "classification/gpu.py",
        "    finally:\n        if before != number:\n            torch.set_num_threads(before)",
        "    finally:\n        pass",
        "PyTorch's threads are not given back",
    ),
    Fault(
        "classification/sampling.py",
        "background = min(max(own[i], 0.9 * whole), 1.1 * whole)",
        "background = own[i]",
        "a neighbour that covers the border changes the light",
    ),
    Fault(
        "classification/weight_files.py",
        "self.thresholds[flipping] if self.thresholds",
        "self.thresholds[not flipping] if self.thresholds",
        "each kind by the other's threshold",
    ),
    Fault(
        "classification/gpu.py",
        "torch.where(to_next[row, before[row, i]] > to_next[row, j], i, j)",
        "torch.where(to_next[row, before[row, i]] >= to_next[row, j], i, j)",
        "of equals, the GPU drops another frame than the CPU",
    ),
    # ------------------------------------------------------------------ estimate
    Fault(
        "estimate/intervals.py",
        "        if self._low > self._high:\n            self._low = _edge",
        "        if self._low > 1:\n            self._low = _edge",
        "the anytime intervals have nothing in common: low above high",
    ),
    Fault(
        "estimate/error_correction.py",
        "leak=rate(4, rates.let_through, LAPLACE)",
        "leak=rate(4, rates.let_through)",
        "the prior of the leak",
    ),
    Fault(
        "estimate/stopping.py",
        "return (high - low) / 2\n",
        "return high - low\n",
        "the width for the half-width where a baseline may stop the run",
    ),
    Fault(
        "estimate/reported.py",
        'if status != "finished" or rules.baseline is not None:',
        'if status != "finished":',
        "another interval than the anytime one where a baseline may stop the run",
    ),
    Fault(
        "estimate/unseen_flips.py",
        "1.0 / ASPECT_RATIO) * fps / shear_rate_per_s",
        "1.0 / ASPECT_RATIO) * 60.0 / shear_rate_per_s",
        "a flip's frames at other rates than 60 frames/s",
    ),
    Fault(
        "estimate/tally.py",
        "        self.taken = {cell: taken.get(cell, was) for cell, was in self.taken.items()}\n",
        "",
        "fragments of cells that were set aside since do not count",
    ),
    Fault(
        "estimate/tally.py",
        '                now.cells["tracked"] += 1\n',
        "",
        "tracks that a failure left unjudged are not among those tracked",
    ),
    Fault(
        "estimate/review.py",
        "weight = self.sizes / np.maximum(seen.sum(axis=1), 1.0)",
        "weight = 1.0 * (self.sizes > 0)",
        "a checked cell weighs as much in a stratum of ten as of a thousand",
    ),
    Fault(
        "estimate/focus_speed.py",
        "math.log(max(abs(speed_um_per_s), 1.0))",
        "math.log(max(speed_um_per_s, 1.0))",
        "no speed in focus where cells flow to the left",
    ),
    # ------------------------------------------------------------------ quality
    Fault(
        "quality/meter.py",
        "(sums.flicker / sums.flicker_frames / 2) ** 0.5",
        "(sums.flicker / sums.flicker_frames) ** 0.5",
        "flicker too great by the root of two",
    ),
    Fault(
        "quality/meter.py",
        "self._um_per_s_of_px = fps * pixel_size_um",
        "self._um_per_s_of_px = 60.0 * pixel_size_um",
        "speeds at other rates than 60 frames/s",
    ),
    Fault(
        "quality/drift.py",
        "after = found.after * (found.cells - found.at_cell) + new",
        "after = found.after * found.cells + new",
        "the fraction after a change, as cells are added",
    ),
    Fault(
        "quality/rules.py",
        "RELIABLE_SHARE.broken_by(min(share + 3 * deviation, usual[0]))",
        "RELIABLE_SHARE.broken_by(min(share - 3 * deviation, usual[0]))",
        "few reliable cells by chance alone give a warning",
    ),
    Fault(
        "quality/meter.py",
        "        self._last_second = mean\n",
        "        self._last_second = self._last_second or mean\n",
        "a slow change of the light is taken for a sudden one",
    ),
    Fault(
        "quality/monitor.py",
        'dropped = sum(n for reason, n in frames["dropped"].items() if reason != "after-stop")',
        'dropped = sum(n for reason, n in frames["dropped"].items())',
        "frames that came after the stop count as lost",
    ),
    Fault(
        "quality/rules.py",
        'turn = 90 if (seen == "up") is (wanted == "right") else 270',
        'turn = 270 if (seen == "up") is (wanted == "right") else 90',
        "the other way to turn the picture is offered",
    ),
    Fault(
        "quality/monitor.py",
        "self._field_um2 = info.height * info.width * info.pixel_size_um**2",
        "self._field_um2 = info.width * info.width * info.pixel_size_um**2",
        "the area of a field that is not square",
    ),
    # ------------------------------------------------------------------ session
    Fault(
        "session/schema.py",
        "replace_file(folder / RUN_FILE, encoded(run))",
        "(folder / RUN_FILE).write_bytes(encoded(run))",
        "run.json is written in place",
    ),
    Fault(
        "session/verification.py",
        "if not session.running and received != processed + dropped:",
        "if not session.running and received < processed + dropped:",
        "frames that nobody accounts for",
    ),
    Fault(
        "session/tables.py",
        "_two(track.x_px[-1]),\n                _two(track.y_px[-1]),",
        "_two(track.y_px[-1]),\n                _two(track.x_px[-1]),",
        "x and y of a cell's last position swapped",
    ),
    Fault(
        "session/growing.py",
        "return [file.fileno() for file in self._unsynced]",
        "return [file.fileno() for file in self._unsynced[-1:]]",
        "a batch over the end of a chunk: the first of them is not synced",
    ),
    Fault(
        "session/verdict.py",
        "reviewed.n >= min(CHECKED_CELLS, judged)\n",
        "reviewed.n >= CHECKED_CELLS\n",
        "a run of few cells, all of them checked, never gives a result",
    ),
    Fault(
        "session/review.py",
        "cell: [own[cell] for own in whole] or together[cell][:1] for cell",
        "cell: together[cell] for cell",
        "who labels again only some cells moves the number",
    ),
    Fault(
        "session/schema.py",
        "                _lock(file, at=_FAR)\n                break",
        "                break",
        "two programs write a review at once",
    ),
    Fault(
        "session/label_edits.py",
        "last = {change.cell: change for change in changes}",
        "last = {change.cell: change for change in reversed(list(changes))}",
        "of two changes of a cell the first is in force",
    ),
    Fault(
        "session/writer.py",
        "                for table in self._tables:\n                    table.roll_back()\n",
        "                self._cells.roll_back()\n",
        "after a batch that failed its positions stay",
    ),
    Fault(
        "session/recovery.py",
        "    run.update(conclude(run).as_dict())\n",
        "",
        "a crashed run keeps the verdict that it had",
    ),
    # ------------------------------------------------------------------ pipeline
    Fault(
        "pipeline/stages.py",
        "                self.stranded += tracks\n                raise\n"
        "            if not self._to_keep",
        "                raise\n            if not self._to_keep",
        "a batch is lost when judging raises",
    ),
    Fault(
        "pipeline/settings.py",
        "frames = max(1, round(self.ring_seconds * info.fps))",
        "frames = max(1, round(self.ring_seconds * 60.0))",
        "the ring's seconds at other rates than 60 frames/s",
    ),
    Fault(
        "pipeline/run.py",
        "self._counted_before, self._recounts = len(counted), recounts",
        "self._counted_before, self._recounts = self._counted_before + len(counted), recounts",
        "after all were counted again, whoever watches misses cells",
    ),
    Fault(
        "pipeline/stages.py",
        "1000 * (now - handed_over)\n",
        "(now - handed_over)\n",
        "latencies in s for ms",
    ),
    Fault(
        "pipeline/stages.py",
        "            self.writer.keep(pairs)\n        except Exception:\n"
        "            self.stranded += tracks\n            raise\n        self.tally.count(judgements)\n",
        "            self.tally.count(judgements)\n            self.writer.keep(pairs)\n"
        "        except Exception:\n            self.stranded += tracks\n            raise\n",
        "counted before it is on the disk",
    ),
    Fault(
        "pipeline/stages.py",
        "first_kept = self.info.n_frames - self.settings.ring_frames(self.info)",
        "first_kept = self.info.n_frames - self.settings.ring_frames(self.info) + 1",
        "a movie's ring holds a frame less",
    ),
    # ------------------------------------------------------------------ trend
    Fault(
        "trend/baseline.py",
        "return cls(sum(run.estimate * run.n for run in runs) / n, n)",
        "return cls(sum(run.estimate for run in runs) / len(runs), n)",
        "a day's runs weigh the same however many cells they counted",
    ),
    Fault(
        "trend/baseline.py",
        "return max(0.0, self.mean - DEVIATIONS * max(self.sd, self.counting_sd))",
        "return max(0.0, self.mean - DEVIATIONS * self.sd)",
        "days that happen to be close make an ordinary day look low",
    ),
    Fault(
        "trend/baseline.py",
        "first = max(0, place - IN_A_ROW + 1)",
        "first = max(0, place - IN_A_ROW)",
        "a day farther away confirms a low one",
    ),
    Fault(
        "trend/export.py",
        '.encode("utf-8-sig", errors="backslashreplace")',
        '.encode("utf-8", errors="backslashreplace")',
        "a spreadsheet shows an accent as two signs",
    ),
    Fault(
        "trend/records.py",
        "and (self.last is None or day <= self.last)",
        "and (self.last is None or day < self.last)",
        "the last day of a crisis is none",
    ),
]  # fmt: skip

TESTS = {
    "sources/grey.py": "colours movies tiff_movies video_movies micromanager",
    "sources/frame_loss.py": "clocks micromanager",
    "sources/rotation.py": "turned_and_uneven",
    "sources/tiff": "tiff_movies movies",
    "sources/video.py": "video_movies movies",
    "sources": "movies tiff_movies video_movies",
    "ring/disk.py": "ring session",
    "ring": "ring session",
    "tracking/focus.py": "tracking_focus",
    "tracking/tracker.py": "pieces tracking",
    "tracking": "tracking_parts tracking_positions pieces",
    "types.py": "session quality",
    "classification/weight_files.py": "weight_files classification",
    "classification/two_stage.py": "classification",
    "classification/sampling.py": "classification batches",
    "classification/gpu.py": "classification batches",
    "classification": "batches",
    "estimate/error_correction.py": "corrected",
    "estimate/unseen_flips.py": "unseen_flips",
    "estimate/review.py": "review_plan review",
    "estimate/focus_speed.py": "focus_speed",
    "estimate/tally.py": "estimate pieces focus_speed",
    "estimate": "estimate fixed_width",
    "quality/rules.py": "quality verdict turned_and_uneven",
    "quality": "quality verdict",
    "session/label_edits.py": "changes",
    "session/review.py": "review",
    "session/verdict.py": "verdict review",
    "session/schema.py": "session review",
    "session": "session",
    "pipeline": "stages focus_speed",
    "trend": "trend",
}
"""Which test files touch what, the fast ones first; none that opens a window."""
_LOADED = (
    "numpy pandas scipy.special scipy.optimize scipy.stats scipy.ndimage scipy.linalg cv2 numba torch onnx "
    "onnxruntime safetensors.torch zarr tifffile imagecodecs av PIL.Image click rich jinja2 hypothesis pytest"
)
"""Loaded once, and not by each of the processes that are made for the faults."""


def tests_of(path: str) -> list[str]:
    """Return the test files of the most specific entry."""
    where = max((known for known in TESTS if path.startswith(known)), key=len)
    return [f"tests/test_{name}.py" for name in TESTS[where].split()]


class _NoWindows:
    """Leaves out the tests that open a window."""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if "qtbot" not in item.fixturenames]


def run_tests(files: list[str], *more: str) -> tuple[int, str]:
    """Run them in a child of this process; return pytest's exit status (124: too long) and what it said."""
    import pytest

    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if not child:
            os.setpgrp()
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            options = "-x -q -n 0 -p no:cacheprovider -p no:xvfb -p no:pytest-qt --no-header --tb=line -rfE"
            code = pytest.main([*options.split(), "-m", "not slow", *more, *files], plugins=[_NoWindows()])
            sys.stdout.flush()
            os._exit(int(code))
        until = time.monotonic() + LONGEST_S
        code = 124
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # and what the tests left running
        if code == 124:
            os.waitpid(child, 0)
        said.seek(0)
        return code, said.read()


def put_in(fault: Fault) -> tuple[int, str, float]:
    """Run the tests with a fault; return as `run_tests`, and the seconds of CPU that it took."""
    path = ROOT / "napari_rbcflow" / fault.path
    whole, at = path.read_bytes(), path.stat()
    text = whole.decode()
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.path} holds {text.count(fault.old)} times: {fault.old!r}")
    cache = path.parent / "__pycache__"
    # Python and numba take both files for those of a source by its time and size.
    kept = {one: (one.read_bytes(), one.stat()) for one in cache.glob(f"{path.stem}.*")}
    before = os.times()
    try:
        path.write_text(text.replace(fault.old, fault.new))
        for one in cache.glob(f"{path.stem}.*pyc"):
            one.unlink()
        code, said = run_tests(tests_of(fault.path))
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        for one in cache.glob(f"{path.stem}.*"):
            one.unlink()
        for one, (data, stat) in kept.items():
            one.write_bytes(data)
            os.utime(one, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = os.times()
    return code, said, now.children_user + now.children_system - before.children_user - before.children_system


def main() -> None:
    """Put the faults in one after the other, and print which were noticed, and by which test."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("numbers", nargs="*", type=int, help="of the faults, from 1; all by default")
    options.add_argument("--whole", action="store_true", help="run the tests without a fault: all must pass")
    options.add_argument("--out", type=Path, help="a JSON file that goes on where it was left")
    chosen = options.parse_args()
    sys.dont_write_bytecode = True
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for name in _LOADED.split():
        __import__(name)
    if chosen.whole:
        for files in dict.fromkeys(tuple(tests_of(fault.path)) for fault in FAULTS):
            for file in files:
                began = time.monotonic()
                code, said = run_tests([file], "--durations=5")
                print(code, file, f"{time.monotonic() - began:.0f} s", said.splitlines()[-1:], flush=True)
        return
    found = json.loads(chosen.out.read_text()) if chosen.out and chosen.out.exists() else {}
    for number, fault in enumerate(FAULTS, 1):
        if str(number) in found or (chosen.numbers and number not in chosen.numbers):
            continue
        code, said, cpu_s = put_in(fault)
        by = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        noticed = by[0] if by else "" if code == 0 else f"exit {code}"
        found[str(number)] = {"noticed": noticed, "cpu_s": round(cpu_s, 1)}
        print(number, fault.path, noticed or "NOT NOTICED", f"({cpu_s:.0f} s): {fault.breaks}", flush=True)
        if chosen.out:
            chosen.out.write_text(json.dumps(found, indent=1))
    numbers = {number: fault for number, fault in enumerate(FAULTS, 1) if str(number) in found}
    of, noticed_of = Counter(f.package for f in numbers.values()), Counter[str]()
    for number, fault in numbers.items():
        noticed_of[fault.package] += bool(found[str(number)]["noticed"])
    for package in of:
        print(f"{package}: {noticed_of[package]} of {of[package]}")
    cpu_min = sum(one["cpu_s"] for one in found.values()) / 60
    print(f"all: {noticed_of.total()} of {of.total()}, {cpu_min:.0f} min of CPU")


if __name__ == "__main__":
    main()
