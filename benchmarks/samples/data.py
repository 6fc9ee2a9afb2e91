"""Training samples: slow to read, slow to transform or already in memory, and the loader that a configuration asks for."""

import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, default_collate

from benchmarks.samples.workloads import Config

Pair = tuple[Tensor, Tensor]

CLASSES = 10
BATCHES_IN_HAND = 8  # enough that no batch stays in the processor's cache from one step to the next


class TensorSamples(Dataset[Pair]):
    """Random inputs already in memory, labelled by a fixed linear teacher so that there is something to learn."""

    def __init__(self, config: Config) -> None:
        generator = torch.Generator().manual_seed(config["seed"])
        features, windows = config["model"]["widths"][0], config["model"]["windows"]
        self.inputs = torch.randn(config["data"]["samples"], windows, features, generator=generator)
        teacher = torch.randn(features, CLASSES, generator=generator)
        self.targets = (self.inputs.mean(dim=1) @ teacher).argmax(dim=1)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Pair:
        return self.inputs[index], self.targets[index]


class SlowReadSamples(TensorSamples):
    """The same samples behind a store that answers late: each read waits its own, seeded time."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(config["seed"] + 1)
        spread = torch.randn(len(self), generator=generator) * config["data"]["read_sigma"]
        self.read_s = (config["data"]["read_ms"] / 1e3 * spread.exp()).tolist()

    def __getitem__(self, index: int) -> Pair:
        time.sleep(self.read_s[index])
        return super().__getitem__(index)


class TransformedSamples(Dataset[Pair]):
    """Noisy tones whose features (ordering, running sum, spectrum) are computed again each time a sample is asked for."""

    def __init__(self, config: Config) -> None:
        generator = torch.Generator().manual_seed(config["seed"])
        count, points = config["data"]["samples"], config["data"]["points"]
        self.shape = (config["model"]["windows"], config["model"]["widths"][0])
        self.targets = torch.randint(CLASSES, (count,), generator=generator)
        phase = torch.linspace(0, 2 * math.pi, points)
        tones = torch.sin(phase * (8 + 4 * self.targets[:, None]))
        self.signals = tones + torch.randn(count, points, generator=generator)

    def __len__(self) -> int:
        return len(self.signals)

    def __getitem__(self, index: int) -> Pair:
        signal = self.signals[index]
        middle = torch.sort(signal).values[len(signal) // 2]
        walk = torch.cumsum(signal - middle, dim=0)
        spectrum = torch.fft.rfft(walk).abs()[1 : math.prod(self.shape) + 1].log1p()
        return (spectrum - spectrum.mean()).reshape(self.shape), self.targets[index]


class RememberedSamples(Dataset[Pair]):
    """Another dataset's samples, each computed once and all of them at the start, so that the cache is warm."""

    def __init__(self, samples: TensorSamples | TransformedSamples) -> None:
        self.pairs = [samples[index] for index in range(len(samples))]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


class PreparedBatches(Dataset[Pair]):
    """Whole batches already in memory."""

    def __init__(self, batches: list[Pair]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Pair:
        return self.batches[index]


SAMPLES: dict[str, type[TensorSamples | TransformedSamples]] = {
    "tensors": TensorSamples,
    "slow_read": SlowReadSamples,
    "transform": TransformedSamples,
}


def rank_batch_size(config: Config, rank: int) -> int:
    """Samples that one rank takes per step: equal shares when balanced, the shard's own size otherwise."""
    if config["balance_batches"]:
        return int(config["batch_size"])
    return int(config["data"]["samples_by_rank"][rank])


def build_loader(config: Config, steps: int, rank: int = 0) -> Iterable[Pair]:
    """The batches of one epoch of ``steps`` steps, delivered as the configuration says.

    Parameters
    ----------
    config
        Configuration of the run; ``data.delivery`` is samples (read one by one), batches (whole ones, through a
        loader) or in_hand (a plain list, no loader at all).
    steps
        Batches to deliver: one epoch, so that no epoch edge falls among the steps.
    rank
        Rank whose batch size counts, and which draws its own samples.

    Returns
    -------
    Iterable[Pair]
        Inputs and targets of each step.
    """
    samples = SAMPLES[config["data"]["kind"]](config)
    size = rank_batch_size(config, rank)
    generator = torch.Generator().manual_seed(config["seed"] + 100 + rank)
    if config["data"]["delivery"] == "samples":
        kept: Any = RememberedSamples(samples) if config["cache_samples"] == "memory" else samples
        loader: Iterable[Pair] = DataLoader(
            kept,
            batch_size=size,
            sampler=RandomSampler(kept, replacement=True, num_samples=size * steps, generator=generator),
            num_workers=config["num_workers"],
            prefetch_factor=config["prefetch_factor"],
            persistent_workers=config["persistent_workers"],
            pin_memory=config["pin_memory"],
        )
        return loader
    chosen = torch.randint(len(samples), (BATCHES_IN_HAND, size), generator=generator).tolist()
    batches: list[Pair] = [default_collate([samples[index] for index in batch]) for batch in chosen]
    order = torch.randint(BATCHES_IN_HAND, (steps,), generator=generator).tolist()
    if config["data"]["delivery"] == "in_hand":
        return [batches[index] for index in order]
    prepared = PreparedBatches(batches)
    batch_loader: Iterable[Pair] = DataLoader(
        prepared,
        batch_size=None,
        sampler=RandomSampler(prepared, replacement=True, num_samples=steps, generator=generator),
    )
    return batch_loader
