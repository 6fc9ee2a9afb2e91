"""Logistic fits without a library: standardised L2 logistic regression by Newton's method, Platt's line, and what scores them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEPS: Final = 50


def logistic(values: Floats, truth: Floats, weights: Floats | None = None, *, strength: float = 0.0) -> Floats:
    """Coefficients of a logistic regression, the intercept last: least sum of weighted log losses plus a penalty.

    Parameters
    ----------
    values
        Features, one row per case.
    truth
        0 or 1 per case.
    weights
        Weight per case; 1 by default.
    strength
        Half of it times the squared coefficients is added, the intercept left out: 1/C of scikit-learn.
    """
    rows = np.column_stack([values, np.ones(len(values))])
    weight = np.ones(len(rows)) if weights is None else weights
    penalty = np.full(rows.shape[1], strength)
    penalty[-1] = 0.0
    found = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        chance = sigmoid(rows @ found)
        slope = rows.T @ (weight * (chance - truth)) + penalty * found
        curved = (rows * (weight * np.maximum(chance * (1.0 - chance), 1e-10))[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curved + 1e-12 * np.eye(len(curved)), slope)
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))  # far steps of Newton's method overshoot
        found = found - step
        if float(np.abs(step).max()) < 1e-10:  # noqa: PLR2004 - converged
            break
    return found


def score_weights(values: Floats, truth: Floats, inverse_strength: float = 0.3) -> dict[str, Any]:
    """Weights of `perfnb.training.curve_score.score`: standardised features, C = 0.3."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    found = logistic((values - mean) / scale, truth, strength=1.0 / inverse_strength)
    return {"mean": mean.tolist(), "scale": scale.tolist(), "weight": found[:-1].tolist(), "intercept": float(found[-1])}


def sigmoid(values: Floats) -> Floats:
    """Logistic function."""
    made: Floats = 1.0 / (1.0 + np.exp(-np.clip(values, -50.0, 50.0)))
    return made


def area_under_curve(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """Chance that a true case has a higher score than a false one; ties count half."""
    order = np.unique(scores, return_inverse=True)[1]
    high = np.bincount(order[truth], minlength=order.max() + 1)
    low = np.bincount(order[~truth], minlength=order.max() + 1)
    below = np.concatenate([[0], np.cumsum(low)[:-1]])
    return float((high * (below + low / 2.0)).sum() / (truth.sum() * (~truth).sum()))


def calibration_error(chance: Floats, truth: NDArray[np.bool_], weights: Floats | None = None, bins: int = 10) -> float:
    """Expected calibration error: over ten equal bins of the probability, the weighted mean of |mean chance - share true|."""
    weight = np.ones(len(chance)) if weights is None else weights
    place = np.minimum((chance * bins).astype(int), bins - 1)
    gap = np.bincount(place, weight * (chance - truth), minlength=bins)
    return float(np.abs(gap).sum() / weight.sum())


def over_problems(values: dict[str, list[float]], draws: int = 2_000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over all cases with its 80 % interval: problems are drawn anew, each with all of its cases."""
    sums = np.array([[sum(cases), len(cases)] for cases in values.values()], dtype=np.float64)
    random = np.random.default_rng(seed)
    drawn = sums[random.integers(0, len(sums), (draws, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.1, 0.9))
    return float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high)
