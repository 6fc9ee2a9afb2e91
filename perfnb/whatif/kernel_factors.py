"""How long kernels of a device job take in another type, layout or form: by what was measured of this device.

Nothing here was validated on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.kernel_owners import is_before_tf32, kernel_owners
from perfnb.analyses.reached_rates import MEMORY_RATE, rate_name, speedup_name
from perfnb.prediction import Change, Unknown
from perfnb.whatif.device_edits import DeviceEdit
from perfnb.whatif.step_simulation import replay_problem
from perfnb.whatif.timeline import Timeline

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel
    from perfnb.whatif.rank_model import RankModel

Floats = NDArray[np.float64]

GPU: Final = "not validated on a GPU"
LEAST_KNOWN_SHARE: Final = 0.9  # whatif contract, section 7: the shapes of the trace's top 90 %
_FAMILIES: Final = ("matmul", "convolution")
_WIDTHS: Final = {"float32": 4.0, "float64": 8.0}
_SHORT: Final = 2.0
NEEDS: Final = "a measurement on the device itself: these shapes in both types, given as constants of the machine"


def kernels_of(model: StepModel) -> pd.DataFrame:
    """Compute kernels of the run with what they work on; see `perfnb.analyses.kernel_owners.kernel_owners`."""
    run = model.run
    return kernel_owners(run.host_ops, run.device_ops, run.machine, run.config)


def changed_kernels(
    model: StepModel, key: str, factors: pd.Series, *, least: pd.Series | None = None, most: pd.Series | None = None
) -> DeviceEdit:
    """An edit by factors of device ops, given by their label in `run.device_ops`; ops without one stay."""

    def aligned(given: pd.Series) -> Mapping[int, Floats]:
        return MappingProxyType({rank.rank: _of_timeline(rank, given) for rank in model.measured.ranks})

    if least is None or most is None:
        return DeviceEdit(key, factors=aligned(factors))
    return DeviceEdit(
        key, factors=aligned(factors), least_factors=aligned(least), most_factors=aligned(most), end=f"end of {key}"
    )


def with_kernels(
    model: StepModel, change: Change, find: Callable[[StepModel], tuple[pd.Series, str] | Unknown], name: str, error: float
) -> StepModel | Unknown:
    """The model with kernels changed by what `find` says of them, or why there is none.

    Parameters
    ----------
    model, change
        A device job's model, and the change of a knob.
    find
        Gives a factor of each kernel by its label, and what that rests on; asked only where the trace can be replayed.
    name, error
        Of the transform's model, and its prior error.
    """
    refused = replay_problem(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    found = find(model)
    if isinstance(found, Unknown):
        return found
    factors, told = found
    edit = changed_kernels(model, str(change), factors)
    return model.with_device_edit(change.knob, edit).with_error(name, error, told, GPU)


def _of_timeline(rank: RankModel, factors: pd.Series) -> Floats:
    if not isinstance(rank.graph, Timeline):
        message = "a rank without a trace to replay was edited"
        raise AssertionError(message)  # noqa: TRY004 - a defect, not a wrong argument
    return factors.reindex(rank.graph.ops["label"]).fillna(1.0).to_numpy(dtype=np.float64)


def in_short_type(model: StepModel, dtype: str, *, with_rest: bool) -> tuple[pd.Series, str] | Unknown:
    """Factor of each kernel when products and convolutions run in another type, by their label, and what that rests on.

    Products and convolutions take 1 / r; with `with_rest` what is bound by memory takes half (half the bytes), and operands
    are cast (6 bytes read and written per element of float32).

    Parameters
    ----------
    model
        The model of a device job.
    dtype
        The short type as Python names it.
    with_rest
        Whether tensors themselves get shorter, as under autocast, or products alone, as with TF32.
    """
    work = kernels_of(model)
    multiplies = work["family"].isin(_FAMILIES) & work["dtype"].isin(list(_WIDTHS))
    if not multiplies.any():
        reason = "no product or convolution in float32 is seen with its shapes"
        return Unknown(reason, "a trace with record_shapes=True of a training in float32")
    ratios = _ratios(model, work, dtype)
    spent = work["duration_us"].where(multiplies, 0.0)
    known = float(spent[ratios.notna()].sum() / spent.sum())
    if known < LEAST_KNOWN_SHARE:
        reason = (
            f"how much faster products run in {dtype} was measured for {known:.0%} of their time, {LEAST_KNOWN_SHARE:.0%} needed"
        )
        return Unknown(reason, NEEDS)
    factor = (1.0 / ratios).where(multiplies & ratios.notna(), 1.0)
    faster = float(spent.sum() / (spent * factor).sum())
    told = f"products and convolutions run {faster:.2f} times as fast, as measured on this device"
    if not with_rest:
        return factor, told
    bandwidth = model.machine.constants.get(MEMORY_RATE)
    if bandwidth:
        width = work["dtype"].map(_WIDTHS).astype("float64")
        moved = work["bytes"].astype("Float64").to_numpy(dtype=np.float64, na_value=0.0)
        cast_us = 1e6 * moved * (1.0 + _SHORT / width.fillna(np.inf)) / bandwidth
        share = work["duration_us"] / work["call_us"].where(work["call_us"] > 0)
        factor = factor + (cast_us * share / work["duration_us"].where(work["duration_us"] > 0)).where(multiplies).fillna(0.0)
    rest = work["family"].isin(["elementwise", "softmax"]) & work["dtype"].isin(list(_WIDTHS))
    return factor.where(~rest, 0.5), f"{told}; elementwise work takes half, casts are {'counted' if bandwidth else 'not counted'}"


def _ratios(model: StepModel, work: pd.DataFrame, dtype: str) -> pd.Series:
    """How many times as fast each kernel's shapes, else its kind of work, run in the short type; NaN where not measured."""
    constants = model.machine.constants
    keys = work[["family", "dtype", "input_shapes"]].astype(object)
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(keys.where(keys.notna(), "")))

    def ratio(family: str, now: str, shapes: str) -> float:
        own = constants.get(speedup_name(family, now, shapes))
        if own:
            return own
        fast, slow = constants.get(rate_name(family, dtype)), constants.get(rate_name(family, now))
        return fast / slow if fast and slow else np.nan

    found = np.array([ratio(*each) for each in distinct], dtype=np.float64)
    return pd.Series(found[codes] if len(distinct) else np.full(len(work), np.nan), index=work.index)


