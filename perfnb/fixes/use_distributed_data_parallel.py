"""Fix: one process per device instead of one for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine

_TWO = Machine(devices=("NVIDIA A100-SXM4-80GB",) * 2)


@fix(
    knobs=("parallelism",),
    answers=("single_process_parallelism",),
    reason="a process per device launches for itself, keeps its parameters and exchanges gradients during backward",
    source="PyTorch documentation, torch.nn.DataParallel: it recommends DistributedDataParallel, even on one machine",
    caution="start the script with torchrun; the loader needs a DistributedSampler, and batch_size then counts per process",
    examples=(
        FixExample("DataParallel on two GPUs", {"parallelism": "dp"}, {"parallelism": "ddp"}, machine=_TWO),
        FixExample("already", {"parallelism": "ddp"}, None, "already", machine=_TWO),
        FixExample("sharded", {"parallelism": "fsdp"}, None, "parallelism is fsdp", machine=_TWO),
        FixExample("one GPU", {"parallelism": "dp"}, None, "one device", machine=Machine(devices=("NVIDIA T4",))),
        FixExample("devices not known", {"parallelism": "dp"}, None, "how many devices"),
    ),
)
def use_distributed_data_parallel(config: Mapping[str, Any], machine: Machine) -> Mapping[str, Any] | str:
    """Replace `DataParallel` by `DistributedDataParallel`."""
    now = value_of(config, "parallelism")
    if now not in ("dp", "ddp"):
        return f"parallelism is {now}, not dp"
    if not machine.devices:
        return "how many devices the machine has is not known"
    return "the machine has one device" if len(machine.devices) == 1 else {"parallelism": "ddp"}
