"""Words of the simulated DataLoader: what a loop yields, what a delivery tells, what handing over costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from perfnb.whatif.shared_cores import Phase

Phases = Sequence[Phase]

NEXT: Final[Phase] = ("next", 0.0)
"""What a training loop written as a generator yields to take its next batch."""


class Delivery(NamedTuple):
    """One entry per step: when its batch came, when the step ended, how long the loop waited for the batch."""

    delivered_us: list[float]
    end_us: list[float]
    wait_us: list[float]


class Costs(NamedTuple):
    """CPU time to start a worker, of the worker before its first batch, to take a batch, to pin one (None: no such thread)."""

    fork_us: float = 0.0
    init_us: float = 0.0
    get_us: float = 0.0
    pin_us: float | None = None
