"""What each compute kernel works on: the operator that launched it, its kind, shapes and type, FLOP and bytes."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.flop_formulas import DTYPES, FORMULAS
from perfnb.analyses.json_list import json_list
from perfnb.analyses.operator_flops import operator_flops
from perfnb.categories import matching, per_text
from perfnb.launches import NOT_LAUNCHED, operator_positions
from perfnb.run import Run

ELEMENTWISE: Final = frozenset(
    f"aten::{name}{place}"
    for name in ("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "exp", "neg", "sqrt", "clamp", "silu", "gelu")
    for place in ("", "_")
) | {"aten::gelu_backward", "aten::threshold_backward", "aten::silu_backward", "aten::tanh_backward", "aten::sigmoid_backward"}
"""Operators that read each input once and write one output of the broadcast shape."""

_SOFTMAX: Final = re.compile(r"softmax", re.IGNORECASE)
_NO_SOFTMAX: Final = re.compile(r"log_?softmax|cross_entropy|nll", re.IGNORECASE)  # a loss, not attention
# cuBLAS, cuDNN and CUTLASS name the type in a kernel's name: s(ingle), d(ouble).
_SINGLE: Final = r"(?i)sgemm|scudnn|f32f32_f32f32_f32"
_DOUBLE: Final = r"(?i)dgemm|dcudnn|f64f64"
_CONVOLUTION: Final = r"(?i)conv|scudnn|dcudnn|fprop|dgrad|wgrad"
_SHORT: Final = {"float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16"}

_EMPTY: Final = Run()  # made once: its empty tables cost more than the work on a small run

Integers = NDArray[np.int64]


def is_softmax(name: str) -> bool:
    """Whether an operator is a softmax, forward or backward, and not a loss.

    Examples
    --------
    >>> is_softmax("aten::_softmax_backward_data"), is_softmax("aten::_log_softmax")
    (True, False)
    """
    return bool(_SOFTMAX.search(name)) and not _NO_SOFTMAX.search(name)


def kernel_work(host: pd.DataFrame, ops: pd.DataFrame) -> pd.DataFrame:
    r"""Each compute kernel with what it works on.

    A kernel belongs to the innermost operator around its launch that is a matrix product, a convolution, attention (see
    `operator_flops`), a softmax, or elementwise. Where none is recorded, the names of cuBLAS, cuDNN and CUTLASS still tell
    products and convolutions in float32 and float64.

    Parameters
    ----------
    host, ops
        Tables `host_ops` and `device_ops` of a run.

    Returns
    -------
    pandas.DataFrame
        One row per compute kernel, same index as in `ops`: rank, device, name, start_us, duration_us, grid, operator (row label
        in `host`), operator_name, family ("matmul", "convolution", "attention", "softmax", "elementwise"), input_shapes, dtype,
        flops, bytes (of the operator's call), is_launched (whether its launch was recorded), call_us (device time of that
        call).

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> host = table_from_text(
    ...     "host_ops",
    ...     '''rank process thread category name             start_us duration_us correlation input_shapes
    ...        0    1       1      operator aten::mm         0        9           -           [[8,16],[16,4]]
    ...        0    1       1      runtime  cudaLaunchKernel 5        2           17          -''',
    ... ).assign(input_types='["float","float"]')
    >>> ops = table_from_text("device_ops", "rank kind name start_us duration_us correlation\n0 compute gemm 9 6 17")
    >>> kernel_work(host, ops)[["operator_name", "family", "dtype", "flops", "call_us"]].to_numpy().tolist()
    [['aten::mm', 'matmul', 'float32', 1024, 6.0]]
    """
    kernels = ops[ops["kind"].eq("compute")]
    wanted = per_text(host["name"], lambda name: name in FORMULAS or name in ELEMENTWISE or is_softmax(name))
    is_operator = host["category"].eq("operator").to_numpy(dtype=bool)
    is_launch = (host["category"].eq("runtime") & host["correlation"].notna()).to_numpy(dtype=bool)
    known = host[is_operator & wanted]
    costs = _costs(known)
    kept = host[is_launch | (is_operator & wanted & host.index.isin(costs.index))]
    position = operator_positions(replace(_EMPTY, host_ops=kept, device_ops=kernels))
    found = kernels[["rank", "device", "name", "start_us", "duration_us", "grid"]]
    absent = position == NOT_LAUNCHED
    labels = kept.index.to_numpy(dtype=np.int64)[np.where(absent, 0, position)] if len(kept) else np.zeros(len(kernels), np.int64)
    found = found.assign(operator=pd.arrays.IntegerArray(labels, absent))
    looked_up = costs.reindex(pd.Index(np.where(absent, -1, labels)))
    for column in costs.columns:
        found = found.assign(**{column: looked_up[column].array})
    calls = host.loc[is_launch, "correlation"]
    found = found.assign(is_launched=kernels["correlation"].isin(calls) & kernels["correlation"].notna())
    took = found.groupby("operator")["duration_us"].transform("sum")
    return _named(found.assign(call_us=took.where(~absent, found["duration_us"])))


def _costs(known: pd.DataFrame) -> pd.DataFrame:
    """Family, shapes, type, FLOP and bytes of the operators that count, by their label."""
    counted = operator_flops(replace(_EMPTY, host_ops=known)).set_index("operator")
    counted = counted.rename(columns={"name": "operator_name"})[
        ["operator_name", "family", "input_shapes", "dtype", "flops", "bytes"]
    ]
    rest = known[per_text(known["name"], lambda name: name not in FORMULAS)]
    keys = rest[["name", "input_shapes", "input_types"]].astype(object)
    number, distinct = pd.factorize(pd.MultiIndex.from_frame(keys.where(keys.notna(), "")))
    answers = [_elementwise(name, shapes, types) for name, shapes, types in distinct] or [("softmax", None, None)]
    family, dtype, moved = zip(*answers, strict=True)
    simple = pd.DataFrame(
        {
            "family": pd.Series(family, dtype="string"),
            "dtype": pd.Series(dtype, dtype="string"),
            "bytes": pd.Series(moved, dtype="Int64"),
        }
    ).take(number)
    simple = simple.set_axis(rest.index).assign(
        operator_name=rest["name"], input_shapes=rest["input_shapes"], flops=pd.array([pd.NA] * len(rest), dtype="Int64")
    )
    types = known.loc[counted.index, "input_types"]
    counted = counted.assign(dtype=counted["dtype"].astype("string").fillna(_first_types(counted["operator_name"], types)))
    texts = ["operator_name", "input_shapes", "family", "dtype"]
    return pd.concat(
        [counted.astype(dict.fromkeys(texts, "string")), simple[counted.columns].astype(dict.fromkeys(texts, "string"))]
    )


def _first_types(names: pd.Series, types: pd.Series) -> pd.Series:
    """Type of the first operand, of spellings that `DTYPES` does not hold."""
    keys = pd.DataFrame({"name": names.astype(object), "types": types.astype(object)}).fillna("")
    number, distinct = pd.factorize(pd.MultiIndex.from_frame(keys))
    found = [
        _short(listed[index]) if len(listed := json_list(text)) > (index := FORMULAS[name][2][0]) else None
        for name, text in distinct
    ]
    return pd.Series(pd.array(found, dtype="string"), dtype="string").take(number).set_axis(names.index)


def _short(kind: object) -> str | None:
    return _SHORT.get(kind.removeprefix("c10::").lower()) if isinstance(kind, str) else None


def _elementwise(name: str, shapes: str, types: str) -> tuple[str, str | None, int | None]:
    """Family, type and bytes of a softmax or of an elementwise operator."""
    listed = [each if isinstance(each, list) else [] for each in json_list(shapes)]
    given = [each for each in listed if each and all(type(size) is int and size >= 0 for size in each)]
    kinds = [DTYPES.get(kind, (None, 0)) if isinstance(kind, str) else (None, 0) for kind in json_list(types)]
    dtype = kinds[0][0] if kinds else None
    if name not in ELEMENTWISE:
        return "softmax", dtype, None
    widths = [kinds[index][1] if index < len(kinds) else 0 for index, each in enumerate(listed) if each in given and each]
    if not given or not all(widths) or len(widths) != len(given):
        return "elementwise", dtype, None
    written = max(math.prod(each) for each in given) * widths[0]
    return "elementwise", dtype, sum(math.prod(each) * width for each, width in zip(given, widths, strict=True)) + written


def _named(found: pd.DataFrame) -> pd.DataFrame:
    """Family and type from the kernel's own name where no operator tells them."""
    single, double = matching(found["name"], _SINGLE), matching(found["name"], _DOUBLE)
    family = pd.Series(
        np.where(matching(found["name"], _CONVOLUTION), "convolution", "matmul"), index=found.index, dtype="string"
    )
    dtype = pd.Series(np.where(double, "float64", "float32"), index=found.index, dtype="string")
    told = pd.Series(single | double, index=found.index)
    return found.assign(
        family=found["family"].astype("string").fillna(family.where(told & found["operator"].isna())),
        dtype=found["dtype"].astype("string").fillna(dtype.where(told)),
    )
