"""Each compute kernel with the one detector that may speak of it, by rules in the catalogue's order."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.flop_formulas import DTYPES, FORMULAS
from perfnb.analyses.json_list import json_list
from perfnb.analyses.kernel_work import kernel_work
from perfnb.analyses.loader_stall import knob_or_none
from perfnb.analyses.reached_rates import COMPUTE_CAPABILITY, MULTIPROCESSORS, attained_share
from perfnb.analyses.unfused_softmax import unfused_blocks
from perfnb.categories import matching
from perfnb.launches import NOT_LAUNCHED, launch_positions
from perfnb.run import Machine, Run

OWNERS: Final = (
    "full_precision_math",
    "layout_conversion",
    "unfused_attention",
    "misaligned_shapes",
    "slow_kernels",
    "underfilled_gpu",
)
"""Detectors of single kernels, in the order in which they may take them."""

LEAST_FULL_SHARE: Final = 0.10
"""Share of compute time from which products in full precision are spoken of: a prior, not validated."""

SLOW_BELOW: Final = 0.5
"""Share of what the device reaches below which a kernel is slow: a prior, not validated."""

_ALIGNED: Final = 8
"""Elements of 16 bits that a dimension is a multiple of: NVIDIA, Matrix Multiplication Background User's Guide, table 1."""

_TF32_SINCE: Final = 8.0  # compute capability of Ampere, the first with TF32
# Names that kernels for Ampere and later carry, where a trace holds no properties of its device: cuBLAS, cuDNN, CUTLASS.
_AMPERE_OR_LATER: Final = r"(?i)ampere|hopper|blackwell|sm(8|9|1[0-9])\d_|cutlass_?3x|cutlass_(8|9|1[0-9])\d"
# float32 on the plain units: cuBLAS *_sgemm_*, cuDNN *_scudnn_*, CUTLASS simt, cuDNN f32f32_f32f32.
_SINGLE: Final = r"(?i)sgemm|scudnn|simt|f32f32_f32f32_f32|ffma"
_TENSOR_CORES: Final = r"(?i)tf32|tensorop|s1688|s16816|xf32"
# cuDNN nchwToNhwcKernel, nhwcToNchwKernel; TensorRT and others spell it with underscores.
_LAYOUT: Final = r"(?i)nchw_?(to|2)_?nhwc|nhwc_?(to|2)_?nchw"
_SIXTEEN_BITS: Final = ("float16", "bfloat16")
_OTHER_MAKERS: Final = ("AMD", "Instinct", "Radeon", "Intel", "Apple")

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

_EMPTY: Final = Run()
_memo: list[tuple[Any, Any, Machine, Mapping[str, Any], pd.DataFrame]] = []


def kernel_owners(host: pd.DataFrame, ops: pd.DataFrame, machine: Machine, config: Mapping[str, Any]) -> pd.DataFrame:
    r"""Compute kernels with what they work on and the detector that they belong to.

    Parameters
    ----------
    host, ops
        Tables `host_ops` and `device_ops` of a run.
    machine
        Its machine; `constants` decide what can be judged.
    config
        Its config: `matmul_precision` tells of TF32 where kernels' names do not.

    Returns
    -------
    pandas.DataFrame
        `perfnb.analyses.kernel_work.kernel_work(host, ops)` with owner (one of `OWNERS`), attained_share (see
        `perfnb.analyses.reached_rates`), blocks (of the grid; NaN where not recorded), block (number of the unfused attention
        block; NA elsewhere) and best_us (time that a fused attention would take for this kernel's share of its block).
        The same tables give the same object again.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device kind    name             start_us duration_us correlation
    ...        0    0      compute nchwToNhwcKernel 0        6           -
    ...        0    0      compute relu             6        6           -''',
    ... )
    >>> kernel_owners(Run().host_ops, ops, Machine(), {})["owner"].to_list()
    ['layout_conversion', 'underfilled_gpu']
    """
    for known_host, known_ops, known_machine, known_config, known in _memo:
        if known_host() is host and known_ops() is ops and known_machine is machine and known_config is config:
            return known
    made = _owners(host, ops, machine, config)
    _memo[:] = [(weakref.ref(host), weakref.ref(ops), machine, config, made)]  # the last run only: every detector asks in turn
    return made


def _owners(host: pd.DataFrame, ops: pd.DataFrame, machine: Machine, config: Mapping[str, Any]) -> pd.DataFrame:
    work = kernel_work(host, ops)
    work = _in_blocks(work, host, ops, machine)
    attained = attained_share(work, machine.constants)
    is_slow = (attained < SLOW_BELOW).to_numpy()
    full = _in_full_precision(work, machine, config)
    spent = work["duration_us"].to_numpy(dtype=np.float64)
    full = full & bool(spent[full].sum() >= LEAST_FULL_SHARE * spent.sum())
    rules = [full, matching(work["name"], _LAYOUT), work["block"].notna().to_numpy(), _misaligned(work), is_slow]
    owner = np.select(rules, OWNERS[:-1], default=OWNERS[-1])
    blocks = _per_text(work["grid"], _blocks)
    return work.assign(owner=pd.Series(owner, index=work.index, dtype="string"), attained_share=attained, blocks=blocks)


def is_before_tf32(work: pd.DataFrame, machine: Machine) -> bool:
    """Whether the device is known to lack TF32: another maker's, or older than Ampere, or of unknown age."""
    if any(maker in name for name in machine.devices for maker in _OTHER_MAKERS):
        return True
    capability = machine.constants.get(COMPUTE_CAPABILITY)
    if capability is not None:
        return capability < _TF32_SINCE
    return not matching(work["name"], _AMPERE_OR_LATER).any()


