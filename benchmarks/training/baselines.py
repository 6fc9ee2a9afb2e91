"""What the product is held against: the fixed rule that halves the rate, kept out of the package."""

from __future__ import annotations

import numpy as np

from benchmarks.training.data import Floats

FALLING_SHARE = 0.3
"""The rule's own number: fewer falling changes than this."""


def halving_rule(losses: Floats) -> bool:
    """Fewer than 30 % of the changes of the loss fall and their mean is above zero: the rule says to halve the rate.

    Examples
    --------
    >>> halving_rule(np.array([1.0, 2.0, 3.0])), halving_rule(np.array([3.0, 2.0, 1.0]))
    (True, False)
    """
    changes = np.diff(losses[np.isfinite(losses)])
    return len(changes) > 0 and bool((changes < 0).mean() < FALLING_SHARE and changes.mean() > 0)


def halving_alarms(losses: Floats, window: int) -> tuple[int, int]:
    """Windows of a curve, one after the other, on which the rule fires, and how many there are."""
    pieces = [losses[start : start + window] for start in range(0, len(losses) - window + 1, window)]
    return sum(halving_rule(piece) for piece in pieces), len(pieces)
