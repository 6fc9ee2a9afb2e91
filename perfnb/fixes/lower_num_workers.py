"""Fix: no more loader workers than cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine


@fix(
    knobs=("num_workers",),
    answers=("oversubscribed_workers", "cpu_quota_throttling", "host_memory_pressure"),
    reason="more workers than cores wait for one another and for the training thread, and each holds batches",
    source="torch.utils.data.DataLoader warns where num_workers is over the number of usable cores",
    caution="workers that mostly wait for storage may be more than there are cores",
    examples=(
        FixExample("8 workers on 4 cores", {"num_workers": 8}, {"num_workers": 3}, machine=Machine(cpu_capacity=4)),
        FixExample("half a core is none to count on", {"num_workers": 8}, {"num_workers": 1}, machine=Machine(cpu_capacity=2.5)),
        FixExample("one core", {"num_workers": 8}, {"num_workers": 1}, machine=Machine(cpu_capacity=1)),
        FixExample("as many as cores", {"num_workers": 4}, None, "4 cores", machine=Machine(cpu_capacity=4)),
        FixExample("cores not known", {"num_workers": 8}, None, "how many cores"),
        FixExample("not a number", {"num_workers": "8"}, None, "'8'", machine=Machine(cpu_capacity=4)),
    ),
)
def lower_num_workers(config: Mapping[str, Any], machine: Machine) -> Mapping[str, Any] | str:
    """Lower `num_workers` to one less than the cores that the job may use: the training thread needs one too."""
    now = value_of(config, "num_workers")
    if type(now) is not int or now < 0:
        return f"num_workers is {now!r}, no number of workers"
    if machine.cpu_capacity is None:
        return "how many cores the job may use is not known"
    if now <= machine.cpu_capacity:
        return f"num_workers is {now} on {machine.cpu_capacity:g} cores"
    return {"num_workers": max(int(machine.cpu_capacity) - 1, 1)}
