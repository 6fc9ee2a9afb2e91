"""One training as its config says: every knob of the benchmark is applied here, as a user's script would apply it."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from benchmarks.detection.workloads import Parts
from benchmarks.prediction.case import PairCase
from benchmarks.prediction.samples import Pair, Samples, loader_of
from benchmarks.prediction.workloads import DATA, RANKS, WORKLOADS, Workload
from perfnb.record.recorder import Recorder

LIVE_OBJECTS: Final = 60_000
"""Python objects of trainings that collect garbage themselves, as a data set of rows would be."""

_CYCLES: Final = 200
_UNEVEN: Final = (0.5, 1.5)
"""Of the batch size, by rank, where batches are not balanced."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a training.

    Attributes
    ----------
    case, config
        What is trained, and all its knobs.
    steps
        Steps in all.
    epoch_steps
        Steps of an epoch; None for one epoch throughout.
    traced_steps
        Steps under torch's profiler.
    probes_link
        Whether the ranks time collective calls before they train.
    """

    case: PairCase
    config: Mapping[str, Any]
    steps: int
    epoch_steps: int | None = None
    traced_steps: int = 0
    probes_link: bool = False

    @property
    def workload(self) -> Workload:
        """What is trained."""
        return WORKLOADS[self.case.workload]

    def batch_size(self, rank: int = 0) -> int:
        """Samples of a micro-batch of a rank."""
        size = int(self.config["batch_size"])
        uneven = self.workload.world_size > 1 and not self.config["balance_batches"]
        return round(size * _UNEVEN[rank]) if uneven else size

    def samples(self, parts: Parts) -> Samples:
        """Its samples, with what reading them takes."""
        is_cached = self.config["cache_samples"] == "memory"
        return Samples(parts, DATA[self.case.data], self.workload.batch_size, is_cached=is_cached)


@dataclass(slots=True)
class _Saving:
    """Writes checkpoints, in the loop or beside it."""

    path: Path
    is_beside: bool
    threads: list[threading.Thread] = field(default_factory=list)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        if not self.is_beside:
            self._write(state)
            return
        self.finish()
        self.threads.append(threading.Thread(target=self._write, args=(copy.deepcopy(state),)))
        self.threads[-1].start()

    def finish(self) -> None:
        while self.threads:
            self.threads.pop().join()

    def _write(self, state: Any) -> None:
        with self.path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())


def train(trial: Trial, folder: Path, rank: int = 0) -> None:
    """Train and record into `folder / "run"`; the process group is there already where there are several ranks."""
    config, case = trial.config, trial.case
    torch.set_num_threads(int(config["torch_num_threads"]))
    parts = trial.workload.build(case.seed)
    model, shape = _model(parts.model, config)
    optimizer = _optimizer(model, config)
    per_step = int(config["gradient_accumulation_steps"])
    epoch = trial.epoch_steps or trial.steps
    data = trial.samples(parts)
    loader = loader_of(data, config, epoch * per_step, trial.batch_size(rank), case.seed + 2 + rank)
    saving = _Saving(folder / f"checkpoint{rank}.pt", is_beside=bool(config["async_checkpoint"]))
    collects = int(config["gc_collect_every_n_steps"])
    live = [[number] for number in range(LIVE_OBJECTS)] if collects else []
    if config["gc_freeze"]:
        gc.collect()
        gc.freeze()
    recorder = Recorder(folder / "run", config=dict(config), trace=trial.traced_steps)
    with recorder:
        batches = _batches(loader, trial.steps * per_step)
        for step in range(trial.steps):
            optimizer.zero_grad()
            for micro in range(per_step):
                inputs, targets = next(batches)
                with _syncs(model, config, is_last=micro == per_step - 1):
                    loss = _loss(parts, model, inputs.to(memory_format=shape) if inputs.dim() == 4 else inputs, targets, config)  # noqa: PLR2004 - images
                    (loss / per_step).backward()
            optimizer.step()
            if step % int(config["log_every_n_steps"]) == int(config["log_every_n_steps"]) - 1:
                log_line(model, loss, trial.workload.logged_values)
            if step % int(config["checkpoint_every_n_steps"]) == int(config["checkpoint_every_n_steps"]) - 1:
                saving.save(model, optimizer)
            if collects:
                _garbage(collect=step % collects == collects - 1)
        saving.finish()
    del live


def log_line(model: nn.Module, loss: torch.Tensor, values: int) -> str:
    """What a verbose log says of a step: the loss and so many weights, written out."""
    told = [f"loss {loss.item():.6f}"]
    for weights in model.parameters():
        chosen = weights.detach().flatten()[:values].tolist()
        values -= len(chosen)
        told += [f"{each:.6e}" for each in chosen]
    return " ".join(told)


def _garbage(*, collect: bool) -> None:
    for _ in range(_CYCLES):
        cycle: list[Any] = []
        cycle.append(cycle)
    if collect:
        gc.collect()


def _model(model: nn.Module, config: Mapping[str, Any]) -> tuple[nn.Module, torch.memory_format]:
    shape = torch.channels_last if config["memory_format"] == "channels_last" else torch.contiguous_format
    if shape == torch.channels_last:
        model = model.to(memory_format=shape)
    if config["compile"]:
        model.compile()
    if config.get("world_size", 1) > 1:
        return _distributed(model, config), shape
    return model, shape


def _distributed(model: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook  # noqa: PLC0415 - ranks only
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 - ranks only

    wrapped = DistributedDataParallel(
        model, bucket_cap_mb=config["bucket_cap_mb"], find_unused_parameters=bool(config["find_unused_parameters"])
    )
    if config["gradient_compression"] == "fp16":
        wrapped.register_comm_hook(None, fp16_compress_hook)
    return wrapped


def _optimizer(model: nn.Module, config: Mapping[str, Any]) -> torch.optim.Optimizer:
    how = {"fused": config["optimizer_implementation"] == "fused", "foreach": config["optimizer_implementation"] == "foreach"}
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, **how)
    return torch.optim.AdamW(model.parameters(), lr=1e-4, **how)


def _loss(parts: Parts, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    if config["precision"] == "bf16":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return parts.loss(model(inputs), targets)
    return parts.loss(model(inputs), targets)


def _syncs(model: nn.Module, config: Mapping[str, Any], *, is_last: bool) -> AbstractContextManager[Any]:
    """Gradients are exchanged in the last micro-batch, or in each."""
    if config.get("world_size", 1) < RANKS or is_last or config["sync_every_micro_batch"]:
        return contextlib.nullcontext()
    alone: AbstractContextManager[Any] = model.no_sync()
    return alone


def _batches(loader: Iterable[Pair], total: int) -> Iterator[Pair]:
    done = 0
    while done < total:
        for batch in loader:
            yield batch
            done += 1
            if done == total:
                break
