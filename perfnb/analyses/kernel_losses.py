"""Evidence of the detectors of single kernels: how much of each kernel's time is lost in which step."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.kernel_owners import kernel_owners
from perfnb.analyses.reached_rates import benchmark_first, wanted_rates
from perfnb.analyses.step_overlap import per_step
from perfnb.run import Machine, Run

NO_HOST: Final = Run().host_ops
"""Host ops of a trace that recorded none: kernels' names still tell some things."""

_LARGEST_UNLAUNCHED: Final = 0.5
"""Share of compute time without a recorded launch up to which "no such kernel" means something: a choice."""

_KEYS: Final = ["rank", "device", "step", "kernel", "operator", "input_shapes"]


def owned_by(
    owner: str, host: pd.DataFrame | None, ops: pd.DataFrame, machine: Machine, config: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Kernels of a detector, and all compute kernels, with the columns of `kernel_owners`.

    Parameters
    ----------
    owner
        Name of the detector.
    host, ops, machine, config
        Tables and facts of the run; the host's None where it was not recorded.
    """
    kernels = kernel_owners(NO_HOST if host is None else host, ops, machine, config)  # type: ignore[arg-type]
    return kernels[kernels["owner"].eq(owner)], kernels


def kernel_losses(kernels: pd.DataFrame, lost_share: pd.Series, steps: pd.DataFrame) -> pd.DataFrame:
    """Lost time of kernels in each step, those of one name, operator and shapes together.

    Parameters
    ----------
    kernels
        Rows of `kernel_owners`.
    lost_share
        Share of each kernel's time that is lost.
    steps
        Table `steps` of the run.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, step, kernel, operator, input_shapes): calls, spent_us and lost_us.
    """
    lost = lost_share.fillna(0.0)
    cut = per_step(kernels.assign(lost_share=lost)[(lost > 0).to_numpy()], steps)
    cut = cut.rename(columns={"name": "kernel"}).drop(columns="operator").rename(columns={"operator_name": "operator"})
    rows = cut.assign(lost_us=cut["inside_us"] * cut["lost_share"], calls=1, spent_us=cut["inside_us"])
    rows = rows.astype({"kernel": "string"})
    return rows.groupby(_KEYS, dropna=False, observed=True, as_index=False)[["calls", "spent_us", "lost_us"]].sum()


def time_share(kernels: pd.DataFrame, of: pd.DataFrame) -> float:
    """Device time of some kernels over that of others; 0 where those took none."""
    whole = float(of["duration_us"].sum())
    return float(kernels["duration_us"].sum()) / whole if whole > 0 else 0.0


def unlaunched(everything: pd.DataFrame) -> str:
    """Why kernels cannot be told from one another, where most of their time has no recorded launch; empty where it has."""
    share = time_share(everything[~everything["is_launched"]], everything)
    if share <= _LARGEST_UNLAUNCHED:
        return ""
    return f"{share:.0%} of compute time has no recorded launch, so that its operators and shapes are not known"


def missing_rates(kernels: pd.DataFrame, machine: Machine, host: pd.DataFrame) -> str:
    """Why kernels cannot be held against what their device reaches, and what to do."""
    if host["input_shapes"].isna().all():
        return "no input shapes: record with torch.profiler.profile(record_shapes=True)"
    wanted = wanted_rates(kernels, machine.constants)
    if wanted:
        return benchmark_first(wanted)
    return "FLOP or bytes of these operators cannot be told from the recorded shapes"


def not_negative(values: pd.Series) -> pd.Series:
    """Values, at least 0."""
    return pd.Series(np.maximum(values.to_numpy(dtype=np.float64), 0.0), index=values.index)
