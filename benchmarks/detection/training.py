"""One training loop with places for faults, and the clocks of each of its steps, read beside perfnb's recording."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, default_collate

from benchmarks.detection.workloads import Parts
from perfnb.record.clocks import RunQueueFile, runqueue_ns
from perfnb.record.recorder import Recorder

DROPPED: Final = 5
"""First steps of a block: caches are cold, torch's hooks still look for the outermost modules."""

Pair = tuple[Tensor, Tensor]
Item = Callable[[int], Any]


@dataclass(slots=True, eq=False)
class State:
    """What a hook after a step may look at."""

    step: int
    steps: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Tensor
    outputs: Tensor
    recorder: Recorder
    kept: dict[str, Any]


AfterStep = Callable[[State], None]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is trained, and how: one side of a case.

    Attributes
    ----------
    build
        Makes model and samples anew for each block.
    settings
        batch_size, num_workers, learning_rate, momentum; persistent_workers.
    is_preloaded
        Whether all batches are made before the first step and no loader delivers them.
    item
        Called with a sample's number each time it is read, in the process that reads it.
    epoch_steps
        Steps of an epoch; None for one epoch throughout.
    after_step
        Called after each step of the optimizer, in the loop.
    change
        Changes the model and samples before training.
    around
        Entered round a whole block: what else runs on the machine.
    threads
        Of torch.
    accumulate
        Micro-batches of a step.
    one_by_one
        Whether the optimizer handles each parameter apart.
    batches
        Changes each batch before it is used (shapes that change, padding).
    told
        Values that the training logs of each batch: tokens and padded_tokens.
    start
        Number of the first step: steps that count as made before, for faults that grow.
    """

    build: Callable[[], Parts]
    settings: Mapping[str, Any]
    is_preloaded: bool = False
    item: Item | None = None
    epoch_steps: int | None = None
    after_step: tuple[AfterStep, ...] = ()
    change: Callable[[Parts], Parts] | None = None
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    threads: int = 1
    accumulate: int = 1
    one_by_one: bool = False
    batches: Callable[[int, Pair], Pair] | None = None
    told: Callable[[Pair], Mapping[str, float]] | None = None
    start: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Times of the steps of a block, in microseconds, the first `DROPPED` left out, and how its process grew over all of it."""

    wall_us: npt.NDArray[np.float64]
    cpu_us: npt.NDArray[np.float64]
    runqueue_us: npt.NDArray[np.float64]
    grown_bytes: float = float("nan")
    validation: tuple[float, float] = (float("nan"), float("nan"))

    def own_us(self) -> float:
        """Mean contention-free step; summed first, since single readings are off by up to a tick of the scheduler."""
        return own_of(self.wall_us, self.cpu_us, self.runqueue_us)

    def wall_mean_us(self) -> float:
        """Mean step."""
        return float(self.wall_us.mean())


def own_of(wall: npt.NDArray[np.float64], cpu: npt.NDArray[np.float64], runqueue: npt.NDArray[np.float64]) -> float:
    """Mean of cpu + max(0, wall - cpu - runqueue), of sums.

    Examples
    --------
    >>> own_of(np.array([10.0, 10.0]), np.array([6.0, 6.0]), np.array([1.0, 3.0]))
    8.0
    """
    return float((cpu.sum() + max(0.0, wall.sum() - cpu.sum() - runqueue.sum())) / len(wall))


class Samples(Dataset[Pair]):
    """Samples in memory; reading one does what the fault does besides."""

    def __init__(self, parts: Parts, item: Item | None) -> None:
        self._inputs, self._targets, self._item = parts.inputs, parts.targets, item

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> Pair:
        if self._item is not None:
            self._item(index)
        return self._inputs[index], self._targets[index]


