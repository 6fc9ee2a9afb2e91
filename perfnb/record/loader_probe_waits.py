"""What waiting for data costs the work after it: caches, clocks and, on virtual machines, the host's scheduler go cold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from perfnb.record.machine_probe_timing import quotient

LEAST_US: Final = 1000.0
LARGEST_US: Final = 50_000.0
"""Shorter waits are not looked at; longer ones are taken to cost no more."""

_REPEATS: Final = 12
_WIDTH: Final = 256
_PRODUCTS: Final = 16
_ELEMENTS: Final = 1 << 20


def after_wait(torch: Any, wait_us: float, *, sleep: Callable[[float], Any] = time.sleep) -> dict[str, float]:
    """Time of some milliseconds of products and additions right after a wait, over their time without; nothing for short waits.

    Parameters
    ----------
    torch
        The module.
    wait_us
        How long a batch takes, which is what the training may have to wait for it.
    sleep
        Waits so many seconds.

    Returns
    -------
    dict
        `after_wait_ratio` with `.low`, `.high` (10th and 90th percentile) and `.n`, and `after_wait_us`: the wait.
    """
    if not wait_us >= LEAST_US:
        return {}
    waited = min(wait_us, LARGEST_US)
    left, right = torch.randn(2, _WIDTH, _WIDTH)
    large = torch.randn(_ELEMENTS)

    def work() -> float:
        begin = time.perf_counter()
        for _ in range(_PRODUCTS):
            left @ right
        large.add(1.0)
        return time.perf_counter() - begin

    work()
    cold, warm = [], []
    for _ in range(_REPEATS):
        sleep(waited / 1e6)
        cold.append(work())
        work()
        warm.append(work())
    return {**quotient(cold, warm).named("after_wait_ratio"), "after_wait_us": waited}
