"""What a device was measured to reach, by kind of work: names of the constants of a machine, and how near a kernel comes to them.

The yardstick of a kernel is what a microbenchmark reached on this very device, not the data sheet: a product that no library
brings past 70 % of the sheet is not slow at 65 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import pandas as pd

MEMORY_RATE: Final = "memory.bytes_per_s"
"""Constant of a machine: bytes per second that a large copy on the device reads and writes."""

MULTIPROCESSORS: Final = "multiprocessors"
"""Constant of a machine: multiprocessors (NVIDIA) or compute units (AMD) of a device."""

COMPUTE_CAPABILITY: Final = "compute_capability"
"""Constant of a machine: NVIDIA's compute capability, 8.0 of an A100; other makers count otherwise."""


def rate_name(family: str, dtype: str) -> str:
    """Name of the constant that holds the FLOP per second reached by a kind of work in a type.

    Examples
    --------
    >>> rate_name("matmul", "bfloat16")
    'matmul.bfloat16.flops_per_s'
    """
    return f"{family}.{dtype}.flops_per_s"


def speedup_name(family: str, dtype: str, input_shapes: str) -> str:
    """Name of the constant that holds how many times faster these shapes run in 16 bits (or TF32) than in this type.

    Examples
    --------
    >>> speedup_name("matmul", "float32", "[[8,16],[16,4]]")
    'matmul.float32.[[8,16],[16,4]].speedup'
    """
    return f"{family}.{dtype}.{input_shapes}.speedup"


def attained_share(work: pd.DataFrame, constants: Mapping[str, float]) -> pd.Series:
    """Share of what this device reaches that each kernel reaches: e over e_ref.

    The time that the work would take at the reached rates, max(FLOP / rate, bytes / bandwidth), over the time that it took
    (Williams, Waterman and Patterson, Roofline, Communications of the ACM 52(4), 2009; the peaks cancel). Elementwise work has
    bytes only.

    Parameters
    ----------
    work
        Rows of `perfnb.analyses.kernel_work.kernel_work`.
    constants
        `Run.machine.constants`.

    Returns
    -------
    pandas.Series
        One value per row; NaN where FLOP, bytes or the rates are not known.
    """
    keys = work[["family", "dtype"]].astype(object)
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(keys.where(keys.notna(), "")))
    rates = np.array([constants.get(rate_name(family, dtype), np.nan) for family, dtype in distinct], dtype=np.float64)
    rate = rates[codes] if len(distinct) else np.full(len(work), np.nan)
    bandwidth = constants.get(MEMORY_RATE, np.nan)
    by_memory = work["bytes"].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan) / bandwidth
    by_compute = work["flops"].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan) / rate
    is_elementwise = work["family"].eq("elementwise").fillna(value=False).to_numpy(dtype=bool)
    best_us = np.where(is_elementwise, by_memory, np.maximum(by_memory, by_compute)) * 1e6
    took = work["call_us"].to_numpy(dtype=np.float64)
    return pd.Series(np.divide(best_us, took, out=np.full(len(work), np.nan), where=took > 0), index=work.index)


def wanted_rates(work: pd.DataFrame, constants: Mapping[str, float]) -> tuple[str, ...]:
    """Constants that are missing to judge these kernels, in the order of their names.

    Parameters
    ----------
    work
        Rows of `perfnb.analyses.kernel_work.kernel_work`.
    constants
        `Run.machine.constants`.
    """
    pairs = work[["family", "dtype"]].dropna().drop_duplicates()
    pairs = pairs[pairs["family"].ne("softmax")]
    if pairs.empty:
        return ()
    named = {
        rate_name(str(family), str(dtype))
        for family, dtype in zip(pairs["family"], pairs["dtype"], strict=True)
        if family != "elementwise"
    }
    return tuple(sorted(name for name in {*named, MEMORY_RATE} if name not in constants))


def benchmark_first(names: Iterable[str]) -> str:
    """What to do where rates are missing, in words.

    Examples
    --------
    >>> benchmark_first(["memory.bytes_per_s"])
    "no microbenchmark of this device is known: measure memory.bytes_per_s and give it as the machine's constants"
    """
    return f"no microbenchmark of this device is known: measure {', '.join(names)} and give it as the machine's constants"
