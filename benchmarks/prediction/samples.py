"""The samples of a training: tensors in memory, whose reading costs what a store and a transform would."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.detection.workloads import Parts
from benchmarks.prediction.workloads import Cost

Pair = tuple[Tensor, Tensor]
_SORT_S_PER_POINT: Final = 55e-9  # torch.sort and cumsum of floats on one core: sets about how long, models are told nothing


class Samples(Dataset[Pair]):
    """Samples that wait and compute as long as `cost` says, each time one is read that is not cached.

    Parameters
    ----------
    parts
        Whose samples.
    cost
        What a batch takes.
    batch_size
        Of the batch that takes it.
    is_cached
        Whether all samples are ready.
    """

    def __init__(self, parts: Parts, cost: Cost, batch_size: int, *, is_cached: bool) -> None:
        self._inputs, self._targets = parts.inputs, parts.targets
        random = torch.Generator().manual_seed(len(parts.inputs))
        drawn = torch.randn(len(parts.inputs), generator=random)
        factors = torch.exp(cost.sigma * drawn - cost.sigma**2 / 2)  # lognormal with a mean of 1
        share = 0.0 if is_cached else 1e-3 / batch_size
        self._wait_s = (factors * cost.wait_ms * share).tolist()
        self._points = (factors * cost.cpu_ms * share / _SORT_S_PER_POINT).long().tolist()
        self._signal = torch.randn(max(*self._points, 1), generator=random)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> Pair:
        if self._wait_s[index]:
            time.sleep(self._wait_s[index])
        if self._points[index]:
            torch.cumsum(torch.sort(self._signal[: self._points[index]]).values, dim=0)
        return self._inputs[index], self._targets[index]


def loader_of(data: Dataset[Pair], config: Mapping[str, Any], batches: int, batch_size: int, seed: int) -> DataLoader[Any]:
    """A loader of so many batches as the config sets it up."""
    workers = int(config["num_workers"])
    return DataLoader(
        data,
        batch_size=batch_size,
        sampler=RandomSampler(
            data,
            replacement=False,
            num_samples=batch_size * batches,
            generator=torch.Generator().manual_seed(seed),
        ),
        num_workers=workers,
        prefetch_factor=config["prefetch_factor"] if workers else None,
        persistent_workers=bool(config["persistent_workers"]),
        in_order=bool(config["in_order"]),
    )
