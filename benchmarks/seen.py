"""Counts the pictures that differ on a screen, as a camera pointed at it would; run beside what is measured.

    python benchmarks/seen.py X Y WIDTH HEIGHT SECONDS [--film FOLDER] [--hz 60]

Looks at a part of the screen ($DISPLAY) `--hz` times a second and prints, as JSON: the distinct pictures in
each second, and the longest time for which the picture stood still. `--film` saves the screen once a second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

from qtpy.QtGui import QGuiApplication

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("x", "y", "width", "height"):
        parser.add_argument(name, type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--hz", type=float, default=60.0)
    parser.add_argument("--film", type=Path)
    args = parser.parse_args()
    app = QGuiApplication([])
    screen = app.primaryScreen()
    began = last_change = time.perf_counter()
    per_s, before, stood, looks = [0] * int(args.seconds + 1), b"", 0.0, 0
    while (now := time.perf_counter()) - began < args.seconds:
        image = screen.grabWindow(0, args.x, args.y, args.width, args.height).toImage()
        digest = hashlib.blake2b(bytes(image.constBits())).digest()
        looks += 1
        second = int(now - began)
        if digest != before:
            before = digest
            per_s[second] += 1
            stood, last_change = max(stood, now - last_change), now
            if args.film is not None and per_s[second] == 1:
                args.film.mkdir(parents=True, exist_ok=True)
                screen.grabWindow(0).save(str(args.film / f"{second:03d}.png"))
        time.sleep(max(0.0, began + looks / args.hz - time.perf_counter()))
    print(json.dumps({"per_s": per_s[: int(args.seconds)], "stood_ms": round(1000 * stood), "looks": looks}))
