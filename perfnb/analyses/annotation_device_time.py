"""Device time by the annotation that launched it."""

from __future__ import annotations

from typing import Final, Literal, cast

import numpy as np
import pandas as pd

from perfnb.analyses.durations import Integers, grouped
from perfnb.errors import PerfnbError
from perfnb.launches import NOT_LAUNCHED, enclosing, launch_positions, step_at
from perfnb.nesting import ROOT, innermost, parents
from perfnb.run import Run

ANNOTATION_COLUMNS: Final = ("ranges", "kernels", "kernel_us", "share", "own_kernels", "own_kernel_us", "own_share")
_ENGINE: Final = "autograd::"  # in names of rows that only the backward engine makes: torch/csrc/autograd/engine.cpp


def annotation_device_time(run: Run, by: Literal["run", "step"] = "run") -> pd.DataFrame:
    """Device time launched inside each annotation (`record_function`, steps, optimizer ranges).

    By the launches, so it needs no annotations on the device and counts what runs after the range has ended on the host. The
    backward engine launches from a thread of its own: where no annotation of that thread is around, the one counts that the
    other threads of its process are in at that moment, if a single thread is in one.

    Parameters
    ----------
    run
        A run with host and device ops.
    by
        "run": the whole recording. "step": apart for the host step of the launch call, and of the start of the range.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, annotation) or (rank, step, annotation), most device time first within a rank or step: ranges (how
        often the annotation occurs), kernels, kernel_us and share (of the device time of the rank, or of its step) of all device
        ops launched inside, nested annotations included, and own_kernels, own_kernel_us, own_share of those for which it is the
        innermost annotation. Annotations that launched nothing have 0 kernels. The row with annotation NA holds what no
        annotation encloses, launches that were not recorded included; step NA what no step launched. Inclusive times of nested
        annotations overlap (an op counts once for annotations of one name); own times sum to the device time. Empty without
        device ops.

    Raises
    ------
    PerfnbError
        If `by` is neither "run" nor "step".

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category   name             start_us duration_us correlation
    ...        0    1       1      annotation forward          0        20          -
    ...        0    1       1      annotation attention        4        6           -
    ...        0    1       1      runtime    cudaLaunchKernel 5        2           17
    ...        0    1       1      runtime    cudaLaunchKernel 12       2           18''',
    ... )
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank kind    name start_us duration_us correlation
    ...        0    compute gemm 9        6           17
    ...        0    compute relu 30       2           18''',
    ... )
    >>> annotation_device_time(Run(host_ops=host, device_ops=ops))[["annotation", "kernel_us", "own_kernel_us"]]
      annotation  kernel_us  own_kernel_us
    0    forward        8.0            2.0
    1  attention        6.0            6.0
    """
    if by not in ("run", "step"):
        message = f"by={by!r} is not known: use 'run' or 'step'"
        raise PerfnbError(message)
    place = ["rank", *(["step"] if by == "step" else [])]
    host, ops = run.host_ops, run.device_ops
    if ops.empty:
        return pd.DataFrame(columns=[*place, "annotation", *ANNOTATION_COLUMNS])
    call = launch_positions(run)
    op, around, own = _pairs(run, call)
    code = np.append(host["name"].cat.codes.to_numpy(), NOT_LAUNCHED).astype(np.int64)
    once = np.unique(op * (len(host["name"].cat.categories) + 1) + code[around] + 1, return_index=True)[1]
    op, around = op[once], around[once]  # an annotation inside one of its own name counts an op once
    ranges = np.flatnonzero(host["category"].eq("annotation").to_numpy(dtype=bool))
    ranges = ranges[np.isin(host["rank"].to_numpy()[ranges], ops["rank"].unique())]
    start = np.append(host["start_us"].to_numpy(), np.nan)
    rank = np.concatenate([ops["rank"].to_numpy()[op], ops["rank"].to_numpy(), host["rank"].to_numpy()[ranges]])
    keys = pd.DataFrame(
        {
            "rank": rank,
            "step": step_at(run.steps, rank, np.concatenate([start[call[op]], start[call], start[ranges]])),
            "annotation": _names(host["name"], np.concatenate([around, own, ranges])),
        }
    )
    number, found = grouped(keys, [*place, "annotation"])
    inclusive, alone, occurring = np.split(number, [len(op), len(op) + len(ops)])
    duration = ops["duration_us"].to_numpy()
    table = found.assign(
        annotation=found["annotation"].astype("string"),
        ranges=pd.Series(np.bincount(occurring, minlength=len(found)), dtype="Int64").where(found["annotation"].notna()),
        kernels=np.bincount(inclusive, minlength=len(found)),
        kernel_us=np.bincount(inclusive, duration[op], minlength=len(found)),
        own_kernels=np.bincount(alone, minlength=len(found)),
        own_kernel_us=np.bincount(alone, duration, minlength=len(found)),
    )
    whole = table.groupby(place, dropna=False)["own_kernel_us"].transform("sum")
    whole = whole.where(whole > 0)
    table = table.assign(share=table["kernel_us"] / whole, own_share=table["own_kernel_us"] / whole)
    outer_first = table.assign(least=-table["kernel_us"]).sort_values(  # of equal ones the outer owns less
        [*place, "least", "own_kernel_us"], kind="stable", ignore_index=True
    )
    return outer_first[[*place, "annotation", *ANNOTATION_COLUMNS]]


