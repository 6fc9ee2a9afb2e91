"""What is done to two ranks: the workloads, each fault with and without its cause, and the healthy trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from benchmarks.detection.case import BOTH, ONCE, Case, Control, Fault, Workload
from benchmarks.detection.ranks_job import RANKS
from benchmarks.detection.ranks_training import Training

Sides = tuple[Training, Training]
"""The same training with the cause and without it."""

_WIDE_BYTES: Final = 8 << 20
_LINK_BYTES: Final = 16 << 20
_SLOW_BIT_PER_S: Final = 1e9
"""A rate that the loopback device of two cores exceeds several times."""

_DEEP_LAYERS: Final = 32
_TINY_MB: Final = 0.1
_RANDOM_TURNS: Final = 97
"""Steps after which random batch sizes begin anew: no divisor of anything else that is periodic."""


def _settings(batch: int, *, large: int) -> Mapping[str, Mapping[str, Any]]:
    return {"small": {"batch_size": batch, "num_workers": 0}, "large": {"batch_size": large, "num_workers": 0}}


WORKLOADS: Final[tuple[Workload, ...]] = (
    Workload("mlp_ranks", "development", _settings(128, large=256), world_size=RANKS),
    Workload("cnn_ranks", "development", _settings(12, large=24), world_size=RANKS),
    Workload("gru_ranks", "held_out", _settings(16, large=32), world_size=RANKS),
    Workload("transformer_ranks", "held_out", _settings(8, large=16), world_size=RANKS),
    Workload("recommender_ranks", "held_out", _settings(256, large=512), world_size=RANKS),
)
_BY_NAME: Final = {workload.name: workload for workload in WORKLOADS}

_CONTROL_BATCHES: Final = 12
"""Times the batch of controls is larger: gradients of 1 to 2 MB are then exchanged in a few percent of a step."""


def _wide_layers(base: Training) -> Sides:
    small = replace(base, batches=_scaled(base, 0.5), wide_bytes=_WIDE_BYTES)
    return small, replace(small, syncs="none")


def _tiny_buckets(base: Training) -> Sides:
    deep = replace(base, batches=_scaled(base, 0.5), deep_layers=_DEEP_LAYERS)
    return replace(deep, bucket_cap_mb=_TINY_MB), deep


def _sync_each_micro(base: Training) -> Sides:
    accumulated = replace(base, batches=_scaled(base, 0.5), wide_bytes=_WIDE_BYTES // 2, accumulation=4)
    return replace(accumulated, syncs="each"), accumulated


def _uneven_rank(base: Training) -> Sides:
    return replace(base, batches=((_size(base),), (3 * _size(base),))), replace(base, batches=_scaled(base, 2))


def _random_batches(base: Training) -> Sides:
    """Of each step's four parts one rank has one or two and the other the rest, as a seed draws it."""
    draws = np.random.default_rng(base.seed).choice([1, 3], _RANDOM_TURNS)
    first, second = (tuple(int(draw) * _size(base) for draw in side) for side in (draws, 4 - draws))
    return replace(base, batches=(first, second)), replace(base, batches=_scaled(base, 2))


def _rank_loader_sleep(base: Training) -> Sides:
    return base, base  # the job calibrates the pause: see `sleep_share`


def _gradient_exchange(base: Training) -> Sides:
    """Nothing is added: what exchanging the gradients of the plain training takes."""
    return base, replace(base, syncs="none")


def _slow_link(base: Training) -> Sides:
    wide = replace(base, wide_bytes=_LINK_BYTES)
    return replace(wide, link_bit_per_s=_SLOW_BIT_PER_S), wide


