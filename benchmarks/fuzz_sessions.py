"""Damages sessions for as long as asked, and lists what breaks.

``python benchmarks/fuzz_sessions.py --minutes 60``

Each input is a session folder with one to three of its files cut, changed, exchanged or lost
(`tests/damage.py`). No command may end with a traceback, take 10 s or 1 GB, or write where it was not told
to. Each find is printed with its seed; ``--seed N --inputs 1`` shows that one again, and ``--keep DIR`` keeps
its folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from damage import Find, make, one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Find] = {}
    often: Counter[str] = Counter()
    tried, until = 0, time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        base = make(Path(folder))
        while tried < given.inputs and time.monotonic() < until:
            for find in one(base, Path(folder) / "work", given.seed + tried):
                often[find.key] += 1
                if find.key not in found:
                    found[find.key] = find
                    print(f"{find.key}\n  {find.damage}\n{find.told[-3000:]}", flush=True)
                    if given.keep is not None:
                        kept = given.keep / f"{given.seed + tried}"
                        shutil.copytree(Path(folder) / "work" / "S", kept, symlinks=True, dirs_exist_ok=True)
            tried += 1
    print(f"{tried} inputs, {sum(often.values())} finds of {len(found)} kinds")
    for key, n in often.most_common():
        print(f"{n:6d}  {key}")


if __name__ == "__main__":
    main()
