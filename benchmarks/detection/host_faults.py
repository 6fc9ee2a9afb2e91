"""Faults of the machine: other programs, quotas and limits, too many threads, a slower run than an earlier one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.detection.case import ONCE, Fault
from benchmarks.detection.groups import own_group, setting
from benchmarks.detection.load import beside
from benchmarks.detection.training import Plan
from benchmarks.detection.workloads import Parts
from perfnb.record.cgroup import cpu_capacity

Sides = tuple[Plan, Plan]

_PERIOD_US: Final = 100_000  # the kernel's default
_THREADS_PER_CORE: Final = 16
_BALLAST_BYTES: Final = 512 << 20
_FULL_SHARE: Final = 0.985
_FACTOR: Final = torch.ones(96, 96)
_PRODUCT_S: Final = 40e-6  # of two such matrices on one core; calibration finds the rest


def cpu_hog(plan: Plan, per_core: float) -> Sides:
    """Busy loops of other programs, so many per core."""
    count = round(per_core * max(1, round(cpu_capacity())))
    return replace(plan, around=lambda: beside(["busy"] * count)), plan


def cpu_quota(plan: Plan, share: float) -> Sides:
    """A control group that grants less than the one core which the training would use."""
    group = own_group("cpu")
    quota = setting(group, "cpu.max", "cpu.cfs_quota_us")
    granted_us = round((1 - share) * _PERIOD_US)

    @contextlib.contextmanager
    def limited() -> Iterator[None]:
        _write(quota, f"{granted_us} {_PERIOD_US}" if quota.name == "cpu.max" else str(granted_us))
        try:
            yield
        finally:
            _write(quota, f"max {_PERIOD_US}" if quota.name == "cpu.max" else "-1")

    return replace(plan, around=limited), plan


def memory_limit(plan: Plan, _: float) -> Sides:
    """A control group that grants little more memory than is in use (has not run yet: no machine so far permits it)."""
    limit = setting(own_group("memory"), "memory.max", "memory.limit_in_bytes")
    unlimited = "max" if limit.name == "memory.max" else "-1"

    @contextlib.contextmanager
    def limited() -> Iterator[None]:
        ballast = bytearray(_BALLAST_BYTES)  # taken in the group: what the process had before counts elsewhere
        ballast[:: os.sysconf("SC_PAGE_SIZE")] = b"1" * len(range(0, _BALLAST_BYTES, os.sysconf("SC_PAGE_SIZE")))
        _write(limit, str(round(_BALLAST_BYTES / _FULL_SHARE)))
        try:
            yield
        finally:
            _write(limit, unlimited)

    return replace(plan, around=limited), plan


def _write(path: Path, words: str) -> None:
    path.write_text(words, encoding="ascii")


def thread_flood(plan: Plan, _: float) -> Sides:
    """Sixteen threads per core for torch's operators."""
    return replace(plan, threads=_THREADS_PER_CORE * max(1, round(cpu_capacity()))), plan


def earlier_run(plan: Plan, amount_s: float) -> Sides:
    """Each step takes longer than those of the healthy runs that were stored before: its model computes more."""
    repeats = amount_s / _PRODUCT_S

    def compute() -> None:
        for _ in range(max(1, round(repeats))):
            torch.mm(_FACTOR, _FACTOR)

    def slower(parts: Parts) -> Parts:
        model = parts.model
        model.register_forward_hook(lambda *_: compute())
        return parts

    return replace(plan, change=slower), plan


def _fault(name: str, family: str, expects: tuple[str, ...], inject: Callable[[Plan, float], Sides], **more: Any) -> Fault:
    return Fault(name, family, expects, inject, (inject.__doc__ or "").split("\n", 1)[0], **more)


_HOGS: Final = {"development": (1.0, 2.0, 4.0), "held_out": (1.0, 2.0)}

FAULTS: Final = (
    _fault("cpu_hog", "host", ("cpu_contention",), cpu_hog, doses=_HOGS, clock="wall"),
    _fault("cpu_quota", "host", ("cpu_quota_throttling",), cpu_quota, clock="wall", accepted=("cpu_contention", "outlier_steps")),
    _fault("memory_limit", "memory", ("host_memory_pressure",), memory_limit, doses=ONCE, clock="memory"),
    _fault(
        "thread_flood", "host", ("thread_oversubscription",), thread_flood, doses=ONCE, clock="wall", accepted=("cpu_contention",)
    ),
    _fault("earlier_run", "over time", ("regressed_step_time",), earlier_run, accepted=("python_overhead",)),
)
