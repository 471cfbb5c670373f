"""Draws what coverage.py found; needs matplotlib, which the extra `peers` brings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from coverage_corrected import Result
from coverage_raw import Outcome

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

# Okabe and Ito's: told apart by the colour-blind.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555"
_RULES = {
    "wilson, stopped by the baseline": (
        VERMILION,
        "s",
        "Wilson, stopped when it excludes the patient's own baseline",
    ),
    "wilson, stopped by its width": (PURPLE, "v", "Wilson, stopped by its own width"),
    "fixed-width": (BLUE, "o", "fixed-width interval at its stop"),
    "anytime, every look": (GREEN, "D", "anytime interval, every look at once"),
}


def draw(
    raw: Sequence[Outcome],
    corrected: Sequence[Result],
    rivals: Mapping[str, Sequence[Result]],
    asked: Mapping[float, float],
    asked_anytime: float,
    corridor: tuple[float, float],
    out: Path,
) -> None:
    """Draw the four things that the tables say.

    `asked` is the most cells of the fixed-width interval at each fraction, as a share of Wilson's.
    """
    figure, axes = pyplot.subplots(2, 2, figsize=(13.5, 10), dpi=100, layout="constrained")
    _coverage(axes[0, 0], raw)
    _cells(axes[0, 1], raw, asked, asked_anytime)
    _corrected(axes[1, 0], corrected, corridor)
    _rivals(axes[1, 1], rivals, corridor)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)


def _coverage(ax: Axes, raw: Sequence[Outcome]) -> None:
    fractions = list(dict.fromkeys(o.p for o in raw))
    wanted = max(o.wanted for o in raw if not math.isnan(o.wanted))
    at = np.arange(len(fractions))
    for shift, (rule, (colour, mark, said)) in zip((-0.15, -0.05, 0.05, 0.15), _RULES.items(), strict=True):
        own = [o for o in raw if o.rule == rule and (math.isnan(o.wanted) or o.wanted == wanted)]
        y, e = [100 * o.coverage for o in own], [200 * o.error for o in own]
        ax.errorbar(at + shift, y, e, fmt=mark, color=colour, label=said, ms=7, capsize=3)
    ax.axhline(95, color=GREY, lw=1, ls="--")
    _fractions(ax, fractions)
    ax.set_ylabel("runs whose interval holds it, % (bars: ±2 standard errors)")
    ax.set_ylim(45, 101.5)
    ax.legend(loc="center left", bbox_to_anchor=(0.02, 0.58), frameon=False)
    ax.set_title(f"95 % intervals that are looked at after every cell, half-width {wanted:g}", loc="left")


def _cells(ax: Axes, raw: Sequence[Outcome], asked: Mapping[float, float], asked_anytime: float) -> None:
    fractions = list(dict.fromkeys(o.p for o in raw))
    at = np.arange(len(fractions))
    for rule, colour, mark, said in (
        ("anytime, every look", GREEN, "D", "anytime"),
        ("fixed-width", BLUE, "o", "fixed-width"),
    ):
        widths = sorted({o.wanted for o in raw if o.rule == rule}, reverse=True)
        for wanted, face in zip(widths, (colour, "white"), strict=False):
            own = [o for o in raw if o.rule == rule and o.wanted == wanted]
            y = [o.cells / o.needed for o in own]
            label = f"{said}, half-width {wanted:g}"
            ax.plot(at, y, mark, ls="-", lw=1, color=colour, mfc=face, ms=7, label=label)
            for x, o in zip(at, own, strict=True):
                if o.unreached > 0.01:
                    share = f"{100 * o.unreached:.0f} % end\nat 2,000\ncells, wider"
                    ax.text(
                        x, o.cells / o.needed - 0.05, share, va="top", ha="center", fontsize=8, color=GREY
                    )
    for x, p in zip(at, fractions, strict=True):
        ax.plot([x - 0.25, x + 0.25], [asked[p]] * 2, color=BLUE, lw=3, alpha=0.4)
        if p >= 0.7:
            ax.plot([x - 0.25, x + 0.25], [asked_anytime] * 2, color=GREEN, lw=3, alpha=0.4)
    ax.plot([], [], color=GREY, lw=3, alpha=0.4, label="asked: at most")
    _fractions(ax, fractions)
    ax.set_ylabel("cells in the mean, as a share of Wilson's with the fraction known")
    ax.set_ylim(0.9, 3.2)
    ax.legend(loc="upper left", frameon=False, ncols=2)
    ax.set_title("What that costs in cells", loc="left")


def _corrected(ax: Axes, found: Sequence[Result], corridor: tuple[float, float]) -> None:
    ax.axhspan(100 * corridor[0], 100 * corridor[1], color=GREY, alpha=0.15, lw=0)
    labels = sorted({r.corner.labelled for r in found})
    leaks = sorted({r.corner.leak for r in found})
    least = min(100 * r.coverage for r in found)
    for i, labelled in enumerate(labels):
        for j, (leak, colour) in enumerate(zip(leaks, (BLUE, GREEN, VERMILION), strict=False)):
            own = [r for r in found if r.corner.labelled == labelled and r.corner.leak == leak]
            x = i + 0.29 * (j - 1) + np.linspace(-0.11, 0.11, len(own))
            label = f"leak {leak:g}" if not i else None
            y = [100 * r.coverage for r in own]
            ax.plot(x, y, "o", color=colour, ms=3.5, alpha=0.7, label=label)
            shown = 100 * float(np.mean([r.shown for r in own]))
            ax.text(i + 0.29 * (j - 1), least - 0.85, f"{shown:.0f}", color=colour, ha="center")
    ax.text(-0.45, least - 0.45, "runs narrow enough that a number is said, %:", color=GREY)
    ax.text(len(labels) - 0.55, 100 * corridor[1] - 0.3, "asked", color=GREY, ha="right")
    ax.set_xticks(range(len(labels)), [f"{n:,}" for n in labels])
    ax.set_xlabel("labelled sequences behind each of the networks' rates")
    ax.set_ylabel("runs whose interval holds the true fraction, %")
    ax.set_ylim(least - 1.0, 101.2)
    ax.set_yticks(range(math.ceil(least - 1), 101))
    ax.legend(loc="upper right", frameon=False, ncols=3)
    ax.set_title("Corrected for the networks' errors: a dot a corner of the grid", loc="left")


def _rivals(ax: Axes, rivals: Mapping[str, Sequence[Result]], corridor: tuple[float, float]) -> None:
    ax.axvspan(100 * corridor[0], 100 * corridor[1], color=GREY, alpha=0.15, lw=0)
    for i, (name, results) in enumerate(rivals.items()):
        colour = BLUE if name.startswith("ours") else GREY
        y = i + np.linspace(-0.25, 0.25, len(results))
        ax.plot([100 * r.coverage for r in results], y, "o", color=colour, ms=3.5, alpha=0.7)
    ax.set_yticks(range(len(rivals)), [_wrapped(n, r) for n, r in rivals.items()])
    ax.invert_yaxis()
    ax.set_xlim(0, 101)
    ax.text(100 * corridor[0] - 1, len(rivals) - 0.6, "asked", color=GREY, ha="right")
    ax.set_xlabel("runs whose corrected interval holds the true fraction, %; a dot a corner")
    ax.set_title("Ways to a corrected interval, on a part of the grid", loc="left")


def _fractions(ax: Axes, fractions: Sequence[float]) -> None:
    ax.set_xticks(np.arange(len(fractions)), [f"{p:g}" for p in fractions])
    ax.set_xlabel("true fraction")


def _wrapped(name: str, results: Sequence[Result]) -> str:
    lines = [""]
    for word in name.split():
        if len(lines[-1]) + len(word) > 26:
            lines.append("")
        lines[-1] += ("" if not lines[-1] else " ") + word
    width = sum(r.width for r in results) / len(results)
    return "\n".join([*lines, f"mean width {width:.2f}"])