def largest_annotations(annotations: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """The annotations with the most device time of their own over all ranks and steps, and the others as one row.

    Parameters
    ----------
    annotations
        `annotation_device_time(run)`, or rows of it, as those of one rank.
    count
        How many annotations to keep apart.

    Returns
    -------
    pandas.DataFrame
        One row per annotation, most own device time first: annotation ("no annotation" for what none encloses), annotations
        (names in the row), own_kernels, own_kernel_us and own_share (of the sum over all rows). The last row, "the rest", holds
        what is left. Annotations without device time of their own are left out.

    Examples
    --------
    >>> table = {"rank": 0, "annotation": ["a", "b", pd.NA], "own_kernels": 1, "own_kernel_us": [5.0, 2.0, 3.0]}
    >>> largest_annotations(pd.DataFrame(table), 2)[["annotation", "own_share"]].to_numpy().tolist()
    [['a', 0.5], ['no annotation', 0.3], ['the rest', 0.2]]
    """
    named = annotations.assign(annotation=annotations["annotation"].astype("string").fillna("no annotation"), annotations=1)
    found = named.groupby("annotation", sort=False).agg(
        annotations=("annotations", "max"), own_kernels=("own_kernels", "sum"), own_kernel_us=("own_kernel_us", "sum")
    )
    found = found[found["own_kernels"] > 0].reset_index()
    found = found.sort_values("own_kernel_us", ascending=False, kind="stable", ignore_index=True)
    rest = found.iloc[count:]
    if len(rest):
        last = pd.DataFrame([{"annotation": "the rest", **rest[["annotations", "own_kernels", "own_kernel_us"]].sum()}])
        found = pd.concat([found.iloc[:count], last.astype(found.dtypes.to_dict())], ignore_index=True)
    return found.assign(own_share=found["own_kernel_us"] / (float(found["own_kernel_us"].sum()) or float("nan")))


def _pairs(run: Run, call: Integers) -> tuple[Integers, Integers, Integers]:
    """Pairs of device op and annotation around its launch (`NOT_LAUNCHED` for none), and the innermost annotation of each op."""
    above = _annotations_above(run.host_ops, call)
    own = above[call]
    op, level = np.arange(len(call)), own
    found_op, found = [op], [level]
    while len(op):
        level = above[level]
        op, level = op[level != NOT_LAUNCHED], level[level != NOT_LAUNCHED]
        found_op.append(op)
        found.append(level)
    return np.concatenate(found_op), np.concatenate(found), own


def _annotations_above(host: pd.DataFrame, call: Integers) -> Integers:
    """Innermost annotation around each annotation and launch call; the last slot stands for no launch."""
    is_range = host["category"].eq("annotation").to_numpy(dtype=bool)
    called = np.unique(call[call != NOT_LAUNCHED])
    chosen = np.union1d(np.flatnonzero(is_range), called)
    around = innermost(enclosing(host.iloc[chosen]), is_range[chosen])
    above = np.full(len(host) + 1, NOT_LAUNCHED, dtype=np.int64)
    above[chosen[around != ROOT]] = chosen[around[around != ROOT]]
    place, lane = _lanes(host)
    makes_backward = np.array([*(_ENGINE in str(name) for name in host["name"].cat.categories), False])
    engine = np.unique(lane[makes_backward[host["name"].cat.codes.to_numpy()]])
    adrift = np.intersect1d(engine, lane[called[above[called] == NOT_LAUNCHED]])
    lost = chosen[(around == ROOT) & np.isin(lane[chosen], adrift)]
    held = np.flatnonzero(is_range & ~np.isin(lane, adrift))
    own_lanes = pd.DataFrame({"place": place[held], "lane": lane[held]}).drop_duplicates()
    pairs = pd.DataFrame({"place": place[lost], "row": lost}).merge(own_lanes, on="place")
    row = pairs["row"].to_numpy(dtype=np.int64)
    start = np.rint(host["start_us"].to_numpy() * 1e3).astype(np.int64)  # whole nanoseconds, as `perfnb.launches.enclosing`
    end = start + np.rint(host["duration_us"].to_numpy() * 1e3).astype(np.int64)
    counts = np.arange(len(held) + len(row)) < len(held)
    up = parents(np.append(start[held], start[row]), np.append(end[held], start[row]), np.append(lane[held], pairs["lane"]))
    over = innermost(up, counts)[len(held) :]
    row, over = row[over != ROOT], over[over != ROOT]
    alone = np.bincount(row, minlength=len(host))[row] == 1
    above[row[alone]] = held[over[alone]]
    return above


def _lanes(host: pd.DataFrame) -> tuple[Integers, Integers]:
    """Numbers of the process and of the thread of each row."""
    rank = pd.factorize(host["rank"])[0].astype(np.int64)
    process, thread = host["process"].cat, host["thread"].cat
    place = rank * (len(process.categories) + 1) + process.codes.to_numpy() + 1
    return place, place * (len(thread.categories) + 1) + thread.codes.to_numpy() + 1


def _names(names: pd.Series, position: Integers) -> pd.Categorical:
    """Name at each position; NA where there is none."""
    return cast("pd.Categorical", names.array.take(position, allow_fill=True))
