"""Device ops by kind and by name: how many, how long, what share."""

from __future__ import annotations

from typing import Final, Literal

import pandas as pd

from perfnb.analyses.durations import STATISTICS, duration_statistics, grouped
from perfnb.errors import PerfnbError
from perfnb.run import Run

_DEVICE: Final = ["rank", "device"]


def kernel_summary(run: Run, by: Literal["name", "kind"] = "name") -> pd.DataFrame:
    """Kernels, copies and memsets of each device by name or by kind, the longest in sum first.

    Parameters
    ----------
    run
        A run with device ops.
    by
        "name": one row per name. "kind": one row per kind: compute, communication, copy, memset.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, kind, name) or (rank, device, kind): count, total_us, mean_us, median_us, p95_us, min_us,
        max_us, standard_deviation_us (of one row NaN) and share (total_us of the sum over all ops of the device, so the shares
        of a device sum to 1; ops that overlap count each in full). device -1 stands for ops whose device is not known.

    Raises
    ------
    PerfnbError
        If `by` is neither "name" nor "kind".

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name start_us duration_us
    ...                                       0    0      7      compute gemm 0        6
    ...                                       0    0      7      compute gemm 6        2
    ...                                       0    0      7      compute relu 8        2''',
    ... )
    >>> kernel_summary(Run(device_ops=ops))[["name", "count", "total_us", "median_us", "share"]]
       name  count  total_us  median_us  share
    0  gemm      2       8.0        4.0    0.8
    1  relu      1       2.0        2.0    0.2
    """
    if by not in ("name", "kind"):
        message = f"by={by!r} is not known: use 'name' or 'kind'"
        raise PerfnbError(message)
    keys = [*_DEVICE, "kind", *(["name"] if by == "name" else [])]
    ops = run.device_ops[[*keys, "duration_us"]].assign(device=run.device_ops["device"].fillna(-1).astype("int64"))
    number, groups = grouped(ops, keys)
    found = pd.concat([groups, duration_statistics(number, ops["duration_us"].to_numpy())], axis=1)
    whole = found.groupby(_DEVICE)["total_us"].transform("sum")
    found = found.assign(share=found["total_us"] / whole.where(whole > 0))
    ordered = found.sort_values([*_DEVICE, "total_us"], ascending=[True, True, False], kind="stable", ignore_index=True)
    return ordered[[*keys, *STATISTICS, "share"]]


def largest(summary: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """The longest kernels of a summary over all its ranks and devices, and the rest as one row: what a chart can hold.

    Parameters
    ----------
    summary
        `kernel_summary(run)`, or rows of it, as those of one device.
    count
        Rows to keep apart.

    Returns
    -------
    pandas.DataFrame
        One row per kernel, longest first: kind, name (of a summary by kind, the kind), kernels (names in the row), count,
        total_us and share (of the sum over all rows). The last row, with kind NA and the name "the rest", holds what is left.

    Examples
    --------
    >>> names = {"kind": "compute", "name": ["a", "b", "c"], "count": 1, "total_us": [5.0, 3.0, 2.0]}
    >>> largest(pd.DataFrame(names), 1)[["name", "kernels", "share"]].to_numpy().tolist()
    [['a', 1, 0.5], ['the rest', 2, 0.5]]
    """
    keys = ["kind", "name"] if "name" in summary else ["kind"]
    found = summary.groupby(keys, observed=True, dropna=False, sort=False, as_index=False)[["count", "total_us"]].sum()
    found = found.sort_values("total_us", ascending=False, kind="stable", ignore_index=True).assign(kernels=1)
    found = found.assign(kind=found["kind"].astype("string"), name=found[keys[-1]].astype("string"))
    kept, rest = found.iloc[:count], found.iloc[count:]
    if len(rest):
        row = {"kind": pd.NA, "name": "the rest", **rest[["count", "total_us", "kernels"]].sum()}
        kept = pd.concat([kept, pd.DataFrame([row]).astype(kept.dtypes.to_dict())], ignore_index=True)
    whole = float(found["total_us"].sum())
    return kept.assign(share=kept["total_us"] / (whole or float("nan")))[
        ["kind", "name", "kernels", "count", "total_us", "share"]
    ]
