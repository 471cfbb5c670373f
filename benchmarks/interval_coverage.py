"""How often each interval holds the true fraction, and how many cells it takes: tables and a picture.

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py --picture docs/img/coverage.png

plays 10,000 runs for each of five fractions, stopped at a half-width of 0.05 and of 0.03 or at 2,000 cells;
and 2,000 runs, the networks' rates counted anew in each, for each of 480 corners of what the networks may
be like. Some ten minutes on one core; `--quick` plays a few hundred. The picture needs matplotlib, which
the extra `peers` brings; the tables need nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent / "covering")
    from coverage_study import main

    main(__doc__ or "")
