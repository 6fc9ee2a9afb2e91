"""Which operators allocated the blocks of a trace: those that ran at that moment, from the innermost outwards."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.nesting import ROOT, parents

STEP_OF_OPTIMIZER: Final = "Optimizer.step"
"""Start of the range that torch.optim writes around a step."""

BACKWARD: Final = "autograd::engine"
"""Start of the ranges that autograd writes around each node of backward."""

_PROFILER_STEP: Final = "ProfilerStep"
_DEEPEST: Final = 64


def operators_of(time_us: pd.Series, host_ops: pd.DataFrame) -> pd.Series:
    r"""Names of the host operators that were running at each moment, innermost first, joined by ";"; NA where none was.

    A trace does not say which thread allocated. Of several threads that were in an operator the one whose innermost began last is
    taken.

    Parameters
    ----------
    time_us
        Moments.
    host_ops
        Table host_ops of one rank.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text("host_ops", "rank thread name start_us duration_us\n0 1 aten::linear 0 9\n0 1 aten::addmm 2 3")
    >>> operators_of(pd.Series([3.0, 8.0, 20.0]), ops).fillna("-").to_list()
    ['aten::addmm;aten::linear', 'aten::linear', '-']
    """
    names = host_ops["name"].astype(str)
    ops = host_ops[~names.str.startswith(_PROFILER_STEP) & host_ops["start_us"].notna() & host_ops["duration_us"].gt(0)]
    found = pd.Series(pd.NA, index=time_us.index, dtype="object")
    if ops.empty or time_us.isna().all():
        return found
    thread, lanes = pd.factorize(ops["thread"].astype(str))
    start, name = ops["start_us"].to_numpy(dtype=float), ops["name"].astype(str).to_numpy()
    end = start + ops["duration_us"].to_numpy(dtype=float)
    moments = time_us.fillna(-np.inf).to_numpy(dtype=float)
    count, many = len(ops), len(lanes)
    at = np.tile(moments, many)
    above = parents(
        np.concatenate([start, at]),
        np.concatenate([end, at]),
        np.concatenate([thread, np.repeat(np.arange(many), len(moments))]),
    )
    innermost = np.where(above[count:] < count, above[count:], ROOT).reshape(many, len(moments))
    began = np.where(innermost == ROOT, -np.inf, start[innermost])
    chosen = innermost[began.argmax(axis=0), np.arange(len(moments))]
    chains: dict[int, str] = {}
    for one in np.unique(chosen[chosen != ROOT]).tolist():
        chain: list[str] = []
        place = int(one)
        while place != ROOT and len(chain) < _DEEPEST:
            chain.append(str(name[place]).replace(";", ","))
            place = int(above[place]) if above[place] < count else ROOT
        chains[one] = ";".join(chain)
    found.loc[:] = [chains.get(one, pd.NA) for one in chosen.tolist()]
    return found


def category_of_operators(chain: str) -> str:
    """What a block holds by the operators that made it.

    Examples
    --------
    >>> category_of_operators("aten::mm;autograd::engine::evaluate_function: MmBackward0")
    'backward'
    """
    frames = chain.split(";")
    if any(frame.startswith(STEP_OF_OPTIMIZER) for frame in frames):
        return "optimizer"
    if any(frame.startswith(BACKWARD) for frame in frames):
        return "backward"
    return "forward or data"