def fill_share(work: pd.DataFrame, machine: Machine) -> pd.Series:
    """Share of the multiprocessors that get a block of each kernel, at most 1; NaN where grid or device are not known."""
    count = machine.constants.get(MULTIPROCESSORS, np.nan)
    return (work["blocks"] / count).clip(upper=1.0)


def _in_full_precision(work: pd.DataFrame, machine: Machine, config: Mapping[str, Any]) -> Flags:
    """Products and convolutions in float64, or in float32 without TF32 on a device that has it."""
    multiplies = work["family"].isin(["matmul", "convolution"]).to_numpy(dtype=bool)
    double = work["dtype"].eq("float64").fillna(value=False).to_numpy(dtype=bool)
    if is_before_tf32(work, machine):
        return multiplies & double
    single = work["dtype"].eq("float32").fillna(value=False).to_numpy(dtype=bool)
    plain = matching(work["name"], _SINGLE)
    if knob_or_none(config, "matmul_precision") == "highest":
        plain = plain | work["family"].eq("matmul").fillna(value=False).to_numpy(dtype=bool)
    return multiplies & (double | (single & plain & ~matching(work["name"], _TENSOR_CORES)))


def _misaligned(work: pd.DataFrame) -> Flags:
    """Products in 16 bits with a dimension that is no multiple of 8; of one element wide ones nothing can be padded."""
    counts = work["family"].eq("matmul") & work["dtype"].isin(_SIXTEEN_BITS)
    keys = work[["operator_name", "input_shapes"]].astype(object).where(counts.fillna(value=False), "")
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(keys.where(keys.notna(), "")))
    odd = np.array([_is_odd(name, shapes) for name, shapes in distinct], dtype=bool)
    return odd[codes] if len(distinct) else np.zeros(len(work), dtype=bool)


def dimensions(name: str, shapes: str) -> tuple[int, int, int] | None:
    """Rows, inner and columns of a matrix product, from the recorded shapes of its operands; None where they do not tell.

    Examples
    --------
    >>> dimensions("aten::addmm", "[[4],[8,16],[16,4]]")
    (8, 16, 4)
    """
    if name not in FORMULAS or FORMULAS[name][0] != "matmul":
        return None
    listed, position = json_list(shapes), FORMULAS[name][2]
    if len(listed) <= max(position):
        return None
    left, right = (listed[index] for index in position)
    if not all(isinstance(each, list) and len(each) > 1 and all(type(size) is int for size in each) for each in (left, right)):
        return None
    if name == "aten::linear":
        return math.prod(left[:-1]), left[-1], right[0]
    return left[-2], left[-1], right[-1]


def _is_odd(name: str, shapes: str) -> bool:
    sizes = dimensions(name, shapes) if name else None
    return sizes is not None and min(sizes) > 1 and any(size % _ALIGNED for size in sizes)


def _in_blocks(work: pd.DataFrame, host: pd.DataFrame, ops: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    """Columns block and best_us: kernels launched inside an unfused attention block of the same thread."""
    blocks = unfused_blocks(host)
    block = np.full(len(work), -1, dtype=np.int64)
    if len(blocks):
        position = launch_positions(replace(_EMPTY, host_ops=host, device_ops=ops.loc[work.index]))
        known = position != NOT_LAUNCHED
        calls = host.iloc[np.where(known, position, 0)]
        moment = calls["start_us"].to_numpy(dtype=np.float64)
        lanes = ["rank", "process", "thread"]
        lane = pd.MultiIndex.from_frame(calls[lanes].astype(str))
        for key, own in blocks.groupby(lanes, observed=True, dropna=False, sort=False):
            inside = known & np.asarray(lane == tuple(map(str, key)), dtype=bool)
            starts, ends = own["start_us"].to_numpy(dtype=np.float64), own["end_us"].to_numpy(dtype=np.float64)
            last = np.searchsorted(starts, moment, side="right") - 1
            inside &= (last >= 0) & (moment < ends[np.maximum(last, 0)])
            block[inside] = own["block"].to_numpy()[last[inside]]
    number = pd.arrays.IntegerArray(np.maximum(block, 0), block < 0)
    best = blocks.set_index("block") if len(blocks) else blocks
    best_us = _fused_us(best, machine) if len(blocks) else pd.Series(dtype=float)
    spent = work["duration_us"].groupby(block).transform("sum").to_numpy(dtype=np.float64)
    share = np.divide(work["duration_us"].to_numpy(dtype=np.float64), spent, out=np.zeros(len(work)), where=spent > 0)
    return work.assign(block=number, best_us=best_us.reindex(block).to_numpy(dtype=np.float64) * share)


def _fused_us(blocks: pd.DataFrame, machine: Machine) -> pd.Series:
    """Time of each block at the rates that this device reaches in fused attention; NaN where one is not known."""
    kinds = [DTYPES.get(kind, ("", 0)) for kind in blocks["dtype"]]
    rows = pd.DataFrame(
        {
            "family": pd.Series("attention", index=blocks.index, dtype="string"),
            "dtype": pd.Series([name for name, _ in kinds], index=blocks.index, dtype="string"),
            "flops": blocks["flops_of_products"].astype("Int64"),
            "bytes": blocks["elements"].astype("Int64") * pd.Series([width for _, width in kinds], index=blocks.index),
            "call_us": 1.0,
        }
    )
    return attained_share(rows, machine.constants)


def _blocks(grid: str) -> float:
    sizes = json_list(grid)
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        return float("nan")
    return float(math.prod(sizes))


def _per_text(column: pd.Series, value: Any) -> Floats:
    """A number per row, worked out once per distinct text; NaN where there is none."""
    text = column.astype("category")
    found = np.array([*(value(str(label)) for label in text.cat.categories), np.nan], dtype=np.float64)
    return found[text.cat.codes.to_numpy()]
