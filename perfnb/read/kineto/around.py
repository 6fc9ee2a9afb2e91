"""Host ranges around the launch of each device row, as far as they tell of communication."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import per_text
from perfnb.nesting import ROOT, innermost, parents, whole_nanoseconds
from perfnb.read.kineto.classify import Bools

Rows = NDArray[np.int64]
Value = TypeVar("Value", np.bool_, np.int64)

OPERATOR_PREFIXES: Final = ("c10d::", "_c10d_functional::", "symm_mem::", "record_param_comms")
"""Operators of torch.distributed: Ops, Functional, SymmetricMemory and ParamCommsUtils in torch/csrc/distributed/c10d."""

_STATES_ARGUMENTS: Final = "record_param_comms"
_STATES_TYPE: Final = re.compile(r"^(?:(?:nccl|rccl):|_?c10d(?:_functional)?::)")


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """Of each device row, positions among the host rows; `ROOT` where there is none.

    Attributes
    ----------
    is_distributed
        Whether the innermost operator around the launch is one of torch.distributed.
    arguments
        The `record_param_comms` operator around the launch: it has the arguments of the call.
    names
        The innermost range whose name states the type of the call: `nccl:all_reduce`, `c10d::allreduce_`.
    calls
        The launch call itself.
    """

    is_distributed: Bools
    arguments: Rows
    names: Rows
    calls: Rows


def around(host: pd.DataFrame, device: pd.DataFrame) -> Around:
    """Ranges around the launches of the device rows of one rank; both tables as `classify` makes them."""
    nothing = np.full(len(device), ROOT, dtype=np.int64)
    is_distributed = per_text(host["name"], lambda name: name.startswith(OPERATOR_PREFIXES))
    states_type = per_text(host["name"], _STATES_TYPE.search)
    if not (is_distributed | states_type).any() or device.empty:
        return Around(np.zeros(len(device), dtype=bool), nothing, nothing, launch_rows(host, device))
    thread = host["process"].cat.codes.to_numpy().astype(np.int64) * len(host["thread"].cat.categories) + host["thread"].cat.codes
    above = parents(*whole_nanoseconds(host), thread)
    call = launch_rows(host, device)
    operator = _at(innermost(above, per_text(host["category"], "operator".__eq__)), call)
    return Around(
        _at(is_distributed, operator, absent=0),
        _at(innermost(above, per_text(host["name"], _STATES_ARGUMENTS.__eq__)), call),
        _at(innermost(above, states_type), call),
        call,
    )


def launch_rows(host: pd.DataFrame, device: pd.DataFrame) -> Rows:
    """Position of the runtime call that launched each device row, by correlation; `ROOT` where none was recorded."""
    calls = np.flatnonzero(per_text(host["category"], "runtime".__eq__) & host["correlation"].notna().to_numpy())
    number = host["correlation"].to_numpy(dtype="int64", na_value=-1)[calls]
    order = np.argsort(number, kind="stable")
    wanted = device["correlation"].to_numpy(dtype="int64", na_value=-1)
    place = np.searchsorted(number[order], wanted)
    found = np.full(len(wanted), ROOT, dtype=np.int64)
    inside = place < len(order)
    inside[inside] = number[order][place[inside]] == wanted[inside]
    found[inside] = calls[order[place[inside]]]
    found[wanted < 0] = ROOT
    return found


def _at(values: NDArray[Value], rows: Rows, absent: int = ROOT) -> NDArray[Value]:
    """Values at rows; `absent` where a row is `ROOT`."""
    taken = values[rows]
    np.putmask(taken, rows == ROOT, absent)
    return taken
