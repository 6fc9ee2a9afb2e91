"""What takes a device's memory at its peak, as far as the ends of steps tell: what stays, and what a step makes and frees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from perfnb.config.mapping import has_knob, value_of
from perfnb.run import Run

STATES: Final = {
    "sgd": 0,
    "adagrad": 1,
    "rmsprop": 1,
    "adam": 2,
    "adamw": 2,
    "nadam": 2,
    "radam": 2,
    "adamax": 2,
    "lamb": 2,
}
"""State tensors of each parameter's size that an optimizer keeps (torch.optim, without amsgrad, centered or maximize)."""

_WARM_UP_STEPS: Final = 3  # in the first the optimizer makes its state


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """Memory of the device with the largest peak.

    Attributes
    ----------
    kept_bytes
        Allocated at the end of a step: parameters, the optimizer's state, and gradients where the loop keeps them.
    passing_bytes
        What the peak holds beyond: activations and other tensors that a step makes and frees, and gradients where it frees them.
    """

    kept_bytes: float
    passing_bytes: float


def held_memory(allocator: pd.DataFrame) -> HeldMemory | None:
    r"""What stays and what passes of the device with the largest peak; None where the ends of steps or the peak are not known.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> held_memory(table_from_text("allocator", "rank step device allocated_bytes peak_allocated_bytes\n0 5 0 30 100"))
    HeldMemory(kept_bytes=30.0, passing_bytes=70.0)
    """
    known = allocator[allocator["allocated_bytes"].notna() & allocator["peak_allocated_bytes"].notna()]
    if known.empty:
        return None
    worst = known.iloc[int(known["peak_allocated_bytes"].astype("int64").to_numpy().argmax())]
    same = known["device"].eq(worst["device"]).fillna(value=False) | (known["device"].isna() & pd.isna(worst["device"]))
    own = known[known["rank"].eq(worst["rank"]) & same]
    warm = own[own["step"] >= own["step"].min() + _WARM_UP_STEPS]
    kept = float((warm if len(warm) else own)["allocated_bytes"].median())
    return HeldMemory(kept, max(float(worst["peak_allocated_bytes"]) - kept, 0.0))


def state_tensors(config: Mapping[str, Any]) -> int | None:
    """State tensors per parameter of the config's optimizer; None where it is not known."""
    name = value_of(config, "optimizer") if has_knob(config, "optimizer") else None
    states = STATES.get(name) if isinstance(name, str) else None
    if name == "sgd" and has_knob(config, "momentum"):
        momentum = value_of(config, "momentum")
        return None if not isinstance(momentum, (int, float)) else int(momentum > 0)
    return states


def why_not_activations(run: Run, config: Mapping[str, Any]) -> str:
    """Why activations are not known to be the largest category at the peak; "" where they are.

    With r state tensors per parameter, all of one dtype, parameters or state take at most max(1, r) / (1 + r) of what stays,
    and gradients, which may pass, at most 1 / (1 + r): what passes beyond both is activations and temporaries.
    """
    held = held_memory(run.allocator)
    if held is None:
        return _NOT_KNOWN
    states = state_tensors(config)
    largest = (1.0 + max(1, states)) / (1.0 + states) if states is not None else 2.0
    if held.passing_bytes > largest * held.kept_bytes:
        return ""
    return f"activations may not be the largest part of the peak: {_shares(held)}"


def why_not_states(run: Run, config: Mapping[str, Any]) -> str:
    """Why the optimizer's state is not known to be the largest category at the peak; "" where it is.

    With r state tensors per parameter it takes at least r / (2 + r) of what stays (gradients kept, too), and activations take
    at most what passes.
    """
    states = state_tensors(config)
    if states is None:
        return "how much state the optimizer keeps is not known: the config has no optimizer that is"
    if states < 2:  # noqa: PLR2004 - with one, parameters and gradients are as large
        many = "one state tensor" if states else "no state tensor"
        return f"the optimizer keeps {many} per parameter: that is not the largest part"
    held = held_memory(run.allocator)
    if held is None:
        return _NOT_KNOWN
    if held.passing_bytes < states / (2.0 + states) * held.kept_bytes:
        return ""
    return f"the optimizer's state may not be the largest part of the peak: {_shares(held)}"


_NOT_KNOWN: Final = "what holds the memory at its peak is not known: record the training on its GPU (perfnb.record)"


def _shares(held: HeldMemory) -> str:
    passing = held.passing_bytes / max(held.kept_bytes + held.passing_bytes, 1.0)
    return f"{passing:.0%} of it comes and goes within a step"
