"""Call tree of the host: operators, annotations and Python functions by path, with their own time and their device time."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.launches import NOT_LAUNCHED, enclosing, operator_positions, step_at
from perfnb.nesting import ROOT
from perfnb.run import Run

CATEGORIES: Final = ("operator", "annotation", "python")
"""Categories of host ops that the tree holds; Python functions are there if the trace was read with them."""

SEPARATOR: Final = " > "
"""Between the names of a path."""

_DEEPEST: Final = 50  # levels that a path spells out; torch's own operators nest less than half as deep

TREE_COLUMNS: Final = (
    "rank",
    "process",
    "thread",
    "node",
    "parent",
    "depth",
    "name",
    "path",
    "calls",
    "total_us",
    "self_us",
    "device_us",
    "self_device_us",
)

_STEP_NUMBER: Final = re.compile(r"^(ProfilerStep)#\d+$")  # torch/profiler/profiler.py: one name per step, one node for all

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def operator_tree(run: Run, rank: int | None = None, step: int | None = None) -> pd.DataFrame:
    """Call tree of each host thread; calls with the same path from the root are one node.

    Parameters
    ----------
    run
        A run with host ops.
    rank
        Rank to look at; all by default.
    step
        Host step whose calls count (those that start in it, on any thread); the whole recording by default.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, process, thread, path), parents before their children: node and parent (numbers of nodes; parent NA
        at a root), depth (0 at a root), name, path (names from the root; from 50 levels on the
        inner ones but the last are left out), calls, total_us (of the calls), self_us (total
        without the calls inside), device_us (durations of the device ops that were launched inside, summed) and self_device_us
        (those whose launch has no deeper node around it). ProfilerStep ranges are one node whatever their number. Empty where
        no host op was recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name         start_us duration_us
    ...                                       0    1       1      operator aten::linear 0        20
    ...                                       0    1       1      operator aten::addmm  1        9
    ...                                       0    1       1      operator aten::addmm  12       4''',
    ... )
    >>> operator_tree(Run(host_ops=host))[["path", "calls", "total_us", "self_us"]].to_numpy().tolist()
    [['aten::linear', 1, 20.0, 7.0], ['aten::linear > aten::addmm', 2, 13.0, 13.0]]
    """
    host = run.host_ops
    wanted = host["category"].isin(CATEGORIES).to_numpy(dtype=bool)
    if rank is not None:
        wanted = wanted & (host["rank"] == rank).to_numpy()
    if step is not None:
        moments = step_at(run.steps, host["rank"].to_numpy(), host["start_us"].to_numpy(dtype=float))
        wanted = wanted & moments.eq(step).fillna(value=False).to_numpy(dtype=bool)
    rows = np.flatnonzero(wanted)
    if not len(rows):
        return pd.DataFrame(columns=list(TREE_COLUMNS))
    calls = host.iloc[rows]
    parent = enclosing(calls)
    depth = _depths(parent)
    node = _nodes(calls, parent, depth)
    return _aggregated(calls, parent, depth, node, _launched_us(run, rows))


def operator_rectangles(tree: pd.DataFrame, measure: str = "total_us", most_rows: int = 2000) -> pd.DataFrame:
    """Rectangles of an icicle drawing of the tree: each node as wide as its time, children under their parent, widest first.

    Parameters
    ----------
    tree
        `operator_tree(run)`, or the rows of some threads of it.
    measure
        Column that is the width: "total_us" or "device_us".
    most_rows
        Most rectangles to keep: the widest. A node is kept only with all nodes above it.

    Returns
    -------
    pandas.DataFrame
        One row per node that has any width: rank, thread, name, path, calls, depth, start_us and end_us (its place on the
        axis, no moment of the recording), total_us, self_us, device_us and share (of all roots together).
    """
    width = tree[measure].to_numpy(dtype=float)
    order = np.lexsort((tree["depth"], -width))
    kept = tree.iloc[np.sort(order[width[order] > 0][:most_rows])].sort_values(measure, ascending=False, kind="stable")
    above = kept["parent"].to_numpy(dtype=np.int64, na_value=ROOT)
    wide = kept[measure].astype("float64")
    start = (wide.groupby(above).cumsum() - wide).to_numpy(copy=True)  # the wider siblings come before
    begins = np.zeros(int(tree["node"].max()) + 1 if len(tree) else 0)
    node, depth = kept["node"].to_numpy(), kept["depth"].to_numpy()
    for level in np.unique(depth):
        own = depth == level
        start[own] += np.where(above[own] == ROOT, 0.0, begins[above[own]])
        begins[node[own]] = start[own]
    total = float(tree.loc[tree["parent"].isna(), measure].sum())
    columns = [
        "rank",
        "thread",
        "name",
        "path",
        "calls",
        "depth",
        "start_us",
        "end_us",
        "total_us",
        "self_us",
        "device_us",
        "share",
    ]
    found = kept.assign(start_us=start, end_us=start + kept[measure], share=kept[measure] / total if total else np.nan)
    return found[columns].sort_values(["depth", "start_us"], kind="stable", ignore_index=True)


def _depths(parent: Integers) -> Integers:
    """Number of rows above each row."""
    depth = np.zeros(len(parent), dtype=np.int64)
    climbing, above = np.flatnonzero(parent != ROOT), parent[parent != ROOT]
    while len(climbing):
        depth[climbing] += 1
        above = parent[above]
        climbing, above = climbing[above != ROOT], above[above != ROOT]
    return depth


def _nodes(calls: pd.DataFrame, parent: Integers, depth: Integers) -> Integers:
    """Number of the node of each call, level by level: calls of one name under one node are one node."""
    categories = calls["name"].astype("category").cat
    merged = pd.Index(categories.categories).astype(str).str.replace(_STEP_NUMBER, r"\1", regex=True)
    name = np.append(pd.factorize(merged)[0], -1)[categories.codes.to_numpy()] + 1  # the last one: no name
    lane = calls.groupby(["rank", "process", "thread"], observed=True, dropna=False, sort=False).ngroup().to_numpy(dtype=np.int64)
    node = np.zeros(len(calls), dtype=np.int64)
    names, count = int(name.max()) + 1, 0
    by_depth = np.argsort(depth, kind="stable")
    edges = np.searchsorted(depth[by_depth], np.arange(int(depth.max()) + 2))
    for low, high in pairwise(edges):
        level = by_depth[low:high]
        above = node[parent[level]] if low else lane[level]
        numbers, distinct = pd.factorize(above * names + name[level])
        node[level] = count + numbers
        count += len(distinct)
    return node


def _launched_us(run: Run, rows: Integers) -> Floats:
    """Device time whose launch each of the rows is the innermost around; device ops launched under no such row are left out."""
    place = np.full(len(run.host_ops) + 1, NOT_LAUNCHED, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    around = place[operator_positions(run, CATEGORIES)]
    inside = around != NOT_LAUNCHED
    found: Floats = np.bincount(around[inside], run.device_ops["duration_us"].to_numpy()[inside], len(rows)).astype(np.float64)
    return found


def _aggregated(calls: pd.DataFrame, parent: Integers, depth: Integers, node: Integers, launched_us: Floats) -> pd.DataFrame:
    count = int(node.max()) + 1
    duration = calls["duration_us"].to_numpy(dtype=float)
    under = parent != ROOT
    inside = np.bincount(parent[under], weights=duration[under], minlength=len(calls))
    first = np.full(count, len(calls), dtype=np.int64)
    np.minimum.at(first, node, np.arange(len(calls)))
    above = np.where(parent[first] != ROOT, node[parent[first]], ROOT)
    device = np.bincount(node, weights=launched_us, minlength=count)
    total_device = device.copy()
    levels = depth[first]
    for level in range(int(levels.max()), 0, -1):
        own = levels == level
        np.add.at(total_device, above[own], total_device[own])
    names = calls["name"].astype(object).iloc[first].astype(str).str.replace(_STEP_NUMBER, r"\1", regex=True).to_list()
    stems: list[str] = []  # path of the outer `_DEEPEST` levels; whole paths of a deep recursion would take gigabytes
    paths: list[str] = []
    for number in range(count):  # nodes, not calls: parents have smaller numbers
        stem = stems[above[number]] if above[number] != ROOT else ""
        if levels[number] < _DEEPEST:
            stem = f"{stem}{SEPARATOR}{names[number]}" if stem else names[number]
        stems.append(stem)
        paths.append(stem if levels[number] < _DEEPEST else f"{stem}{SEPARATOR}...{SEPARATOR}{names[number]}")
    found = pd.DataFrame(
        {
            **{key: calls[key].array[first] for key in ("rank", "process", "thread")},
            "node": np.arange(count),
            "parent": pd.arrays.IntegerArray(np.maximum(above, 0), above == ROOT),
            "depth": levels,
            "name": names,
            "path": paths,
            "calls": np.bincount(node, minlength=count),
            "total_us": np.bincount(node, weights=duration, minlength=count),
            "self_us": np.bincount(node, weights=np.maximum(duration - inside, 0.0), minlength=count),
            "device_us": total_device,
            "self_device_us": device,
        }
    )
    return found[list(TREE_COLUMNS)]
