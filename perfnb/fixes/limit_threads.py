"""Fix: no more threads than cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

_TWO_RANKS = Run(
    host_samples=table_from_text("host_samples", "rank host time_us\n0 a 0\n1 a 0"), signals=frozenset({"host_samples"})
)


@fix(
    knobs=("torch_num_threads",),
    answers=("thread_oversubscription", "cpu_quota_throttling"),
    reason="an operator ends with its slowest thread, and threads beyond the cores wait for one another",
    source="PyTorch documentation, CPU threading: num_threads of at most the physical cores, to avoid oversubscription",
    caution="set it before the first operator; loader workers and other ranks need cores too",
    examples=(
        FixExample(
            "as many as cores", {"torch_num_threads": 32}, {"torch_num_threads": 2}, machine=Machine(cpu_capacity=2), world_size=1
        ),
        FixExample(
            "two ranks share 4 cores",
            {"torch_num_threads": 4},
            {"torch_num_threads": 2},
            machine=Machine(cpu_capacity=4),
            world_size=2,
            make_run=lambda: _TWO_RANKS,
        ),
        FixExample(
            "a quota of half a core leaves one thread",
            {"torch_num_threads": 4},
            {"torch_num_threads": 1},
            machine=Machine(cpu_capacity=0.5),
        ),
        FixExample("few enough", {"torch_num_threads": 2}, None, "2 cores", machine=Machine(cpu_capacity=2)),
        FixExample("cores not known", {"torch_num_threads": 2}, None, "not known"),
        FixExample("not a number", {"torch_num_threads": "all"}, None, "'all'", machine=Machine(cpu_capacity=2)),
    ),
)
def limit_threads(config: Mapping[str, Any], machine: Machine, run: Run) -> Mapping[str, Any] | str:
    """Give each rank its share of the cores, at least one thread."""
    now, cores = value_of(config, "torch_num_threads"), machine.cpu_capacity
    if type(now) is not int or now < 1:
        return f"torch_num_threads is {now!r}, no number of threads"
    if cores is None:
        return "the number of cores is not known"
    ranks = _ranks_on_a_host(run)
    wanted = max(1, int(cores / ranks))
    if now <= wanted:
        return f"torch_num_threads is {now}, with {ranks} rank{'s' if ranks > 1 else ''} on {cores:g} cores"
    return {"torch_num_threads": wanted}


def _ranks_on_a_host(run: Run) -> int:
    """Most recorded ranks on one host."""
    hosts = run.host_samples[run.host_samples["host"].notna()].drop_duplicates("rank")["host"].astype(str)
    return max(int(hosts.value_counts().max()) if len(hosts) else 1, 1)
