"""What work takes right after the training loop has waited: caches and clocks have gone cold, and longer waits cost more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfnb.whatif.loader_terms import NEXT, Phases
from perfnb.whatif.shared_cores import Actor

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cooling:
    """How much longer work takes after a wait; a straight line from no wait up to the one that was probed, flat from there.

    Attributes
    ----------
    ratio
        Time of work right after that wait over its time without; 1 or more.
    wait_us
        The wait that was probed.
    """

    ratio: float
    wait_us: float

    def factor(self, waited_us: float) -> float:
        """Time of work after a wait over its time without.

        Examples
        --------
        >>> Cooling(1.2, 10_000.0).factor(5_000.0)
        1.1
        """
        return 1.0 + (self.ratio - 1.0) * min(max(waited_us / self.wait_us, 0.0), 1.0)

    def factors(self, waited_us: Floats) -> Floats:
        """The same of many waits."""
        return factors(waited_us, self.ratio, self.wait_us)


def factors(waited_us: Floats, ratio: Floats | float, wait_us: Floats | float) -> Floats:
    """`Cooling.factor` of many waits, each with a cooling of its own or all with one."""
    found: Floats = 1.0 + (ratio - 1.0) * np.minimum(np.maximum(waited_us / wait_us, 0.0), 1.0)
    return found


def cooling_loop(
    steps: Sequence[Phases], recorded_us: Sequence[float], cooling: Cooling, *, taking_us: float = 0.0, share: float = 1.0
) -> Callable[[], Actor]:
    """The training loop whose work takes longer the longer it has just waited for its batch.

    Parameters
    ----------
    steps
        Phases of each step as recorded.
    recorded_us
        How long each of them waited for its batch when it was recorded.
    cooling
        What waiting costs.
    taking_us
        Of the time until a batch is there, what taking it out of the queue is: work, no wait.
    share
        Of the rest, what is waiting: 1 beside workers, less where the loop loads for itself.
    """

    def loop() -> Actor:
        now = yield "until", 0.0
        while True:
            for phases, recorded in zip(steps, recorded_us, strict=True):
                asked = now
                now = yield NEXT
                scale = cooling.factor(share * (now - asked - taking_us)) / cooling.factor(recorded)
                for kind, amount in phases:
                    now = yield kind, amount * (scale if kind == "cpu" else 1.0)

    return loop
