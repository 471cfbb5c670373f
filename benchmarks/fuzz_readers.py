"""Damages small movies of every format for as long as asked, and lists what reading them breaks.

``python benchmarks/fuzz_readers.py --minutes 60``

Each input is a movie of `tests/damaged_movies.py`, cut, with bits flipped, sizes and counts falsified, parts
lost or doubled. Reading may end with one of our own sentences in a line, never with a traceback, a process
that dies, 10 s without an answer, 1 GB of memory, or a file written. Each find is printed with its number;
``--seed N --inputs 1`` shows that one again, and ``--keep DIR`` keeps its movie.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from damaged_movies import make, tries


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    often: Counter[str] = Counter()
    tried, until = 0, time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        seeds, work = Path(folder) / "seeds", Path(folder) / "work"
        seeds.mkdir()
        make(seeds)
        numbers = itertools.takewhile(lambda _: time.monotonic() < until, itertools.count(given.seed))
        for number, find in tries(seeds, work, itertools.islice(numbers, given.inputs)):
            tried += 1
            if find is None:
                continue
            often[find.key] += 1
            if often[find.key] == 1:
                print(f"{number} {find.key}\n  {find.damage}\n{find.told[-2500:]}", flush=True)
                if given.keep is not None:
                    shutil.copytree(work, given.keep / str(number), dirs_exist_ok=True)
    print(f"{tried} inputs, {sum(often.values())} finds of {len(often)} kinds")
    for key, n in often.most_common():
        print(f"{n:6d}  {key}")


if __name__ == "__main__":
    main()
