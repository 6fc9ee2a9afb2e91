"""Kernels that follow one another again and again."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import PerfnbError
from perfnb.run import Run

SEQUENCE_COLUMNS: Final = ("rank", "device", "length", "sequence", "occurrences", "total_us", "mean_us", "span_us")
JOINT: Final = " -> "
"""Between the names of a sequence."""

Integers = NDArray[np.int64]


def kernel_sequences(run: Run, length: int = 5, *, fewest: int = 2, contains: str | None = None) -> pd.DataFrame:
    """Sequences of successive kernels of one stream by how often they occur.

    Candidates for fusion and for graph capture: many short kernels that always follow one another. Kernels of two streams never
    make a sequence, however they interleave; the same sequence on two streams of a device counts as one. Sequences that one
    operator launches are `operator_kernels(run, by="sequence")`.

    Parameters
    ----------
    run
        A run with device ops.
    length
        Number of kernels of a sequence.
    fewest
        How often a sequence occurs at least.
    contains
        Only sequences in which a kernel's name holds this text.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, sequence), most device time first within a device: length, sequence (names in order, joined
        by " -> "), occurrences, total_us (durations of its kernels over all occurrences), mean_us (per occurrence) and span_us
        (median time from its first start to its last end). Occurrences that overlap count each: `a a a` holds `a a` twice, and
        a kernel counts in every occurrence that it is part of, so totals do not add up to the device's time. Copies and memsets
        do not count. device -1 stands for kernels whose device is not known.

    Raises
    ------
    PerfnbError
        If `length` or `fewest` is below 1.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind    name start_us duration_us
    ...        0    0      7      compute gemm 0        6
    ...        0    0      7      compute relu 7        2
    ...        0    0      7      compute gemm 10       6
    ...        0    0      7      compute relu 17       2''',
    ... )
    >>> kernel_sequences(Run(device_ops=ops), 2)[["sequence", "occurrences", "total_us", "span_us"]]
           sequence  occurrences  total_us  span_us
    0  gemm -> relu            2      16.0      9.0
    """
    if length < 1 or fewest < 1:
        message = f"length={length} and fewest={fewest} must both be at least 1"
        raise PerfnbError(message)
    kernels = run.device_ops[run.device_ops["kind"].isin(["compute", "communication"])]
    lane = _lanes(kernels)
    order = np.lexsort((kernels["start_us"].to_numpy(), lane))
    lane, kernels = lane[order], kernels.iloc[order]
    first = np.arange(max(len(kernels) - length + 1, 0))
    first = first[lane[first] == lane[first + length - 1]]  # a window that begins and ends in one stream lies in it
    code = kernels["name"].cat.codes.to_numpy().astype(np.int64)
    if contains is not None:
        holds = np.array([*(contains in str(name) for name in kernels["name"].cat.categories), False])[code]
        before = np.concatenate([[0], np.cumsum(holds)])
        first = first[before[first + length] > before[first]]
    start, duration = kernels["start_us"].to_numpy(), kernels["duration_us"].to_numpy()
    until = np.concatenate([[0.0], np.cumsum(duration)])
    windows = pd.DataFrame(
        {
            "rank": kernels["rank"].to_numpy()[first],
            "device": kernels["device"].to_numpy(dtype=np.int64, na_value=-1)[first],
            "number": sequence_numbers(code, first, np.full(len(first), length)),
            "first": first,
            "us": until[first + length] - until[first],
            "span": start[first + length - 1] + duration[first + length - 1] - start[first],
        }
    )
    found = windows.groupby(["rank", "device", "number"], as_index=False).agg(
        occurrences=("us", "size"),
        total_us=("us", "sum"),
        mean_us=("us", "mean"),
        span_us=("span", "median"),
        first=("first", "min"),
    )
    found = found[found["occurrences"] >= fewest]
    sequence = spelled(kernels["name"], found["first"].to_numpy(), np.full(len(found), length))
    found = found.assign(length=np.full(len(found), length), sequence=sequence)
    ordered = found.sort_values(["rank", "device", "total_us"], ascending=[True, True, False], kind="stable", ignore_index=True)
    return ordered[list(SEQUENCE_COLUMNS)]


def largest_sequences(sequences: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """The sequences with the most device time over all ranks and devices: what a chart can hold.

    Parameters
    ----------
    sequences
        `kernel_sequences(run)`, or rows of it.
    count
        How many sequences to keep.

    Returns
    -------
    pandas.DataFrame
        One row per sequence, most device time first: length, sequence, occurrences, total_us. There is no row for the rest:
        sequences share kernels, so that their times do not add up.

    Examples
    --------
    >>> table = {"rank": [0, 1], "length": 2, "sequence": "a -> b", "occurrences": [2, 3], "total_us": [5.0, 6.0]}
    >>> largest_sequences(pd.DataFrame(table))[["occurrences", "total_us"]].to_numpy().tolist()
    [[5.0, 11.0]]
    """
    found = sequences.groupby(["length", "sequence"], sort=False, as_index=False)[["occurrences", "total_us"]].sum()
    return found.sort_values("total_us", ascending=False, kind="stable", ignore_index=True).head(count)


def sequence_numbers(code: Integers, first: Integers, length: Integers) -> Integers:
    """Number of each run `code[first : first + length]`: the same for equal runs and for no others.

    Exact, without a hash: runs are put together from blocks of 1, 2, 4, ... codes, each block numbered by its two halves.

    Examples
    --------
    >>> sequence_numbers(np.array([5, 6, 5, 6, 6]), np.array([0, 2, 3, 1]), np.array([2, 2, 2, 1]))
    array([0, 0, 1, 2])
    """
    number = _numbered(length)
    block, place, size, longest = _numbered(code), first.copy(), 1, int(length.max(initial=0))
    while size <= longest:
        taken = (length & size) > 0
        part = np.zeros(len(number), dtype=np.int64)
        part[taken] = block[place[taken]] + 1
        number = _numbered(number * (len(code) + 1) + part)  # both below the number of codes or runs: no overflow
        place = place + np.where(taken, size, 0)
        block = _numbered(block[: max(len(block) - size, 0)] * len(code) + block[size:])
        size *= 2
    return number


def spelled(names: pd.Series, first: Integers, length: Integers) -> list[str]:
    """Names of each run `names[first : first + length]`, joined."""
    texts = names.astype("object").to_numpy()
    return [JOINT.join(map(str, texts[low : low + size])) for low, size in zip(first.tolist(), length.tolist(), strict=True)]


def _numbered(values: Integers) -> Integers:
    return pd.factorize(values)[0].astype(np.int64)


def _lanes(kernels: pd.DataFrame) -> Integers:
    """Number of the stream of each kernel, in order of rank, device and stream; an unknown stream is one of its own."""
    lane = np.zeros(len(kernels), dtype=np.int64)
    for column in ("rank", "device", "stream"):
        own = kernels[column].to_numpy(dtype=np.float64, na_value=np.nan)
        known = np.unique(own)  # NaN last, once
        lane = lane * (len(known) + 1) + np.searchsorted(known, own)
    return lane
