"""What the ranks of a job exchange in each update, as settings; and what changes of them add to a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ADDED: Final = "exchange_added_us"
"""Name of the estimate of what a changed exchange takes longer than the one of now, in microseconds per exchange."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How gradients are exchanged.

    Attributes
    ----------
    micro_batches
        Backward passes of an update.
    syncs_each
        Whether gradients are exchanged after each of them, not only after the last.
    bucket_cap_mb
        Limit of DDP's buckets, in MiB; None for its default.
    find_unused
        Whether DDP searches for unused parameters.
    compression
        "none", "fp16" or "bf16".
    backend
        Of the process group.
    zero_stage
        What is sharded: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too.
    """

    micro_batches: int = 1
    syncs_each: bool = False
    bucket_cap_mb: float | tuple[float, ...] | None = None
    find_unused: bool = False
    compression: str = "none"
    backend: str = ""
    zero_stage: int = 0

    @property
    def exchanges(self) -> int:
        """Exchanges of all gradients per update."""
        return self.micro_batches if self.syncs_each else 1


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """The exchange of a run before and after changes.

    Attributes
    ----------
    now, after
        The settings.
    exchanged_us
        What exchanging costs each steady step now: the time of the rank that spends least of it with its peers.

    Examples
    --------
    Four exchanges of 10 us each, of which one remains, which takes 2 us longer:

    >>> traffic = Traffic(Setting(4, True), Setting(4, False), np.array([40.0, 40.0]))
    >>> traffic.added_us([0, 1], {ADDED: 2.0})
    -28.0
    """

    now: Setting
    after: Setting
    exchanged_us: Floats

    def added_us(self, rows: Sequence[int], values: Mapping[str, float]) -> float:
        """By how much the mean step becomes longer; exchanging never takes less than no time.

        Parameters
        ----------
        rows
            Steady steps to average over.
        values
            Value of each estimate.
        """
        now_us = float(self.exchanged_us[list(rows)].mean())
        after_us = self.after.exchanges * (now_us / self.now.exchanges + values.get(ADDED, 0.0))
        return max(after_us, 0.0) - now_us
