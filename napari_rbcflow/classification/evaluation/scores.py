"""Scores of a two-class judgement, with the counts behind them.

Bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Calibration: Platt,
Advances in Large Margin Classifiers (1999) 61; Lin, Lin and Weng, Machine Learning 68 (2007) 267.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 1000  # of drawing anew


@dataclass(frozen=True)
class Counts:
    """The confusion counts of two classes."""

    true_negative: int
    false_positive: int
    false_negative: int
    true_positive: int

    @classmethod
    def of(cls, truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> Counts:
        """Count; both arrays hold 1 for the positive class, otherwise 0."""
        truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
        return cls(
            int((~truth & ~predicted).sum()),
            int((~truth & predicted).sum()),
            int((truth & ~predicted).sum()),
            int((truth & predicted).sum()),
        )

    @property
    def n(self) -> int:
        return self.true_negative + self.false_positive + self.false_negative + self.true_positive

    @property
    def confusion(self) -> list[list[int]]:
        """Rows true, columns predicted, negative class first."""
        return [[self.true_negative, self.false_positive], [self.false_negative, self.true_positive]]

    @property
    def accuracy(self) -> float | None:
        return _share(self.true_positive + self.true_negative, self.n)

    @property
    def precision(self) -> float | None:
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def leak(self) -> float | None:
        """Share of the negative class that passes: the false positive rate."""
        return _share(self.false_positive, self.false_positive + self.true_negative)

    @property
    def balanced_accuracy(self) -> float | None:
        if self.recall is None or self.leak is None:
            return None
        return (self.recall + 1 - self.leak) / 2

    @property
    def f1(self) -> float | None:
        return _share(
            2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative
        )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def auc(truth: NDArray[np.int64], p: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, the Mann-Whitney statistic over the number of pairs.

    Ties count half; None if a class is missing.
    """
    truth, p = np.asarray(truth, bool), np.asarray(p, np.float64)
    positive, negative = p[truth], np.sort(p[~truth])
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(negative, positive, "left")
    up_to = np.searchsorted(negative, positive, "right")
    return float((below + up_to).sum() / 2 / (len(positive) * len(negative)))


def bootstrap(
    truth: NDArray[np.int64],
    p: NDArray[np.float64],
    score: Callable[[NDArray[np.int64], NDArray[np.float64]], float | None],
) -> tuple[float, float] | None:
    """95 % bootstrap percentile interval of a score, each class resampled alone; None if one is missing."""
    truth, p = np.asarray(truth, bool), np.asarray(p, np.float64)
    positive, negative = p[truth], p[~truth]
    if not len(positive) or not len(negative):
        return None
    rng = np.random.default_rng(0)
    values = []
    both = np.concatenate([np.ones(len(positive), np.int64), np.zeros(len(negative), np.int64)])
    for _ in range(_ROUNDS):
        drawn = [rng.choice(of, len(of), replace=True) for of in (positive, negative)]
        values.append(score(both, np.concatenate(drawn)))
    low, high = np.quantile(np.asarray(values, np.float64), [0.025, 0.975])
    return float(low), float(high)


def threshold_at_leak(truth: NDArray[np.int64], p: NDArray[np.float64], leak: float) -> float:
    """Lowest threshold, to four decimals, at which at most the share `leak` of the negatives passes.

    1.0001 if even a probability of 1 would let too many pass; 0.5 if there are no negatives.
    """
    negative = np.sort(np.round(np.asarray(p, np.float64)[~np.asarray(truth, bool)], 4))
    if not len(negative):
        return 0.5
    allowed = int(np.floor(leak * len(negative) + 1e-9))
    if allowed >= len(negative):
        return 0.0
    return round(float(negative[len(negative) - 1 - allowed]) + 1e-4, 4)


def at_prevalence(recall: float, leak: float, prevalence: float) -> float | None:
    """Precision if the share `prevalence` of all is positive."""
    passed = prevalence * recall + (1 - prevalence) * leak
    return prevalence * recall / passed if passed else None


def calibrate(
    truth: NDArray[np.int64],
    logits: NDArray[np.float64],
    shortness: NDArray[np.float64] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> tuple[float, float, float]:
    """Fit Platt's calibration by Newton's method with his regularised targets, and the effect of shortness.

    Returns slope, offset, and what to subtract before these from the logit of a sequence of shortness 1,
    never negative. If the logits order the cells no better than chance, the slope is 0: every cell gets the
    share of the positive class as its probability; a negative slope would not make the logits right.
    """
    shortness = np.zeros(len(logits)) if shortness is None else shortness
    weights = np.ones(len(logits)) if weights is None else weights
    truth, logits = np.asarray(truth, bool), np.asarray(logits, np.float64)
    n_positive, n_negative = float(weights[truth].sum()), float(weights[~truth].sum())
    if not n_positive or not n_negative:
        return 1.0, 0.0, 0.0
    wanted = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    columns = [logits, np.ones_like(logits)]
    if shortness.any():
        columns.append(-shortness)
    found = _logistic(np.stack(columns, 1), wanted, weights)
    if len(found) == 3 and not found[2] > 0:
        found = _logistic(np.stack(columns[:2], 1), wanted, weights)
    if not found[0] > 0:
        return 0.0, float(np.log(n_positive / n_negative)), 0.0
    return float(found[0]), float(found[1]), float(found[2] / found[0]) if len(found) == 3 else 0.0


def _logistic(
    design: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit a logistic regression by Newton's method."""

    def loss(at: NDArray[np.float64]) -> float:
        z = design @ at
        return float(np.sum(weights * (np.logaddexp(0, z) - wanted * z)))

    found = np.zeros(design.shape[1])
    found[0] = 1.0
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ found, -60, 60)))
        gradient = design.T @ (weights * (p - wanted))
        hessian = design.T @ (design * (weights * p * (1 - p))[:, None]) + 1e-9 * np.eye(len(found))
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and loss(found - size * step) > loss(found) + 1e-12:
            size /= 2
        found = found - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return found


def calibration_error(truth: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """Expected calibration error over ten equally wide bins."""
    truth, p = np.asarray(truth, np.float64), np.asarray(p, np.float64)
    which = np.minimum((p * 10).astype(int), 9)
    total = 0.0
    for b in range(10):
        inside = which == b
        if inside.any():
            total += abs(float(truth[inside].mean() - p[inside].mean())) * int(inside.sum())
    return total / max(1, len(p))


def perfect_calibration_error(p: NDArray[np.float64]) -> float:
    """The 97.5th percentile of the calibration error if every probability in `p` were right."""
    rng = np.random.default_rng(0)
    p = np.asarray(p, np.float64)
    drawn = [calibration_error((rng.random(len(p)) < p).astype(np.int64), p) for _ in range(_ROUNDS)]
    return float(np.quantile(drawn, 0.975))
