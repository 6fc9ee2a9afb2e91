"""FLOP, bytes and achieved rate of matrix products, convolutions and attention, from the shapes that the trace recorded."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.flop_formulas import BACKWARD_CONVOLUTION, DTYPES, FORMULAS, LAST_RESORT, Cost, Shape, ShapeMismatchError
from perfnb.analyses.json_list import json_list
from perfnb.launches import NOT_LAUNCHED, enclosing, operator_positions, step_at
from perfnb.nesting import ROOT, innermost
from perfnb.run import Run

FLOP_COLUMNS: Final = (
    "rank",
    "step",
    "operator",
    "name",
    "family",
    "input_shapes",
    "dtype",
    "flops",
    "bytes",
    "time_us",
    "clock",
    "achieved_flops_per_s",
    "flops_per_byte",
    "reason",
)

_NO_SHAPES: Final = "no input shapes: record with torch.profiler.profile(record_shapes=True)"
_NO_OUTPUT: Final = "the output's size depends on stride and padding, which are not in the table"
_NO_MASK: Final = "which gradients are computed is not in the table"
_LARGEST: Final = 2**62  # past it a product of shapes is no count
_NO_FIT: Final = "the recorded shapes do not fit the operator"
_NO_TYPE: Final = "bytes unknown: the type of the inputs was not recorded"
_UNSEEN: Final = "no device op of it was recorded"
_MICROSECONDS_PER_SECOND: Final = 1e6

Integers = NDArray[np.int64]
_Outputs = dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...] | None]


def operator_flops(run: Run) -> pd.DataFrame:
    """FLOP, bytes and achieved rate of each matrix product, convolution and attention.

    Each piece of work is counted once: of counted operators inside one another the outermost counts, `aten::linear` only where
    no counted operator lies inside. The formulas are those of torch.utils.flop_counter. A convolution's output size is taken
    from the convolution_backward of the same input and weight shapes; where the run has none, FLOP are NA.

    Parameters
    ----------
    run
        A run recorded with `record_shapes=True`.

    Returns
    -------
    pandas.DataFrame
        One row per counted operator: rank, step, operator (row label in `run.host_ops`), name, family ("matmul",
        "convolution", "attention"), input_shapes, dtype (of the first input, as Python names it), flops, bytes (inputs and
        outputs, each once), time_us (durations of the device ops that it launched, summed; of the operator itself in a run
        without device ops), clock ("device" or "host"), achieved_flops_per_s, flops_per_byte and reason (why a value is NA).

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name start_us duration_us input_shapes
    ...                                       0 1 1 operator aten::mm 0 2 [[8,16],[16,4]]''',
    ... ).assign(input_types='["float","float"]')
    >>> operator_flops(Run(host_ops=host))[["flops", "bytes", "achieved_flops_per_s"]].to_numpy().tolist()
    [[1024, 896, 512000000.0]]
    """
    host = run.host_ops
    rows, parent = _operators(host)
    counted = _counted(host.iloc[rows], parent)
    own = host.iloc[rows[counted]]
    costs = _costs(own)
    time_us, is_device = _time_us(run, rows, parent, counted)
    flops, moved = costs["flops"], costs["bytes"]
    seconds = pd.Series(time_us, index=own.index).where(time_us > 0) / _MICROSECONDS_PER_SECOND
    unseen = costs["reason"].isna() & np.isnan(time_us)
    found = pd.DataFrame(
        {
            "rank": own["rank"],
            "step": step_at(run.steps, own["rank"].to_numpy(), own["start_us"].to_numpy(dtype=float)).to_numpy(),
            "operator": own.index,
            "name": own["name"],
            "family": pd.Series([FORMULAS[name][0] for name in own["name"].astype(object)], index=own.index, dtype="string"),
            "input_shapes": own["input_shapes"],
            "dtype": costs["dtype"],
            "flops": flops,
            "bytes": moved,
            "time_us": time_us,
            "clock": pd.Series("device" if is_device else "host", index=own.index, dtype="string"),
            "achieved_flops_per_s": flops.astype("Float64").astype("float64") / seconds,
            "flops_per_byte": (flops / moved.where(moved > 0)).astype("float64"),
            "reason": costs["reason"].mask(unseen, _UNSEEN),
        }
    )
    return found.astype({"step": "Int64"})[list(FLOP_COLUMNS)].reset_index(drop=True)


def _operators(host: pd.DataFrame) -> tuple[Integers, Integers]:
    """Positions of the operators, and the position among them of the one around each."""
    rows = np.flatnonzero(host["category"].eq("operator").to_numpy(dtype=bool))
    return rows, enclosing(host.iloc[rows])


def _counted(operators: pd.DataFrame, parent: Integers) -> Integers:
    """Positions of the operators that count: outermost ones, and linear layers with no counted operator inside."""
    categories = operators["name"].astype("category").cat
    known = np.array([name in FORMULAS and name not in LAST_RESORT for name in categories.categories] + [False])
    last = np.array([name in LAST_RESORT for name in categories.categories] + [False])
    code = categories.codes.to_numpy()
    chosen, resort = known[code], last[code]
    chosen = chosen & (innermost(parent, chosen) == ROOT)
    holds = np.zeros(len(operators), dtype=bool)
    inner = np.flatnonzero(chosen | resort)
    above_resort = innermost(parent, resort)
    while len(inner):
        around = above_resort[inner]
        inner = np.unique(around[around != ROOT])
        holds[inner] = True
    return np.flatnonzero(chosen | (resort & ~holds & (innermost(parent, chosen) == ROOT)))


def _costs(operators: pd.DataFrame) -> pd.DataFrame:
    """Columns dtype, flops, bytes and reason of each operator; every distinct call is worked out once."""
    keys = operators[["name", "input_shapes", "input_types"]].astype(object)
    number, distinct = pd.factorize(pd.MultiIndex.from_frame(keys.where(keys.notna(), "")))
    outputs = _convolution_outputs([(name, shapes) for name, shapes, _ in distinct])
    answers = [_cost(name, shapes, types, outputs) for name, shapes, types in distinct]
    dtype, flops, moved, reason = (list(column) for column in zip(*answers, strict=True)) if answers else ([], [], [], [])
    table = pd.DataFrame(
        {
            "dtype": pd.Series(dtype, dtype="string"),
            "flops": pd.Series(flops, dtype="Int64"),
            "bytes": pd.Series(moved, dtype="Int64"),
            "reason": pd.Series(reason, dtype="string"),
        }
    )
    return table.take(number).set_axis(operators.index)


def _cost(name: str, shapes: str, types: str, outputs: _Outputs) -> tuple[str | None, int | None, int | None, str | None]:
    _, formula, wanted, optional = FORMULAS[name]
    kinds, given = json_list(types), json_list(shapes)
    kind = kinds[wanted[0]] if len(kinds) > wanted[0] else None
    dtype, width = DTYPES.get(kind, (None, None)) if isinstance(kind, str) else (None, None)
    if len(given) <= max(wanted) or any(not _is_shape(given[index]) for index in wanted):
        return dtype, None, None, _NO_SHAPES if not given else _NO_FIT
    inputs: list[Shape] = [given[index] for index in wanted]
    more: list[Shape] = [given[index] for index in optional if len(given) > index and _is_shape(given[index])]
    if name == BACKWARD_CONVOLUTION:
        return dtype, None, None, _NO_MASK
    if FORMULAS[name][0] == "convolution":
        output = outputs.get((tuple(inputs[0]), tuple(inputs[1])))
        if output is None:
            return dtype, None, None, _NO_OUTPUT
        inputs.append(list(output))
    try:
        cost: Cost = formula(*inputs, *more)
    except ShapeMismatchError:
        return dtype, None, None, _NO_FIT
    moved = None if width is None or cost.elements is None else cost.elements * width
    if max(cost.flops or 0, moved or 0) > _LARGEST:
        return dtype, None, None, _NO_FIT
    return dtype, cost.flops, moved, _NO_TYPE if width is None else None


def _convolution_outputs(calls: list[tuple[str, str]]) -> _Outputs:
    """Output shape of a convolution by its input and weight, as its backward saw it; None where two differ."""
    found: _Outputs = {}
    for name, shapes in calls:
        if name != BACKWARD_CONVOLUTION or not shapes:
            continue
        given = json_list(shapes)
        if len(given) > 2 and all(_is_shape(each) for each in given[:3]):  # noqa: PLR2004 - gradient of the output, input, weight
            key, output = (tuple(given[1]), tuple(given[2])), tuple(given[0])
            found[key] = output if found.get(key, output) == output else None
    return found


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(size) is int and size >= 0 for size in value)


def _time_us(run: Run, rows: Integers, parent: Integers, counted: Integers) -> tuple[NDArray[np.float64], bool]:
    """Time of each counted operator, and whether it is device time."""
    if run.device_ops.empty:
        return run.host_ops["duration_us"].to_numpy(dtype=float)[rows[counted]], False
    is_counted = np.zeros(len(rows), dtype=bool)
    is_counted[counted] = True
    owner = np.where(is_counted, np.arange(len(rows)), innermost(parent, is_counted))
    place = np.full(len(run.host_ops) + 1, NOT_LAUNCHED, dtype=np.int64)
    place[rows] = np.where(owner == ROOT, NOT_LAUNCHED, owner)
    around = place[operator_positions(run)]
    inside = around != NOT_LAUNCHED
    length = run.device_ops["duration_us"].to_numpy()[inside]
    launched = np.bincount(around[inside], minlength=len(rows))[counted]
    time = np.bincount(around[inside], length, len(rows))[counted]
    return np.where(launched > 0, time, np.nan), True
