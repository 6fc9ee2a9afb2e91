"""Fix: leave the allocator's cache alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.allocator_settings import why_not_caching
from perfnb.analyses.device_memory import device_memory
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_FULL: Final = 0.9  # of usable memory: torch_tb_profiler 0.4.3 warns from there
_GPU: Final = Machine(device_memory_bytes=(1000,))
_EACH: Final = {"empty_cache_every_n_steps": 1}


def _reserving(peak: int) -> Run:
    rows = f"rank step device peak_reserved_bytes\n0 1 0 {peak}"
    return Run(allocator=table_from_text("allocator", rows), signals=frozenset({"allocator"}))


@fix(
    knobs=("empty_cache_every_n_steps",),
    answers=("allocator_churn",),
    reason="what empty_cache() gives back is asked for again in the next step, and both wait for the device",
    source="PyTorch documentation, torch.cuda.empty_cache: it does not increase the memory that PyTorch can use",
    caution="the cache then stays, how large only a replay can tell: leave it where another process shares the device",
    examples=(
        FixExample(
            "600 of 1000 bytes reserved", _EACH, {"empty_cache_every_n_steps": 0}, machine=_GPU, make_run=lambda: _reserving(600)
        ),
        FixExample("nearly full even so", _EACH, None, "without", machine=_GPU, make_run=lambda: _reserving(950)),
        FixExample("size not known", _EACH, None, "not known", make_run=lambda: _reserving(600)),
        FixExample("nothing recorded", _EACH, None, "not recorded", machine=_GPU),
        FixExample(
            "never emptied",
            {"empty_cache_every_n_steps": 0},
            None,
            "never emptied",
            machine=_GPU,
            make_run=lambda: _reserving(600),
        ),
        FixExample(
            "not a number",
            {"empty_cache_every_n_steps": "often"},
            None,
            "'often'",
            machine=_GPU,
            make_run=lambda: _reserving(600),
        ),
        FixExample("a CPU", {**_EACH, "device": "cpu"}, None, "runs on cpu"),
    ),
)
def drop_empty_cache(config: Mapping[str, Any], run: Run, machine: Machine) -> Mapping[str, Any] | str:
    """Stop emptying the cache, where what is reserved now leaves a tenth of the usable memory."""
    now = value_of(config, "empty_cache_every_n_steps")
    if now in (0, None, False):
        return "the cache is never emptied"
    if type(now) is not int or now < 0:
        return f"empty_cache_every_n_steps is {now!r}, not a number of steps"
    if reason := why_not_caching(config):
        return reason
    if run.allocator.empty:
        return "what the allocator reserves is not recorded"
    pressure = device_memory(run.allocator, machine, config)["pressure"]
    if pressure.isna().all():
        return "the size of the device's memory is not known"
    if pressure.max() >= _FULL:
        return f"{pressure.max():.0%} of the usable memory is reserved even so: without emptying it may run out"
    return {"empty_cache_every_n_steps": 0}
