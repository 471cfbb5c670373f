"""The report's drawings as SVG, and how the page looks on a screen and on A4."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from napari_rbcflow.estimate import RunningFraction

# Okabe and Ito's blue and vermilion: told apart by the colour-blind, and in grey by their lightness.
TANK_TREADING_COLOUR = "#0072b2"
FLIPPING_COLOUR = "#d55e00"
_AXIS = 'stroke="#888" stroke-width="1"'
_GRID = 'stroke="#e4e4e4" stroke-width="1"'
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 36
_MOST_POINTS = 240


def curve(
    tank_treading: NDArray[np.bool_],
    level: float,
    said: tuple[float, float] | None = None,
    *,
    width: int = 420,
    height: int = 210,
) -> str:
    """Draw the fraction as cells were counted, with the anytime interval of each moment as a band.

    That is the one that was shown while the run went on.

    Parameters
    ----------
    tank_treading : ndarray of bool, shape (n,)
        The counted cells in the order in which they were counted, n > 0.
    level : float
    said : (float, float), optional
        The interval said in the end: a bar behind the last cell.
    width, height : int
        In CSS pixels.
    """
    n = len(tank_treading)
    at = np.unique(np.linspace(1, n, min(n, _MOST_POINTS)).round().astype(int))
    hits = np.cumsum(tank_treading)[at - 1]
    fraction, drawn = RunningFraction(level), set(at.tolist())
    looks = []
    for tank in tank_treading.tolist():
        fraction.update(tank_treading=int(tank), flipping=int(not tank))
        if fraction.n in drawn:
            looks.append(fraction.anytime_interval())
    band = np.array(looks)
    inner_w, inner_h = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def place(cells: NDArray[np.int64], values: NDArray[np.float64]) -> str:
        x = _LEFT + inner_w * (cells / n)
        y = _TOP + inner_h * (1 - values)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + inner_h * (1 - tick)
        parts.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {_GRID}/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
    for tick in _ticks(n):
        x = _LEFT + inner_w * tick / n
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle">{tick}</text>')
    outline = place(at, band[:, 1]) + " " + " ".join(reversed(place(at, band[:, 0]).split()))
    parts.append(f'<polygon points="{outline}" fill="{TANK_TREADING_COLOUR}" fill-opacity="0.18"/>')
    parts.append(
        f'<polyline points="{place(at, hits / at)}" fill="none" stroke="{TANK_TREADING_COLOUR}"'
        ' stroke-width="2" stroke-linejoin="round"/>'
    )
    if said is not None:
        low, high = (_TOP + inner_h * (1 - end) for end in said)
        x = width - _RIGHT + 4
        parts.append(
            f'<path d="M{x - 3} {low:.1f}h6M{x} {low:.1f}V{high:.1f}M{x - 3} {high:.1f}h6"'
            ' stroke="#111" stroke-width="2" fill="none"/>'
        )
    parts.append(_x_axis("cells counted", width, height))
    return _svg(parts, width, height, f"The fraction while the {n} cells were counted, with its interval")


def histogram(
    speeds: Sequence[tuple[str, str, NDArray[np.float64]]], unit: str, *, width: int = 420, height: int = 210
) -> str:
    """Draw stacked bars of how many cells lie where.

    Parameters
    ----------
    speeds : sequence of (name, colour, values)
        Stacked from the bottom. At least one value in all.
    unit : str
        What the axis says.
    width, height : int
        In CSS pixels.
    """
    every = np.concatenate([values for _, _, values in speeds])
    low, high = np.percentile(every, (0, 99))
    # The highest hundredth goes into the last bar: one wrong speed must not squeeze all others.
    edges = np.linspace(low, max(high, low + 1.0), 25)
    inner_w, inner_h = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for _, _, values in speeds]
    tallest = int(np.max(np.sum(counts, axis=0)))
    parts = []
    for tick in (0, *_ticks(tallest)):
        y = _TOP + inner_h * (1 - tick / tallest)
        parts.append(f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {_GRID}/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    bar = inner_w / (len(edges) - 1)
    below = np.zeros(len(edges) - 1)
    for (_, colour, _), count in zip(speeds, counts, strict=True):
        for i in np.flatnonzero(count).tolist():
            x, top = _LEFT + i * bar, _TOP + inner_h * (1 - (below[i] + count[i]) / tallest)
            parts.append(
                f'<rect x="{x + 0.5:.1f}" y="{top:.1f}" width="{bar - 1:.1f}"'
                f' height="{inner_h * count[i] / tallest:.1f}" fill="{colour}"/>'
            )
        below += count
    step = _nice((edges[-1] - edges[0]) / 5)
    tick = np.ceil(edges[0] / step) * step
    while tick <= edges[-1]:
        x = _LEFT + inner_w * (tick - edges[0]) / (edges[-1] - edges[0])
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle">{tick:g}</text>')
        tick += step
    parts.append(_x_axis(unit, width, height))
    named = ", ".join(f"{name} {len(values)}" for name, _, values in speeds)
    return _svg(parts, width, height, f"How many cells at what speed: {named}")


def _ticks(most: int) -> list[int]:
    step = max(1, int(_nice(most / 4)))
    return list(range(step, most + 1, step))


def _nice(step: float) -> float:
    """Round a step up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(power * m for m in (1, 2, 5, 10) if power * m >= step * 0.999))