def aligned_products(model: StepModel) -> tuple[pd.Series, pd.Series, pd.Series, str] | Unknown:
    """Factor of misaligned products once padded, its least and most: at best they reach what this device reaches."""
    work = kernels_of(model)
    odd = work["owner"].eq("misaligned_shapes")
    if not odd.any():
        return Unknown("no product in 16 bits has a side that is no multiple of 8", "a trace with record_shapes=True")
    reached = work["attained_share"].where(odd)
    if reached[odd].isna().any():
        return Unknown("what this device reaches in such products was not measured", NEEDS)
    least = reached.clip(upper=1.0).where(odd, 1.0)
    told = "padded products come between their time of now and what this device reaches; the middle is the geometric mean"
    return np.sqrt(least), least, pd.Series(1.0, index=work.index), told


def without_conversions(model: StepModel) -> tuple[pd.Series, str] | Unknown:
    """Factor of each kernel when images are channels-last: conversions of layout go."""
    work = kernels_of(model)
    gone = work["owner"].eq("layout_conversion")
    if not gone.any():
        return Unknown("the trace shows no kernel that converts the layout of images", "a trace of convolutions on images")
    share = float(work["duration_us"][gone].sum() / work["duration_us"].sum())
    told = f"kernels that convert layouts, {share:.1%} of compute, go; convolutions take as long as now"
    return pd.Series(np.where(gone, 0.0, 1.0), index=work.index), told


def fused_attention(model: StepModel) -> tuple[pd.Series, str] | Unknown:
    """Factor of each kernel of unfused attention: its share of one fused call at the rates that this device reaches."""
    work = kernels_of(model)
    inside = work["block"].notna()
    if not inside.any():
        reason = "no scores, softmax and product with the values are seen in a row"
        return Unknown(reason, "a trace with record_shapes=True of a training with attention")
    if work.loc[inside, "best_us"].isna().any():
        return Unknown("what this device reaches in fused attention was not measured", NEEDS)
    factor = (work["best_us"] / work["duration_us"].where(work["duration_us"] > 0)).where(inside, 1.0).clip(upper=1.0).fillna(1.0)
    return factor, "each block of attention takes what its FLOP and bytes take at the rates that this device reaches"


def lacks_tf32(model: StepModel) -> bool:
    """Whether the device is older than Ampere, another maker's, or of unknown age."""
    return is_before_tf32(kernels_of(model), model.machine)