# Two ranks and the threads that exchange for them are more than two cores: that some wait for one is true in each.
FAULTS: Final[tuple[Fault, ...]] = (
    Fault(
        "gradient_exchange",
        "communication",
        ("exposed_communication",),
        _gradient_exchange,
        "nothing is added; without: no gradients exchanged",
        accepted=("cpu_contention", "undersized_batch"),
        doses=ONCE,
        clock="wall",
    ),
    Fault(
        "wide_layers",
        "communication",
        ("exposed_communication",),
        _wide_layers,
        "8 MiB of weights that cost little to compute, half the batch; without: no gradients exchanged",
        accepted=("cpu_contention", "undersized_batch"),
        doses=ONCE,
        clock="wall",
    ),
    Fault(
        "tiny_buckets",
        "communication",
        ("small_collectives",),
        _tiny_buckets,
        "32 layers of 108 kB in buckets of .1 MB; without: DistributedDataParallel's own buckets",
        accepted=("cpu_contention", "exposed_communication"),
        doses=ONCE,
        clock="wall",
    ),
    Fault(
        "sync_each_micro",
        "communication",
        ("redundant_gradient_sync",),
        _sync_each_micro,
        "4 micro-batches a step, gradients exchanged in each; without: in the last one only",
        accepted=("cpu_contention", "exposed_communication"),
        doses=ONCE,
        clock="wall",
    ),
    Fault(
        "uneven_rank",
        "imbalance",
        ("slow_rank",),
        _uneven_rank,
        "rank 1 has three times the batch of rank 0; without: the same samples, halved between them",
        accepted=("cpu_contention", "rank_imbalance", "memory_rank_skew"),
        doses=ONCE,
    ),
    Fault(
        "random_batches",
        "imbalance",
        ("uneven_batches",),
        _random_batches,
        "of four parts a step one rank has one and the other three, at random; without: two each",
        accepted=("cpu_contention", "rank_imbalance"),
        doses=ONCE,
    ),
    Fault(
        "rank_loader_sleep",
        "imbalance",
        ("input_straggler",),
        _rank_loader_sleep,
        "the loader of rank 1 sleeps before each batch; without: it does not",
        accepted=("cpu_contention", "slow_rank", "rank_imbalance", "data_stall", "slow_sample_read"),
        doses=BOTH,
    ),
    Fault(
        "slow_link",
        "communication",
        ("slow_interconnect",),
        _slow_link,
        "16 MiB of weights over a loopback device held to 1 Gbit/s; without: the same device, not held",
        accepted=("cpu_contention", "exposed_communication"),
        doses=ONCE,
        clock="wall",
        seen_in_tables=False,  # what a loopback device reaches is in no table: the catalogue's links are those between GPUs
    ),
)
FAULT_BY_ID: Final = {fault.id: fault for fault in FAULTS}


def _balanced(base: Training) -> Training:
    return replace(base, batches=_scaled(base, _CONTROL_BATCHES))


def _equal_work(base: Training) -> Training:
    """Rank 0 computes half as many samples twice each: its batch is smaller, its work is not."""
    half, whole = _CONTROL_BATCHES * _size(base) // 2, _CONTROL_BATCHES * _size(base)
    return replace(base, batches=((half,), (whole,)), views=(2, 1))


CONTROLS: Final[tuple[Control, ...]] = (
    Control("balanced_ranks", "two ranks of equal batches, twelve times the usual", _balanced),
    Control("equal_work", "one rank's batch is half as large and each sample of it twice the work", _equal_work),
)
_CONTROLS: Final = {control.id: control for control in CONTROLS}


def sides_of(case: Case) -> Sides:
    """What the ranks of a case train, with its cause and without; of a control, with gradients exchanged and without."""
    workload = _BY_NAME[case.workload]
    batch = int(workload.settings[case.setting]["batch_size"])
    base = Training(workload.name.removesuffix("_ranks"), ((batch,), (batch,)), seed=case.seed)
    if case.control:
        healthy: Training = _CONTROLS[case.control].arrange(base)
        return healthy, replace(healthy, syncs="none")
    if len(case.faults) != 1:
        message = f"{case.id}: ranks take one fault at a time"
        raise ValueError(message)
    found: Sides = FAULT_BY_ID[case.faults[0]].inject(base)
    return found


def config_of(training: Training) -> dict[str, Any]:
    """The config that a user of that training has: what no hook sees."""
    return {
        "gradient_accumulation_steps": training.accumulation,
        "sync_every_micro_batch": training.syncs == "each",
        "bucket_cap_mb": training.bucket_cap_mb,
        "parallelism": "ddp",
    }


def _size(base: Training) -> int:
    return base.batches[0][0]


def _scaled(base: Training, times: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The batch of both ranks, so many times as large."""
    size = max(1, round(times * _size(base)))
    return (size,), (size,)