def train(plan: Plan, steps: int, recorder: Recorder, seed: int, *, validates: bool = False) -> Block:
    """Times of so many steps of training, after those that are dropped; enters the recorder.

    Parameters
    ----------
    plan, steps
        What to train, and steps that are told.
    recorder
        Records it all.
    seed
        Of the order of samples.
    validates
        Whether the loss of validation is computed before and after.
    """
    torch.set_num_threads(plan.threads)
    parts = plan.build()
    if plan.change is not None:
        parts = plan.change(parts)
    rate, momentum = plan.settings["learning_rate"], plan.settings["momentum"]
    optimizer = torch.optim.SGD(parts.model.parameters(), lr=rate, momentum=momentum, foreach=not plan.one_by_one)
    first = validation_loss(parts) if validates else float("nan")
    total = steps + DROPPED
    kept: dict[str, Any] = {}
    resident = _resident_bytes()
    clock = RunQueueFile()
    read, edges = clock.reader(), []
    epochs = _epochs(plan, parts, total, seed)
    with plan.around(), recorder:
        edges.append((time.perf_counter_ns(), time.thread_time_ns(), runqueue_ns(read()) or 0))
        for step, micro in enumerate(_grouped(epochs, plan.accumulate), plan.start):
            if step == plan.start + DROPPED:
                resident = _resident_bytes()
            loss, outputs = _step(plan, parts, optimizer, step, micro, recorder)
            state = State(step, plan.start + total, parts.model, optimizer, loss, outputs, recorder, kept)
            for hook in plan.after_step:
                hook(state)
            edges.append((time.perf_counter_ns(), time.thread_time_ns(), runqueue_ns(read()) or 0))
    grown = _resident_bytes() - resident
    told = np.diff(np.array(edges[DROPPED:], dtype=np.float64), axis=0) / 1e3
    return Block(told[:, 0], told[:, 1], told[:, 2], grown, (first, validation_loss(parts) if validates else first))


def _resident_bytes() -> float:
    return float(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _step(
    plan: Plan, parts: Parts, optimizer: torch.optim.Optimizer, step: int, micro: list[Pair], recorder: Recorder
) -> tuple[Tensor, Tensor]:
    optimizer.zero_grad()
    for each in micro:
        inputs, targets = each if plan.batches is None else plan.batches(step, each)
        if plan.told is not None:
            recorder.log(None, **plan.told((inputs, targets)))
        outputs = parts.model(inputs)
        loss = parts.loss(outputs, targets) / len(micro)
        loss.backward()
    optimizer.step()
    return loss, outputs


def validation_loss(parts: Parts) -> float:
    """Loss on the samples for validation."""
    with torch.no_grad():
        return float(parts.loss(parts.model(parts.held_inputs), parts.held_targets))


def _grouped(batches: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    group: list[Pair] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []


def _epochs(plan: Plan, parts: Parts, total: int, seed: int) -> Iterable[Pair]:
    """Batches of all steps: in hand, or from a loader that is gone through once per epoch."""
    size, total = plan.settings["batch_size"], total * plan.accumulate
    samples = Samples(parts, None if plan.is_preloaded else plan.item)
    generator = torch.Generator().manual_seed(seed + 2)
    if plan.is_preloaded:
        order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(size * total // len(samples) + 1)])
        chosen = order[: size * total].reshape(total, size).tolist()
        return [tuple(default_collate([samples[index] for index in rows])) for rows in chosen]
    per_epoch = total if plan.epoch_steps is None else plan.epoch_steps
    workers = plan.settings["num_workers"]
    begin = getattr(plan.item, "begin", None)  # of a fault that changes in the course of a run
    if begin is not None:
        begin(size * total // max(1, workers))  # samples that each reader will read
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_size=size,
        sampler=RandomSampler(samples, num_samples=size * per_epoch, generator=generator),
        num_workers=workers,
        persistent_workers=bool(workers) and bool(plan.settings.get("persistent_workers", False)),
    )
    return _over_epochs(loader, total)


def _over_epochs(loader: DataLoader[Any], total: int) -> Iterator[Pair]:
    done = 0
    while done < total:
        for batch in loader:
            yield batch
            done += 1
            if done == total:
                break


def block(plan: Plan, steps: int, seed: int) -> Block:
    """Train a block with a recording in memory, as the run that is stored has one."""
    return train(plan, steps, Recorder(), seed)


def recorded(plan: Plan, steps: int, seed: int, folder: Path) -> Block:
    """Train the run that is stored, recorded into a folder with what a user would state of it."""
    config = {name: value for name, value in plan.settings.items() if name != "num_workers"}
    return train(plan, steps, Recorder(folder, config=config), seed, validates=True)
