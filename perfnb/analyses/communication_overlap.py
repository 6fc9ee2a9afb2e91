"""How much communication is hidden behind computing, and how much is exposed."""

from __future__ import annotations

from typing import Final, Literal

import pandas as pd

from perfnb.categories import matching
from perfnb.device_time import device_breakdown
from perfnb.run import Run

_MARKS: Final = r"^c10d::|^_c10d_functional::|^record_param_comms$|^nccl:"  # torch.distributed on the host
_LONGEST_KERNELS: Final = 5


def communication_overlap(run: Run, by: Literal["window", "step"] = "window") -> pd.DataFrame:
    """Communication of each device that runs while it computes.

    Parameters
    ----------
    run
        A run with device ops.
    by
        "window": the whole recording. "step": the device steps of `perfnb.device_breakdown`.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device) or (rank, device, step): communication_us (union of communication), overlapped_us (of it,
        while compute kernels run), exposed_communication_us (the rest), overlap_share (overlapped_us of communication_us; NA
        without communication) and reason: why a value is NA, else NA. Where a rank of a distributed job shows no communication
        at all, its times are NA, not 0: its library was not recognised. device -1 stands for ops whose device is not known.

    Raises
    ------
    PerfnbError
        If `by` is neither "window" nor "step".

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind          name start_us duration_us
    ...                                       0    0      7      compute       gemm 0        6
    ...                                       0    0      20     communication nccl 4        8''',
    ... )
    >>> communication_overlap(Run(device_ops=ops)).iloc[0, 2:6].to_list()
    [8.0, 2.0, 6.0, 0.25]
    """
    times = ["communication_us", "overlapped_us", "exposed_communication_us"]
    found = device_breakdown(run, by)
    found = found.assign(
        overlapped_us=(found["communication_us"] - found["exposed_communication_us"]).clip(lower=0.0),
        reason=found["rank"].map(_unrecognised(run)).astype("string"),
    )
    found = found.astype(dict.fromkeys(times, "Float64"))
    found = found.assign(**{name: found[name].mask(found["reason"].notna()) for name in times})
    some = found["communication_us"].gt(0).fillna(value=False)
    share = (found["overlapped_us"] / found["communication_us"].where(some)).astype("Float64")
    reason = found["reason"].mask(found["reason"].isna() & ~some, "this device did not communicate")
    keys = [name for name in ("rank", "device", "step") if name in found]
    return found.assign(overlap_share=share, reason=reason)[[*keys, *times, "overlap_share", "reason"]]


def _unrecognised(run: Run) -> dict[int, str]:
    """Why a rank's communication is not known, for the ranks of which no call was recognised though there must be some."""
    marked = run.host_ops.loc[matching(run.host_ops["name"], _MARKS), "rank"]
    communicates = set(run.device_ops.loc[run.device_ops["kind"].eq("communication"), "rank"]) | set(run.collectives["rank"])
    reasons = {}
    for rank in run.ranks:
        distributed = run.world_size > 1 if run.world_size is not None else rank in set(marked)
        if distributed and rank not in communicates:
            reasons[rank] = run.missing.get("collectives", _reason(run, rank))
    return reasons


def _reason(run: Run, rank: int) -> str:
    own = run.device_ops[run.device_ops["rank"].eq(rank) & run.device_ops["kind"].eq("compute")]
    longest = own.groupby("name", observed=True)["duration_us"].sum().nlargest(_LONGEST_KERNELS).index
    kernels = f"; its longest kernels are {', '.join(map(str, longest))}" if len(longest) else ""
    job = f"a job of {run.world_size} ranks" if run.world_size else "a distributed job"
    return (
        f"rank {rank} belongs to {job}, but no communication was recognised{kernels}: name your library's kernels with "
        "communication_names="
    )