def _x_axis(label: str, width: int, height: int) -> str:
    y = height - _BOTTOM
    return (
        f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y}" y2="{y}" {_AXIS}/>'
        f'<text x="{(width + _LEFT - _RIGHT) / 2:.0f}" y="{height - 4}" text-anchor="middle">'
        f"{escape(label)}</text>"
    )


def _svg(parts: Sequence[str], width: int, height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


STYLE = """
@page { size: A4; margin: 11mm 13mm; }
* { box-sizing: border-box; }
body { font: 14px/1.4 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1a1a1a;
  background: #fff; max-width: 880px; margin: 0 auto; padding: 18px;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
header { display: flex; justify-content: space-between; align-items: flex-end; gap: 16px;
  border-bottom: 2px solid #1a1a1a; margin-bottom: 12px; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; }
header > p { margin: 0 0 6px; color: #555; text-align: right; }
.kicker { margin: 0; color: #555; }
h2 { font-size: 14px; margin: 0 0 4px; }
p { margin: 0 0 6px; }
.warnings { list-style: none; margin: 0 0 12px; padding: 0; }
.warnings li { padding: 7px 12px; margin-bottom: 5px; border-left: 7px solid; overflow-wrap: anywhere; }
.warnings .grave { background: #fde8e4; border-color: #b3261e; font-size: 16px; }
.warnings .mild { background: #fff6da; border-color: #d9a400; }
.top { display: flex; gap: 26px; align-items: center; margin-bottom: 10px; }
.number { flex: 0 0 312px; border: 2px solid #0072b2; border-radius: 8px; padding: 10px 16px;
  text-align: center; }
.number.doubtful { border: 3px solid #b3261e; }
.number .doubt { color: #b3261e; font-weight: 700; margin-top: 6px; }
.number p { margin: 0; color: #444; }
.number .big { font-size: 62px; font-weight: 700; line-height: 1.1; color: #111; }
.number .none { font-size: 44px; color: #b3261e; }
.number .interval { font-size: 25px; margin-top: 4px; color: #111; }
.number.doubtful .big:not(.none), .number.doubtful .interval, .number.doubtful .corrected b,
.number .few b { color: #999; }
.number .corrected { margin-top: 6px; padding-top: 6px; border-top: 1px solid #ccc; font-size: 13px; }
.pair { display: flex; gap: 20px; }
figure { flex: 1 1 0; margin: 0 0 10px; min-width: 0; }
figure svg { width: 100%; height: auto; font: 11px system-ui, Arial, sans-serif; fill: #444; }
figcaption { font-size: 12px; color: #555; }
.key { display: inline-block; width: 10px; height: 10px; margin: 0 3px 0 4px; }
.three { display: flex; gap: 22px; margin-bottom: 8px; }
.three > div { flex: 1 1 0; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { font-weight: 400; color: #777; text-align: right; padding-left: 8px; }
th:first-child { text-align: left; padding: 0; }
td { padding: 2px 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
td + td { text-align: right; white-space: nowrap; padding-left: 8px; font-variant-numeric: tabular-nums; }
.three > .quality { flex: 1.7 1 0; }
.quality td + td + td { color: #777; font-size: 12px; }
.quality .mild td { background: #fff6da; } .quality .grave td { background: #fde8e4; font-weight: 600; }
.how { font-size: 13px; border-top: 1px solid #999; padding-top: 6px; }
.watched { display: flex; gap: 22px; margin-bottom: 8px; font-size: 13px; }
.watched > div { flex: 1 1 0; } .watched p { margin: 0 0 4px; }
.small, footer { font-size: 11px; color: #555; overflow-wrap: anywhere; }
footer { border-top: 1px solid #999; padding-top: 4px; }
@media (max-width: 640px) { .top, .pair, .three, .watched { flex-direction: column; align-items: stretch; } }
@media print { body { padding: 0; font-size: 11px; line-height: 1.32; max-width: none; }
  .small, footer { font-size: 8.5px; } h1 { font-size: 18px; } h2 { font-size: 12px; }
  .warnings li { padding: 4px 10px; margin-bottom: 3px; } .warnings .grave { font-size: 12.5px; }
  .number { flex-basis: 250px; } .number .big { font-size: 48px; } .number .interval { font-size: 21px; }
  .quality td + td + td { font-size: 9px; } .three td { padding-top: 1px; padding-bottom: 1px; }
  table, .how, .number.doubtful .big:not(.none), .number.doubtful .interval, .number.doubtful .corrected b,
.number .few b { color: #999; }
.number .corrected { font-size: 10.5px; } figcaption { font-size: 10px; }
  .watched, .watched table { font-size: 9.5px; margin-bottom: 3px; } .watched p { margin-bottom: 2px; }
  .watched td { padding: 0; } .pair svg { max-height: 118px; }
  section, figure, table { break-inside: avoid; } }
"""
