"""Fix: let worker processes load batches while training runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, OneOf, StepParts, fix
from perfnb.run import Machine

_OFFERED: Final = (1, 2, 3, 4, 6, 8, 12, 16)
_SLOW_BATCH = {"step": 100.0, "data.wall": 60.0, "loader": 60.0}


@fix(
    knobs=("num_workers",),
    answers=("slow_sample_read", "slow_transform", "data_stall", "input_straggler"),
    reason="worker processes load the next batches while this one is trained on",
    source="PyTorch documentation, torch.utils.data: multi-process data loading",
    caution="each worker holds a copy of the dataset; no CUDA tensors in the dataset; random augmentation needs worker seeds",
    examples=(
        FixExample(
            "60 us of loading beside 40 us of work need 2 workers",
            {"num_workers": 0},
            {"num_workers": OneOf((2, 3, 4))},
            parts=_SLOW_BATCH,
        ),
        FixExample(
            "no more workers than cores",
            {"num_workers": 0},
            {"num_workers": OneOf((2,))},
            parts=_SLOW_BATCH,
            machine=Machine(cpu_capacity=2),
        ),
        FixExample(
            "a loader that mostly waits needs no core for each worker",
            {"num_workers": 0},
            {"num_workers": OneOf((6, 8, 12))},
            parts={"step": 100.0, "data.cpu": 5.0, "data.blocked": 80.0, "loader": 85.0},
            machine=Machine(cpu_capacity=2),
        ),
        FixExample(
            "as many workers as cores", {"num_workers": 2}, None, "2 cores", parts=_SLOW_BATCH, machine=Machine(cpu_capacity=2)
        ),
        FixExample("not a number", {"num_workers": "0"}, None, "'0'", parts=_SLOW_BATCH),
        FixExample("no such knob", {"batch_size": 8}, None, "no num_workers", parts=_SLOW_BATCH),
        FixExample(
            "nothing to hide behind",
            {"num_workers": 0},
            None,
            "nothing else",
            parts={"step": 60.0, "data.wall": 60.0, "loader": 60.0},
        ),
    ),
)
def raise_num_workers(config: Mapping[str, Any], parts: StepParts, machine: Machine) -> Mapping[str, Any] | str:
    """Raise `num_workers` to about loading time per batch over the rest of the step, at most the cores of the machine.

    More than the cores where loading without workers waits for longer than it runs: waiting needs no core. The what-if model
    chooses among values from there on: batches arrive in order, so a little more than the mean may be needed.
    """
    now = value_of(config, "num_workers")
    if type(now) is not int or now < 0:
        return f"num_workers is {now!r}, no number of workers"
    stall = sum(parts.get(part, 0.0) for part in ("idle.data", "data.cpu", "data.blocked", "data.wall"))
    rest = parts["step"] - stall
    if rest <= 0:
        return "the step holds nothing else than loading, so there is nothing to load behind"
    only_waits = now == 0 and parts.get("data.blocked", 0.0) > parts.get("data.cpu", 0.0)
    if machine.cpu_capacity is not None and now >= machine.cpu_capacity:
        return f"num_workers is {now} on {machine.cpu_capacity:g} cores already"
    wanted = max(math.ceil(parts["loader"] * max(now, 1) / rest), now + 1)
    limit = math.inf if only_waits else machine.cpu_capacity or math.inf
    values = [value for value in _OFFERED if wanted <= value <= min(limit, 2 * wanted)]
    return {"num_workers": OneOf(tuple(values) or (min(wanted, int(limit)) if limit < math.inf else wanted,))}
