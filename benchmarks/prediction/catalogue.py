"""The pairs: which change of which training, those that models may be tuned on and those that are only scored.

Each list is in the order in which it is run: one pair of every knob comes first, so that a part of it is balanced too. Pairs with
the same start are alternatives for one training: the regret of a suggestion is told from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from benchmarks.prediction.case import PairCase, Split
from benchmarks.prediction.workloads import WORKLOADS

Knobs = Mapping[str, Any]
Recipe = tuple[str, Knobs, Knobs]
"""Data, what the start has besides the defaults, and the change."""

_WORKERS: Final = {"num_workers": 1}
_LOGS: Final = {"log_every_n_steps": 1}
_SAVES: Final = {"checkpoint_every_n_steps": 2, "gradient_accumulation_steps": 3}
_LOOP: Final = {"optimizer_implementation": "loop"}
_COLLECTS: Final = {"gc_collect_every_n_steps": 5}
_MICRO: Final = {"gradient_accumulation_steps": 4}

_LOADER_DATA: Final = ("waits", "transforms", "mixed", "long_waits", "long_transforms")
"""One of them for each workload: the alternatives of its loader start alike."""

_LOADER: Final[Sequence[Knobs]] = ({"num_workers": 2}, {"num_workers": 1}, {"cache_samples": "memory"}, {"num_workers": 4})
_COMPUTE: Final[Sequence[Knobs]] = ({"precision": "bf16"}, {"optimizer_implementation": "fused"}, {"torch_num_threads": 2})
_SINGLE: Final[Sequence[Recipe]] = (
    ("memory", _LOGS, {"log_every_n_steps": 10}),
    ("memory", _SAVES, {"checkpoint_every_n_steps": 10}),
    ("memory", _COLLECTS, {"gc_freeze": True}),
    ("memory", {"torch_num_threads": 4}, {"torch_num_threads": 2}),
    ("memory", _SAVES, {"async_checkpoint": True}),
    ("waits", _WORKERS, {"prefetch_factor": 4}),
    ("uneven_waits", {"num_workers": 2}, {"in_order": False}),
    ("waits", _WORKERS, {"persistent_workers": True}),
    ("memory", _LOOP, {"optimizer_implementation": "fused"}),
    ("memory", {"torch_num_threads": 2}, {"torch_num_threads": 4}),
    ("uneven_waits", {"num_workers": 2}, {"prefetch_factor": 8}),
    ("uneven_waits", {}, {"num_workers": 2}),
    ("waits", _LOGS, {"log_every_n_steps": 5}),
    ("long_waits", {"num_workers": 2}, {"num_workers": 1}),
)
_SEVERAL: Final[Sequence[Recipe]] = (
    ("waits", _LOGS, {"num_workers": 2, "log_every_n_steps": 20}),
    ("transforms", _LOOP, {"num_workers": 1, "optimizer_implementation": "fused"}),
    ("mixed", _LOGS, {"num_workers": 2, "prefetch_factor": 4, "log_every_n_steps": 10}),
)
_RANKS: Final[Sequence[Recipe]] = (
    ("memory", {}, {"gradient_compression": "fp16"}),
    ("memory", {"bucket_cap_mb": 0.05}, {"bucket_cap_mb": 25}),
    ("memory", {"balance_batches": False}, {"balance_batches": True}),
    ("memory", {**_MICRO, "sync_every_micro_batch": True}, {"sync_every_micro_batch": False}),
    ("memory", {}, {"gradient_accumulation_steps": 2}),
    ("memory", {}, {"bucket_cap_mb": 0.05}),
    ("memory", {"find_unused_parameters": True}, {"find_unused_parameters": False}),
    ("memory", _LOGS, {"log_every_n_steps": 10}),
)
_COMPILED: Final = frozenset({"mlp", "small_transformer", "residual_cnn"})
"""Compiling takes half a minute in each run: few pairs of it."""


def cases(split: Split) -> list[PairCase]:
    """Pairs of a set, in the order in which they are run."""
    kinds = [list(made) for made in _kinds(split)]
    mixed = [case for turn in zip_longest(*kinds) for case in turn if case is not None]
    first: dict[str, PairCase] = {}
    for case in mixed:
        first.setdefault(case.knobs, case)
    early = list(first.values())
    return [*early, *(case for case in mixed if case not in early)]


def _kinds(split: Split) -> Sequence[Iterator[PairCase]]:
    single = [name for name, each in WORKLOADS.items() if each.split == split and each.world_size == 1]
    large = [name for name in single if name in ("large_images", "long_signals")]
    usual = [name for name in single if name not in large]
    ranks = [name for name, each in WORKLOADS.items() if each.split == split and each.world_size > 1]
    times = 1 if split == "development" else 2
    return (
        _alternatives("loader", usual, split, _LOADER),
        _alternatives("compute", usual, split, _COMPUTE),
        _spread("single", _SINGLE, usual, split, times),
        _large(large, split),
        _spread("several", _SEVERAL, usual, split, times),
        _batch(usual, split),
        _spread("ranks", _RANKS, ranks, split, times),
        _further(usual, split),
    )


def _alternatives(kind: str, workloads: Sequence[str], split: Split, changes: Sequence[Knobs]) -> Iterator[PairCase]:
    """Each change with every workload."""
    for turn, change in enumerate(changes):
        for number in range(len(workloads)):
            place = (number + turn) % len(workloads)
            data = _LOADER_DATA[place % len(_LOADER_DATA)] if kind == "loader" else "memory"
            yield PairCase(workloads[place], data, split, change, {}, kind)


def _spread(kind: str, recipes: Sequence[Recipe], workloads: Sequence[str], split: Split, times: int) -> Iterator[PairCase]:
    """Each change with one workload after another, so that every workload has its share of each knob."""
    for turn in range(times):
        for number, (data, start, change) in enumerate(recipes):
            yield PairCase(workloads[(number + turn) % len(workloads)], data, split, change, start, kind)


def _batch(workloads: Sequence[str], split: Split) -> Iterator[PairCase]:
    for number, name in enumerate(workloads):
        size = WORKLOADS[name].batch_size
        yield PairCase(name, "memory", split, {"batch_size": round(size * (1.5, 2)[number % 2])}, {}, "batch")
        if number % 2 == 0:
            yield PairCase(name, "memory", split, {"gradient_accumulation_steps": 2}, {}, "batch")


def _large(workloads: Sequence[str], split: Split) -> Iterator[PairCase]:
    """Large samples that cost nothing to make: workers make it slower."""
    for name in workloads:
        for workers in (2, 1, 4):
            yield PairCase(name, "memory", split, {"num_workers": workers}, {}, "large")


def _further(workloads: Sequence[str], split: Split) -> Iterator[PairCase]:
    for name in workloads:
        if "cnn" in name:
            yield PairCase(name, "memory", split, {"memory_format": "channels_last"}, {}, "compute")
        if name in _COMPILED:
            yield PairCase(name, "memory", split, {"compile": True}, {}, "compute")


def quick_cases() -> list[PairCase]:
    """Four pairs of development for a check in two minutes: a loader, a loop, a compute knob, and large samples."""
    wanted = {"mlp-waits-num_workers=2", "cnn-memory-optimizer_implementation=fused", "large_images-memory-num_workers=2"}
    logs = [case for case in cases("development") if case.knobs == "log_every_n_steps" and case.data == "memory"]
    return [*(case for case in cases("development") if case.id in wanted), *logs[:1]]
