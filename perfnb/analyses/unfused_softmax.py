"""Attention that is computed step by step: batched products on both sides of a softmax, in one host thread."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.analyses.flop_formulas import FORMULAS
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
    rows: list[dict[str, Any]] = []
    for (rank, process, thread), lane in own.groupby(["rank", "process", "thread"], observed=True, dropna=False, sort=False):
        ordered = lane.sort_values(["start_us", "duration_us"], ascending=[True, False], kind="stable")
        end = (ordered["start_us"] + ordered["duration_us"]).to_numpy(dtype=np.float64)
        outermost = np.maximum.accumulate(np.append(-np.inf, end[:-1])) <= ordered["start_us"].to_numpy(dtype=np.float64)
        flat = ordered[outermost]  # a softmax and a product each hold further ones of their kind
        names = flat["name"].astype(object).to_list()
        for first, last in _bounds(names):
            rows.append({"rank": rank, "process": process, "thread": thread, **_block(flat.iloc[first : last + 1])})
    return pd.DataFrame(rows, columns=list(BLOCK_COLUMNS[1:])).rename_axis("block").reset_index()


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


def _block(block: pd.DataFrame) -> dict[str, Any]:
    last = block.iloc[-1]
    products = block[~per_text(block["name"], is_softmax)]
    softmax = block[per_text(block["name"], is_softmax)].iloc[0]
    scores = math.prod(_shape(softmax, 0)) if _shape(softmax, 0) else None
    flops: int | None = 0
    elements: int | None = 0
    for row in products.to_dict("records"):
        position = FORMULAS[str(row["name"])][2]
        left, right = (_shape(row, index) for index in position)
        if len(left) != 3 or len(right) != 3 or left[2] != right[1] or scores is None or flops is None or elements is None:  # noqa: PLR2004
            flops = elements = None
            break
        flops += 2 * left[0] * left[1] * left[2] * right[2]
        sizes = (math.prod(left), math.prod(right), left[0] * left[1] * right[2])
        elements += sum(size for size in sizes if size != scores)
    return {
        "start_us": float(block["start_us"].iloc[0]),
        "end_us": float(last["start_us"] + last["duration_us"]),
        "flops_of_products": flops,
        "elements": elements,
        "dtype": _dtype(products),
    }


def _dtype(products: pd.DataFrame) -> str:
    text = products["input_types"].astype(object).iloc[0]
    try:
        listed = json.loads(text) if isinstance(text, str) and text else []
    except ValueError:
        return ""
    return next((each for each in listed if isinstance(each, str)), "") if isinstance(listed, list) else ""


def _shape(row: Any, index: int) -> list[int]:
    text = row["input_shapes"]
    try:
        listed = json.loads(text) if isinstance(text, str) and text else []
    except ValueError:
        return []
    shape = listed[index] if isinstance(listed, list) and len(listed) > index else []
    return shape if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape) else []
