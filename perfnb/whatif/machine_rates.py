"""Measured constants of a machine as quantities with an interval; `perfnb.record.machine_probe` measures them."""

from __future__ import annotations

import math
from typing import Final

from perfnb.prediction import Unknown
from perfnb.record.loader_probe_quiet import Load
from perfnb.record.machine_probe import PREFIX
from perfnb.run import Machine
from perfnb.whatif.uncertainty import Estimate

PROBE: Final = "perfnb.probe_machine(model, batch, optimizer=optimizer).attach(run), on this machine while nothing else runs"
MODEL_ERROR: Final = 0.10
"""A prior, where forward and backward of the model itself were timed both ways: what is left open are the loss and the caches."""

_LOAD: Final = {"pressure_cpu_share": 0.0, "foreign_cores": 0.0, "delay_share": math.nan}
"""Fields of `Load` in their order, and what stands for those that a probe did not tell."""


def rate(machine: Machine, name: str, *, is_shadow: bool = False) -> Estimate | Unknown:
    """A constant of `perfnb.probe_machine` with its 80 % interval, or what would measure it.

    Parameters
    ----------
    machine
        What a run ran on.
    name
        Without the prefix `machine.`.
    is_shadow
        Whether a constant of a busy machine is taken too; benchmarks only.

    Examples
    --------
    >>> given = {"machine.x": 8.0, "machine.x.low": 7.0, "machine.x.high": 9.0}
    >>> rate(Machine(constants=given), "x")
    Estimate(value=8.0, low=7.0, high=9.0)
    >>> rate(Machine(), "x").reason
    'machine.x was not measured'
    """
    full = f"{PREFIX}{name}"
    value = machine.constants.get(full)
    if value is None or not value > 0.0:
        return Unknown(f"{full} was not measured", PROBE)
    known = [machine.constants.get(f"{PREFIX}{each}", default) for each, default in _LOAD.items()]
    load = Load(*known)
    if not load.is_quiet and not is_shadow:
        return Unknown(f"{full} was measured on a busy machine: {load}", PROBE)
    low, high = (machine.constants.get(f"{full}.{end}", value) for end in ("low", "high"))
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))
