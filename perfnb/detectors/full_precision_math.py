"""Detector of products and convolutions that run in full precision where half the bits, or TF32, would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from perfnb.analyses.flop_formulas import BACKWARD_CONVOLUTION
from perfnb.analyses.kernel_losses import kernel_losses, owned_by, time_share
from perfnb.analyses.kernel_owners import LEAST_FULL_SHARE
from perfnb.analyses.operator_flops import operator_flops
from perfnb.analyses.reached_rates import speedup_name
from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import ConfigHint, Unmeasured, detector, example
from perfnb.run import Machine, Run

_EMPTY: Final = Run()
_DOUBLE: Final = ("fp64", "float64", "double")
_SHAPES: Final = "[[64,64],[64,64]]"
_TWICE: Final = Machine(constants={f"matmul.float64.{_SHAPES}.speedup": 2.0})
_HOST: Final = f"""rank process thread category name             start_us duration_us correlation input_shapes input_types
                   0    1       1      operator aten::mm         0        9           -           {_SHAPES}    ["double"]
                   0    1       1      runtime  cudaLaunchKernel 1        1           1           -            -"""


@detector(
    family="device compute",
    title="Products in full precision",
    claims=("compute", "forward.cpu", "backward.cpu", "forward.wall", "backward.wall"),
    after=("clock_throttling",),
    injected_by="double_precision",
    recorded_only_when="not validated on a GPU: no device run of ours is recorded yet, and no speed in other types is measured",
    source="a prior, not validated: from .10 of compute time on; the speed-up is measured at these shapes, never a data sheet's",
    not_to_confuse_with=("clock_throttling", "layout_conversion", "underfilled_gpu", "launch_overhead"),
    examples=(
        example(
            "a product in float64 of 80 us, twice as fast in 16 bits, over the edge of two steps; rank 1 computes in float32",
            lost_share=0.10,
            machine=_TWICE,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name  start_us duration_us correlation
                          0    0      7      compute dgemm 60       80          1
                          0    0      7      compute relu  198      2           -
                          1    0      7      compute relu  0        200         -""",
        ),
        example(
            "8 of 200 us of compute stay under a tenth: it owns no kernel",
            lost_share=0.0,
            machine=_TWICE,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            host_ops=_HOST,
            device_ops="""rank device stream kind    name  start_us duration_us correlation
                          0    0      7      compute dgemm 0        8           1
                          0    0      7      compute relu  8        192         -""",
        ),
    ),
)
def full_precision_math(
    config: Mapping[str, Any],
    machine: Machine,
    steps: pd.DataFrame,
    device_ops: pd.DataFrame | None = None,
    host_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time that matrix products and convolutions would save in 16 bits, or in TF32.

    Counted are float64, and float32 on the plain units of a device that has TF32 (compute capability 8.0 and later), told by the
    operators' types and by the names of cuBLAS, cuDNN and CUTLASS. The loss is their time x (1 - 1/s), s measured on this
    device at these shapes; without it this is a hint, not a finding. It matters because tensor cores do such products several
    times faster. It cannot tell whether the training bears fewer bits. Not validated on a GPU.
    """
    if device_ops is None:
        return _on_host(config, machine, steps, host_ops)
    kernels, everything = owned_by("full_precision_math", host_ops, device_ops, machine, config)
    speedup = _speedups(kernels, machine)
    if len(kernels) and speedup.isna().all():
        share = time_share(kernels, everything)
        kinds = " and ".join(sorted(set(kernels["dtype"].dropna())))
        raise ConfigHint(_hint(kinds, f"{share:.0%} of compute time"))
    return kernel_losses(kernels, 1.0 - 1.0 / speedup.clip(lower=1.0), steps)


def _on_host(config: Mapping[str, Any], machine: Machine, steps: pd.DataFrame, host_ops: pd.DataFrame | None) -> pd.DataFrame:
    """The same of a CPU job: of its traced operators, or a hint from its config."""
    if host_ops is not None and host_ops["input_types"].notna().any():
        work = operator_flops(replace(_EMPTY, host_ops=host_ops))
        work = work[work["family"].isin(["matmul", "convolution"]) | work["name"].eq(BACKWARD_CONVOLUTION)]
        calls = host_ops.loc[work["operator"], ["rank", "start_us", "duration_us"]].set_axis(work.index)
        every = work[["family", "dtype", "input_shapes"]].assign(**calls, name=work["name"], operator_name=work["name"])
        every = every.assign(device=pd.array([pd.NA] * len(every), dtype="Int64"), operator=work["operator"])
        double = every[every["dtype"].eq("float64").fillna(value=False).to_numpy(dtype=bool)]
        share = time_share(double, every)
        if share < LEAST_FULL_SHARE:
            return kernel_losses(double.iloc[:0], pd.Series(dtype=float), steps)
        speedup = _speedups(double, machine)
        if speedup.isna().all():
            raise ConfigHint(_hint("float64", f"{share:.0%} of the time of products and convolutions"))
        return kernel_losses(double, 1.0 - 1.0 / speedup.clip(lower=1.0), steps).drop(columns="device")
    if has_knob(config, "precision"):
        stated = value_of(config, "precision")
        if stated in _DOUBLE:
            raise ConfigHint(_hint(str(stated), "the training, as its config says"))
        return pd.DataFrame({"rank": [], "step": [], "lost_us": []}).astype({"rank": int, "step": int, "lost_us": float})
    message = "neither the types of operators nor config['precision'] are known: record(trace=5), or give the config"
    raise Unmeasured(message)


def _speedups(kernels: pd.DataFrame, machine: Machine) -> pd.Series:
    names = [
        speedup_name(str(family), str(dtype), str(shapes))
        for family, dtype, shapes in zip(kernels["family"], kernels["dtype"], kernels["input_shapes"], strict=True)
    ]
    return pd.Series([machine.constants.get(name, float("nan")) for name in names], index=kernels.index, dtype="float64")


def _hint(kinds: str, where: str) -> str:
    return f"products run in {kinds} in {where}: time the same shapes in bf16 or TF32 on this device to know what that costs"
