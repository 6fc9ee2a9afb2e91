"""Fix: load batches into pinned memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.analyses.copies import copies
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_GPU = Machine(devices=("H200",))


def _run(memory: str) -> Run:
    """A run that copies to its device from that kind of memory."""
    ops = f'rank device stream kind name start_us duration_us\n0 0 7 copy "Memcpy HtoD ({memory} -> Device)" 0 1'
    return Run(device_ops=table_from_text("device_ops", ops), signals=frozenset({"device_ops"}))


@fix(
    knobs=("pin_memory",),
    answers=("exposed_transfer",),
    reason="a copy from pinned memory needs no detour, and the host need not wait for it",
    source="PyTorch documentation, torch.utils.data: memory pinning; CUDA C++ programming guide: page-locked host memory",
    caution="pinned memory cannot be swapped out: the host needs room for the loader's batches; not validated on a GPU of ours",
    examples=(
        FixExample("copies from pageable memory", {"pin_memory": False}, {"pin_memory": True}, make_run=lambda: _run("Pageable")),
        FixExample("a GPU, copies not recorded", {"pin_memory": False}, {"pin_memory": True}, machine=_GPU),
        FixExample(
            "copies from pinned memory", {"pin_memory": False}, None, "pinned memory already", make_run=lambda: _run("Pinned")
        ),
        FixExample("pinned already", {"pin_memory": True}, None, "already", machine=_GPU),
        FixExample("no GPU", {"pin_memory": False}, None, "no GPU"),
    ),
)
def pin_memory(config: Mapping[str, Any], machine: Machine, run: Run) -> Mapping[str, Any] | str:
    """Set `pin_memory` to True."""
    if value_of(config, "pin_memory"):
        return "pin_memory is on already"
    if not run.uses_device and not machine.devices:
        return "the run uses no GPU"
    made = copies(run)
    sources = made.loc[made["direction"].eq("HtoD"), "host_memory"].dropna()
    if len(sources) and not sources.eq("pageable").any():
        return "copies to the device come from pinned memory already"
    return {"pin_memory": True}
