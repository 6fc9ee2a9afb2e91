"""Training of one rank: what it trains, as a value, and its loop, one step at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from benchmarks.detection.ranks_models import KINDS, Deep, Wide

SAMPLES: Final = 512
"""Distinct samples of a rank: drawn once, so that none is made while the training runs."""

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Training:
    """What two ranks train, as a value that a process can be told.

    Attributes
    ----------
    kind
        Of the model, in `ranks_models.KINDS`.
    batches
        Samples of each rank, by step: step i takes entry i modulo their number.
    seed
        Of weights and samples.
    wide_bytes, deep_layers
        What is added to the model, see `Wide` and `Deep`.
    bucket_cap_mb
        Of DistributedDataParallel; None for its default.
    accumulation
        Micro-batches of a step.
    syncs
        In which micro-batches gradients are exchanged: "each", "last" or "none".
    sleep_s
        Of each rank's loader, per batch.
    link_bit_per_s
        Rate limit between the ranks; None for none.
    views
        Times each sample is computed, by rank, as with augmented views: batches of unequal size can so be equal work.
    """

    kind: str
    batches: tuple[tuple[int, ...], tuple[int, ...]]
    seed: int = 0
    wide_bytes: int = 0
    deep_layers: int = 0
    bucket_cap_mb: float | None = None
    accumulation: int = 1
    syncs: str = "last"
    sleep_s: tuple[float, float] = (0.0, 0.0)
    link_bit_per_s: float | None = None
    views: tuple[int, int] = (1, 1)

    def as_json(self) -> dict[str, Any]:
        """Its fields, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Training:
        """The training that `as_json` told."""
        pairs = {name: tuple(told[name]) for name in ("sleep_s", "views")}
        first, second = told["batches"]
        return cls(**{**told, **pairs, "batches": (tuple(first), tuple(second))})

    def sleeping(self, seconds: float, rank: int) -> Training:
        """The same with a loader that sleeps on one rank."""
        return replace(self, sleep_s=(seconds, 0.0) if rank == 0 else (0.0, seconds))


class InHand(Dataset[Batch]):
    """Samples that lie in memory; a loader that sleeps does so once per batch.

    Parameters
    ----------
    inputs, targets
        All samples.
    sleep_s
        Pause before a batch is handed over.
    """

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor, sleep_s: float) -> None:
        self.inputs, self.targets, self.sleep_s = inputs, targets, sleep_s

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Batch:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once: the loader asks for it where a dataset offers it."""
        if self.sleep_s:
            time.sleep(self.sleep_s)
        chosen = torch.as_tensor(indices)
        return self.inputs[chosen], self.targets[chosen]


class Turns(torch.utils.data.Sampler[list[int]]):
    """Batches of the sizes that a training says, one after another without end of the samples.

    Parameters
    ----------
    sizes
        Samples of each batch in turn.
    number
        Batches of an epoch.
    """

    def __init__(self, sizes: Sequence[int], number: int) -> None:
        self.sizes, self.number = sizes, number

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for turn in range(self.number):
            size = self.sizes[turn % len(self.sizes)]
            yield [(start + sample) % SAMPLES for sample in range(size)]
            start += size


@dataclass(frozen=True, slots=True)
class Setup:
    """One rank's share of a training, ready to step.

    Attributes
    ----------
    training, rank
        What it trains, and where.
    model, optimizer
        Both of torch; the model is wrapped where there are several ranks.
    data
        Its samples.
    """

    training: Training
    rank: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    data: InHand

    def loader(self, steps: int) -> DataLoader[Any]:
        """Batches of so many steps."""
        sizes = [size for size in self.training.batches[self.rank] for _ in range(self.training.accumulation)]
        return DataLoader(self.data, batch_sampler=Turns(sizes, steps * self.training.accumulation), collate_fn=_as_it_is)

    def steps(self, number: int, begin: Callable[[], None] | None = None) -> Iterator[int]:
        """Train so many steps; what is yielded is the number of the one that has just ended.

        Parameters
        ----------
        number
            How many.
        begin
            Called whenever a batch is there.
        """
        batches = iter(self.loader(number))
        for step in range(number):
            self.optimizer.zero_grad()
            for micro in range(self.training.accumulation):
                batch = next(batches)
                if begin is not None:
                    begin()
                self._micro_batch(*batch, is_last=micro == self.training.accumulation - 1)
            self.optimizer.step()
            yield step

    def _micro_batch(self, inputs: torch.Tensor, targets: torch.Tensor, *, is_last: bool) -> None:
        syncs = self.training.syncs == "each" or (self.training.syncs == "last" and is_last)
        alone = contextlib.nullcontext() if syncs else self.model.no_sync()
        views = self.training.views[self.rank]
        with alone:
            scores = self.model(inputs.repeat_interleave(views, 0) if views > 1 else inputs)
            aims = targets.repeat_interleave(views, 0) if views > 1 else targets
            loss = cross_entropy(scores, aims.flatten()) / self.training.accumulation
            loss.backward()


def prepare(training: Training, rank: int) -> Setup:
    """One rank's share of a training; every rank of the group calls it, in the same order."""
    torch.manual_seed(training.seed)
    kind = KINDS[training.kind]
    model = kind.build()
    if training.wide_bytes:
        model = Wide(model, kind.outputs, training.wide_bytes)
    if training.deep_layers:
        model = Deep(model, kind.outputs, training.deep_layers)
    wrapped = DistributedDataParallel(model, bucket_cap_mb=training.bucket_cap_mb)
    random = torch.Generator().manual_seed(training.seed * 2 + rank)
    data = InHand(*kind.draw(SAMPLES, random), training.sleep_s[rank])
    return Setup(training, rank, wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.01), data)


def _as_it_is(batch: Batch) -> Batch:
    return batch
