"""The largest batch that fits, with a margin: bisected on the high end of what a dry run predicts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from tqdm.auto import tqdm

from perfnb.prediction import Unknown
from perfnb.whatif.dry_run import MemoryEstimate, MemoryModel

MARGIN_SHARE: Final = 0.05
"""Of the usable memory that stays free; a prior: what cuBLAS and other libraries take (memory note, section 6) and holes."""

MOST: Final = 1 << 20
_MOST_RUNS: Final = 60


@dataclass(frozen=True, slots=True, eq=False)
class LargestBatch:
    """The largest batch that fits.

    Attributes
    ----------
    batch_size
        Samples of a micro-batch; 0 where not even the smallest fits.
    estimate
        The memory with it; with the smallest batch where none fits.
    limit_bytes
        Usable memory less the margin: what the high end of the estimate stays under.
    is_at_least
        Whether the search ended at its own limit, so that larger ones may fit.
    tried
        One row per batch that was looked at: batch_size, peak_bytes, low_bytes, high_bytes, reserved_bytes, level, fits.
    """

    batch_size: int
    estimate: MemoryEstimate
    limit_bytes: int
    is_at_least: bool
    tried: pd.DataFrame


def largest_batch(
    model: MemoryModel,
    usable_bytes: int,
    changes: Mapping[str, Any] | None = None,
    *,
    margin_share: float = MARGIN_SHARE,
    multiple_of: int = 1,
    most: int = MOST,
) -> LargestBatch | Unknown:
    """The largest batch whose memory stays under the usable bytes less a margin, at the high end of its 80 % interval.

    The batch doubles until it does not fit, then the gap is halved. It takes about 2 x log2 of the batch dry runs.

    Parameters
    ----------
    model
        `perfnb.MemoryModel(...)` of the training.
    usable_bytes
        Memory of the device less what its context and other processes hold (`torch.cuda.mem_get_info()`).
    changes
        Other knobs that change with it, such as `{"activation_checkpointing": "full"}`.
    margin_share
        Share of the usable bytes that stays free.
    multiple_of
        Only batches that this divides are tried: 8 for tensor cores.
    most
        Largest batch to try.

    Returns
    -------
    LargestBatch or Unknown
        Unknown where the dry run cannot be made.
    """
    if not 0.0 <= margin_share < 1.0 or multiple_of < 1 or most < multiple_of:
        message = "margin_share is from 0 up to 1, multiple_of at least 1 and at most `most`"
        raise ValueError(message)
    limit = int(usable_bytes * (1.0 - margin_share))
    found: dict[int, MemoryEstimate] = {}

    def fits(parts: int) -> bool | Unknown:
        size = parts * multiple_of
        made = model.estimate({**(changes or {}), "batch_size": size})
        if isinstance(made, Unknown):
            return made
        found[size] = made
        progress.update()
        return needed_bytes(made) <= limit

    highest = most // multiple_of
    with tqdm(desc="batch sizes", leave=False, disable=not sys.stderr.isatty(), total=None) as progress:
        good, bad, parts = 0, highest + 1, 1
        while parts < bad and len(found) < _MOST_RUNS:
            fitting = fits(parts)
            if isinstance(fitting, Unknown):
                return fitting
            good, bad = (parts, bad) if fitting else (good, parts)
            parts = min(2 * parts, highest) if good < highest else bad
        while bad - good > 1:
            middle = (good + bad) // 2
            fitting = fits(middle)
            if isinstance(fitting, Unknown):
                return fitting
            good, bad = (middle, bad) if fitting else (good, middle)
    best = good * multiple_of
    rows = [
        (size, one.peak_bytes, one.low_bytes, one.high_bytes, one.reserved_bytes, one.level, needed_bytes(one) <= limit)
        for size, one in sorted(found.items())
    ]
    names = ["batch_size", "peak_bytes", "low_bytes", "high_bytes", "reserved_bytes", "level", "fits"]
    tried = pd.DataFrame(rows, columns=names).astype({"reserved_bytes": "Int64"})
    return LargestBatch(best, found[best or multiple_of], limit, good == highest, tried)


def needed_bytes(estimate: MemoryEstimate) -> int:
    """What has to be there for a training to be safe: the high end of its peak, or what the allocator would reserve for it."""
    return max(estimate.high_bytes, estimate.reserved_bytes or 0)
