"""Fix: let collectives go from GPU to GPU, not through the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.analyses.allocator_settings import device_kind
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_TWO = Machine(devices=("NVIDIA A100-SXM4-80GB",) * 2)
_HOSTS = "rank host time_us\n0 a 1\n1 a 1\n2 a 1\n3 a 1"


@fix(
    knobs=("backend",),
    answers=("host_staged_collectives",),
    reason="NCCL moves tensors between GPUs without a copy through the host's memory",
    source="PyTorch documentation, torch.distributed: use NCCL for training on CUDA GPUs, gloo on CPUs",
    caution="collectives of CPU tensors need gloo beside it: backend 'cpu:gloo,cuda:nccl'",
    examples=(
        FixExample("two ranks on two GPUs", {"backend": "gloo"}, {"backend": "nccl"}, machine=_TWO, world_size=2),
        FixExample("already", {"backend": "nccl"}, None, "already", machine=_TWO, world_size=2),
        FixExample("a CPU job", {"backend": "gloo", "device": "cpu"}, None, "on the CPU", machine=_TWO, world_size=2),
        FixExample("no GPU", {"backend": "gloo"}, None, "no GPU is known", world_size=2),
        FixExample(
            "four ranks of one host on two GPUs",
            {"backend": "gloo"},
            None,
            "4 ranks of one host share 2 GPUs",
            machine=_TWO,
            world_size=4,
            make_run=lambda: Run(host_samples=table_from_text("host_samples", _HOSTS)),
        ),
        FixExample("another backend", {"backend": "mpi"}, None, "backend is mpi", machine=_TWO, world_size=2),
    ),
)
def use_nccl(config: Mapping[str, Any], machine: Machine, run: Run) -> Mapping[str, Any] | str:
    """Use NCCL where each process has a GPU of its own: NCCL refuses two ranks on one."""
    now = value_of(config, "backend")
    if now not in ("gloo", "nccl"):
        return f"backend is {now}, not gloo"
    if device_kind(config) == "cpu":
        return "tensors are on the CPU, which NCCL does not serve"
    if not machine.devices:
        return "no GPU is known to be there"
    per_host = run.host_samples.groupby("host", observed=True)["rank"].nunique()
    most = int(per_host.max()) if len(per_host) else None
    if most is not None and most > len(machine.devices):
        return f"{most} ranks of one host share {len(machine.devices)} GPUs: NCCL needs one for each"
    return {"backend": "nccl"}
