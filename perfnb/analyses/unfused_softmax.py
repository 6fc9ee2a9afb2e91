"""Attention that is computed step by step: batched products on both sides of a softmax, in one host thread."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.analyses.flop_formulas import FORMULAS
from perfnb.analyses.json_list import json_list
from perfnb.analyses.kernel_work import is_softmax
from perfnb.categories import per_text

BATCHED: Final = frozenset({"aten::bmm", "aten::baddbmm", "aten::baddbmm_"})
BLOCK_COLUMNS: Final = ("block", "rank", "process", "thread", "start_us", "end_us", "flops_of_products", "elements", "dtype")


def unfused_blocks(host: pd.DataFrame) -> pd.DataFrame:
    """Blocks of operators that a fused attention would do at once.

    A block begins with the batched product before a softmax and ends with the one after it, with no other product, convolution
    or fused attention between; of a backward softmax two products on each side where there are two.

    Parameters
    ----------
    host
        Table `host_ops` of a run.

    Returns
    -------
    pandas.DataFrame
        One row per block: block (its number), rank, process, thread, start_us, end_us, flops_of_products, elements (that a fused
        attention reads and writes: operands and results of the products but the scores; both NA without shapes) and dtype.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name           start_us duration_us input_shapes
    ...        0    1       1      operator aten::bmm      0        5           [[2,4,8],[2,8,4]]
    ...        0    1       1      operator aten::_softmax 10       5           [[2,4,4],[],[]]
    ...        0    1       1      operator aten::bmm      20       5           [[2,4,4],[2,4,8]]''',
    ... )
    >>> unfused_blocks(host)[["start_us", "end_us", "flops_of_products", "elements"]].to_numpy().tolist()
    [[0.0, 25.0, 1024.0, 256.0]]
    """
    counts = host["category"].eq("operator").to_numpy(dtype=bool) & per_text(
        host["name"], lambda name: name in FORMULAS or is_softmax(name)
    )
    own = host[counts]
    if not per_text(own["name"], is_softmax).any():
        return pd.DataFrame(columns=list(BLOCK_COLUMNS))
    ordered = own.sort_values(
        ["rank", "process", "thread", "start_us", "duration_us"], ascending=[True] * 4 + [False], kind="stable"
    )
    lanes = ordered.groupby(["rank", "process", "thread"], observed=True, dropna=False, sort=False).ngroup().to_numpy()
    start = ordered["start_us"].to_numpy(dtype=np.float64)
    end = start + ordered["duration_us"].to_numpy(dtype=np.float64)
    names, shapes, types = (ordered[name].astype(object).to_list() for name in ("name", "input_shapes", "input_types"))
    costs: dict[tuple[Any, ...], tuple[int | None, int | None]] = {}
    rows = []
    for low, high in pairwise([*np.flatnonzero(np.diff(lanes, prepend=-1)), len(lanes)]):
        # a softmax and a product each hold further ones of their kind: the outermost count
        outermost = np.maximum.accumulate(np.append(-np.inf, end[low : high - 1])) <= start[low:high]
        flat = (low + np.flatnonzero(outermost)).tolist()
        for first, last in _bounds([names[place] for place in flat]):
            block = flat[first : last + 1]
            key = tuple((names[place], shapes[place]) for place in block)
            if key not in costs:
                costs[key] = _cost(key)
            rows.append((block[0], start[block[0]], end[block[-1]], *costs[key], _dtype(types[block[0]])))
    columns = ["place", "start_us", "end_us", "flops_of_products", "elements", "dtype"]
    found = pd.DataFrame(rows, columns=columns).rename_axis("block").reset_index()
    where = ordered[["rank", "process", "thread"]].iloc[found["place"]].reset_index(drop=True)
    return pd.concat([found, where], axis=1)[list(BLOCK_COLUMNS)]


def _bounds(names: list[str]) -> list[tuple[int, int]]:
    """First and last operator of each block."""
    found = []
    marks = [place for place, name in enumerate(names) if is_softmax(name)]
    for before, place, after in zip([-1, *marks[:-1]], marks, [*marks[1:], len(names)], strict=True):
        wide = 2 if "backward" in names[place] else 1
        low, high = place, place
        while low - 1 > before and place - low < wide and names[low - 1] in BATCHED:
            low -= 1
        while high + 1 < after and high - place < wide and names[high + 1] in BATCHED:
            high += 1
        if low < place < high:
            found.append((low, high))
    return [each for each, following in pairwise([*found, (len(names), 0)]) if each[1] <= following[0]]


def _cost(block: tuple[tuple[str, object], ...]) -> tuple[int | None, int | None]:
    """FLOP of the products of a block, and elements that a fused attention moves; None where shapes do not tell."""
    scores = next(math.prod(_shape(shapes, 0)) for name, shapes in block if is_softmax(name))
    flops = elements = 0
    for name, shapes in block:
        if is_softmax(name):
            continue
        left, right = (_shape(shapes, index) for index in FORMULAS[name][2])
        if len(left) != 3 or len(right) != 3 or left[2] != right[1]:  # noqa: PLR2004 - a batch of matrices
            return None, None
        flops += 2 * left[0] * left[1] * left[2] * right[2]
        sizes = (math.prod(left), math.prod(right), left[0] * left[1] * right[2])
        elements += sum(size for size in sizes if size != scores)
    return flops, elements


def _dtype(types: object) -> str:
    """Type of the first operand."""
    return next((each for each in json_list(types) if isinstance(each, str)), "")


def _shape(shapes: object, index: int) -> list[int]:
    listed = json_list(shapes)
    shape = listed[index] if len(listed) > index else []
    return shape if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape) else []
