"""Faults of the data: samples that are slow to read or to make, a loader that is set up badly, padding."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.detection.case import ONCE, Fault
from benchmarks.detection.training import Pair, Plan
from perfnb.record.cgroup import cpu_capacity

Sides = tuple[Plan, Plan]
"""A plan with the fault, and one with its cause removed altogether."""

_READ_BYTES: Final = 256 << 10
_COLD_FILES: Final = 256  # samples of the file: 64 MiB
_RARE_EVERY: Final = 250  # .4 % of samples
_RARE_S: Final = 0.25
_SORT_S_PER_POINT: Final = 40e-9  # torch.sort and cumsum of floats on one core; calibration finds the rest
_EPOCH_STEPS: Final = 8


def removed(plan: Plan) -> Plan:
    """The same training with all its samples in memory as batches: nothing of the data is left to wait for."""
    return replace(plan, is_preloaded=True)


def _without(plan: Plan) -> Plan:
    """Nothing of the data is left; with workers, they stay: waiting for them without a fault is a cause of its own."""
    return plan if plan.settings["num_workers"] else removed(plan)


def _per_sample(plan: Plan, amount_s: float) -> float:
    return amount_s / float(plan.settings["batch_size"] * plan.accumulate)


def slow_item(plan: Plan, amount_s: float) -> Sides:
    """Each sample sleeps: a store that answers late."""
    wait_s = _per_sample(plan, amount_s)

    def wait(_: int) -> None:
        time.sleep(wait_s)

    return replace(plan, item=wait), _without(plan)


def heavy_transform(plan: Plan, amount_s: float) -> Sides:
    """Each sample is sorted and summed up again."""
    points = max(16, round(_per_sample(plan, amount_s) / _SORT_S_PER_POINT))
    signal = torch.randn(points)

    def transform(_: int) -> Tensor:
        return torch.cumsum(torch.sort(signal).values, dim=0)

    return replace(plan, item=transform), _without(plan)


@cache
def _cold_file() -> int:
    """Descriptor of a file of random bytes on the disk, of which nothing is in the page cache."""
    descriptor, name = tempfile.mkstemp(prefix="perfnb-cold-", dir=Path.cwd())  # a temporary folder may lie in memory
    Path(name).unlink()
    for _ in range(_COLD_FILES):
        os.write(descriptor, os.urandom(_READ_BYTES))
    os.fsync(descriptor)
    return descriptor


def _read(index: int, *, is_cold: bool) -> None:
    descriptor, offset = _cold_file(), index % _COLD_FILES * _READ_BYTES
    if is_cold:
        os.posix_fadvise(descriptor, offset, _READ_BYTES, os.POSIX_FADV_DONTNEED)
    os.pread(descriptor, _READ_BYTES, offset)


def cold_read(plan: Plan, _: float) -> Sides:
    """Each sample is read from the disk, past the page cache."""
    _cold_file()
    return replace(plan, item=partial(_read, is_cold=True)), _without(plan)


def cold_first_third(plan: Plan, _: float) -> Sides:
    """The first third of the samples that are read comes from the disk, the rest from the page cache; without the cause, all."""
    _cold_file()
    return replace(plan, item=_FirstThird()), replace(plan, item=partial(_read, is_cold=False))


class _FirstThird:
    """Cold until a third of a run is through; each worker counts the samples that it reads itself."""

    def __init__(self) -> None:
        self._left = 0

    def begin(self, samples: int) -> None:
        """Take note of how many samples each reader will read."""
        self._left = samples // 3

    def __call__(self, index: int) -> None:
        self._left -= 1
        _read(index, is_cold=self._left >= 0)


def rare_slow_item(plan: Plan, _: float) -> Sides:
    """One sample in 250 takes a quarter of a second."""

    def wait(index: int) -> None:
        if index % _RARE_EVERY == 0:
            time.sleep(_RARE_S)

    return replace(plan, item=wait), _without(plan)


def short_epochs(plan: Plan, _: float) -> Sides:
    """Epochs of eight steps with workers that are started for each; without the cause the same workers are kept."""
    settings = {**plan.settings, "num_workers": 2, "persistent_workers": False}
    short = replace(plan, settings=settings, epoch_steps=_EPOCH_STEPS)
    return short, replace(short, settings={**settings, "persistent_workers": True})


def many_workers(plan: Plan, amount_s: float) -> Sides:
    """Four workers per core that all transform; without the cause one core is left to the training."""
    slow, _ = heavy_transform(plan, amount_s)
    cores = max(1, round(cpu_capacity()))
    many, few = ({**plan.settings, "num_workers": workers} for workers in (4 * cores, max(1, cores - 1)))
    return replace(slow, settings=many), replace(slow, settings=few)


def worker_handover(plan: Plan, _: float) -> Sides:
    """Nothing is added: two workers make batches that cost next to nothing, and the training waits for them all the same."""
    return plan, removed(plan)


def padded_text(plan: Plan, amount_share: float) -> Sides:
    """Every row padded to the longest of the data set: the true length of all but a few is shorter by this share."""

    def shorter(parts: Any) -> Any:
        length = parts.inputs.shape[1]
        real = max(1, round(length * (1 - amount_share)))
        inputs, targets = parts.inputs.clone(), parts.targets.clone()
        inputs[:, real:] = 0
        if targets.dim() > 1:
            targets[:, real:] = 0
        return replace(parts, inputs=inputs, targets=targets)

    def tokens(batch: Pair) -> dict[str, float]:
        real = float((batch[0] != 0).sum())
        return {"tokens": real, "padded_tokens": float(batch[0].numel())}

    def trimmed(_: int, batch: Pair) -> Pair:
        inputs, targets = batch
        real = max(1, round(inputs.shape[1] * (1 - amount_share)))
        return inputs[:, :real], targets[:, :real] if targets.dim() > 1 else targets

    padded = replace(plan, change=shorter, told=tokens)
    return padded, replace(padded, batches=trimmed)


_BASE: Final = ("data_stall",)
_TEXT: Final = ("gru_language_model", "small_transformer")


def _fault(name: str, expects: tuple[str, ...], inject: Callable[[Plan, float], Sides], **more: Any) -> Fault:
    told = (inject.__doc__ or "").split("\n", 1)[0]
    return Fault(name, "data", expects, inject, told, accepted=more.pop("accepted", _BASE), **more)


# Reading and making samples share a heading: what one cause leaves over is shown as data_stall, which is true as well.
FAULTS: Final = (
    _fault("slow_item", ("slow_sample_read",), slow_item),
    _fault("cold_read", ("slow_sample_read",), cold_read, doses=ONCE),
    _fault("cold_first_third", ("cold_cache",), cold_first_third, doses=ONCE, accepted=("data_stall", "slow_sample_read")),
    # Workers that compute take the training's core: that wait is true, and its own line.
    _fault("heavy_transform", ("slow_transform",), heavy_transform, accepted_with_workers=("cpu_contention",)),
    _fault("rare_slow_item", ("outlier_samples",), rare_slow_item, doses=ONCE, accepted=("data_stall", "outlier_steps")),
    # Workers that start take it too.
    _fault(
        "short_epochs", ("worker_restart",), short_epochs, doses=ONCE, accepted=("data_stall", "outlier_steps", "cpu_contention")
    ),
    _fault(
        "many_workers",
        ("oversubscribed_workers",),
        many_workers,
        doses={"development": (0.4,), "held_out": (0.4,)},
        clock="wall",
        accepted=("data_stall", "slow_transform", "cpu_contention"),
    ),
    _fault("worker_handover", _BASE, worker_handover, doses=ONCE, settings=("workers",), accepted=("cpu_contention",)),
    _fault("padded_text", ("padding_waste",), padded_text, workloads=_TEXT, accepted=()),
)
