"""A run: the tables of one training job, all ranks, with its config and its machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd

from perfnb import tables

_SHOWN_FILES: Final = 3
_ACCELERATORS: Final = ("cuda", "hip", "xpu", "mps", "npu")
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run ran on; None or empty where it is not known.

    Attributes
    ----------
    devices
        Name of each accelerator, in the order of their numbers.
    device_memory_bytes
        Total memory of each accelerator, same order.
    cpu_capacity
        Cores that the job may use (affinity and control group included).
    constants
        Measured properties, name to value.
    links
        How each pair of accelerators is connected, row by row as `nvidia-smi topo -m` says it: "NV12", "PIX", "SYS", ...; see
        `perfnb.read.topology.with_topology`.
    torch_version
        Version of torch that trained.
    """

    devices: tuple[str, ...] = ()
    device_memory_bytes: tuple[int, ...] = ()
    cpu_capacity: float | None = None
    constants: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    links: tuple[tuple[str, ...], ...] = ()
    torch_version: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """How the recording of one rank stands.

    Attributes
    ----------
    rank
        Its rank.
    state
        "finished"; "failed": training raised; "running"; "killed": it ended without a word.
    reason
        How it ended, in words; empty where it runs or finished.
    until_us
        The last moment that its rows tell of.
    hook_us_per_step
        Time of the training thread that perfnb's hooks took per step: calls times their calibrated cost.
    sampler_cpu_share
        CPU of perfnb's own thread, as a share of one core.
    """

    rank: int
    state: Literal["finished", "failed", "running", "killed"]
    reason: str = ""
    until_us: float | None = None
    hook_us_per_step: float | None = None
    sampler_cpu_share: float | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Run:
    """The tables of one job.

    Attributes
    ----------
    steps, phases, host_ops, device_ops, collectives, allocations, allocator, gpu_samples, host_samples, training, metrics, gaps
        Tables with the columns of `perfnb.tables.SCHEMAS`; empty where nothing was recorded.
    loader_samples
        Another such table: what a probe of the dataset timed, see `perfnb.probe_dataset`.
    config
        The training's config where known.
    machine
        What the job ran on.
    signals
        Names of what was recorded: a table without rows reads as "nothing happened" only with its signal here.
    missing
        Signal to the reason why it was not recorded.
    notes
        Sentences on what the reader repaired, dropped, assumed or could not know.
    world_size
        Number of ranks of the job (not only of those read), None where unknown.
    source
        Base names of the files that were read.
    recordings
        How each rank's recording stands, of a run that perfnb recorded; empty for traces and logs.
    earlier
        Earlier runs of the same training that this one is held against, see `perfnb.diagnose`; no file names them.
    """

    steps: pd.DataFrame = field(default_factory=lambda: tables.empty("steps"))
    phases: pd.DataFrame = field(default_factory=lambda: tables.empty("phases"))
    host_ops: pd.DataFrame = field(default_factory=lambda: tables.empty("host_ops"))
    device_ops: pd.DataFrame = field(default_factory=lambda: tables.empty("device_ops"))
    collectives: pd.DataFrame = field(default_factory=lambda: tables.empty("collectives"))
    allocations: pd.DataFrame = field(default_factory=lambda: tables.empty("allocations"))
    allocator: pd.DataFrame = field(default_factory=lambda: tables.empty("allocator"))
    gpu_samples: pd.DataFrame = field(default_factory=lambda: tables.empty("gpu_samples"))
    host_samples: pd.DataFrame = field(default_factory=lambda: tables.empty("host_samples"))
    training: pd.DataFrame = field(default_factory=lambda: tables.empty("training"))
    metrics: pd.DataFrame = field(default_factory=lambda: tables.empty("metrics"))
    loader_samples: pd.DataFrame = field(default_factory=lambda: tables.empty("loader_samples"))
    gaps: pd.DataFrame = field(default_factory=lambda: tables.empty("gaps"))
    config: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    machine: Machine = field(default_factory=Machine)
    signals: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    notes: tuple[str, ...] = ()
    world_size: int | None = None
    source: tuple[str, ...] = ()
    recordings: tuple[Recording, ...] = ()
    earlier: tuple[Run, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks that were read, in order."""
        found = {
            int(rank)
            for table in (self.steps, self.host_ops, self.device_ops, self.phases, self.training)
            for rank in table["rank"].unique()
        }
        return tuple(sorted(found))

    @property
    def is_device_job(self) -> bool:
        """Whether device work was recorded, so that losses are sized on the device clock."""
        return "device_ops" in self.signals and not self.device_ops.empty

    @property
    def uses_device(self) -> bool:
        """Whether the training ran on an accelerator, whether or not its work was recorded.

        A log of others that tells of GPUs tells of those that it used; perfnb's own sampler asks every one there is.
        """
        logged = not self.gpu_samples.empty and not self.recordings
        return self.is_device_job or logged or not self.allocator.empty or self.config.get("device") in _ACCELERATORS

    @property
    def has_window(self) -> bool:
        """Whether only some of the steps ran under a profiler: a window of a longer recording."""
        profiled = self.steps["is_profiled"]
        return bool(profiled.any()) and not bool(profiled.all())

    @property
    def is_traced(self) -> bool:
        """Whether single host events were recorded in the steps that numbers rest on.

        On a CPU job numbers rest on the steps outside a profiler's window, whose events are then another story.
        """
        if self.host_ops.empty or (self.has_window and not self.is_device_job):
            return False
        return bool(set(self.host_ops["category"].cat.categories) - {"gc", "compile"})

    def __repr__(self) -> str:
        """One line: what was read and how much."""
        ranks = self.ranks
        of = f" of {self.world_size}" if self.world_size and self.world_size != len(ranks) else ""
        events = (
            f", {len(self.host_ops):,} host ops, {len(self.device_ops):,} device ops, {len(self.collectives):,} collectives"
            if not self.recordings or self.has_window
            else ""
        )
        return (
            f"Run({', '.join(self.source[:_SHOWN_FILES])}{', ...' if len(self.source) > _SHOWN_FILES else ''}: "
            f"{len(ranks)}{of} rank{'s' if len(ranks) != 1 else ''}, {self.steps['step'].nunique()} steps{events})"
        )
