"""What is trained: a few workloads that models may be tuned on and others that are only scored, and what their samples cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.detection.ranks_models import KINDS, Wide
from benchmarks.detection.workloads import WORKLOADS as DETECTION_WORKLOADS
from benchmarks.detection.workloads import Parts
from benchmarks.prediction.case import DEFAULTS, RANKS_DEFAULTS, PairCase, Split

RANKS: Final = 2
_LARGE: Final = 128
"""Samples of the workloads whose samples are large: they are views of one block of memory."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What making a batch takes besides its copy, with the workload's usual batch size.

    Attributes
    ----------
    wait_ms
        Waiting: a store that answers late.
    cpu_ms
        Computing: a transform of each sample.
    sigma
        Of the logarithm of what single samples take; 0 where all take the same.
    """

    wait_ms: float = 0.0
    cpu_ms: float = 0.0
    sigma: float = 0.0


DATA: Final[Mapping[str, Cost]] = MappingProxyType(
    {
        "memory": Cost(),
        "waits": Cost(wait_ms=20.0),
        "long_waits": Cost(wait_ms=50.0),
        "transforms": Cost(cpu_ms=12.0),
        "long_transforms": Cost(cpu_ms=30.0),
        "mixed": Cost(wait_ms=10.0, cpu_ms=8.0),
        "uneven_waits": Cost(wait_ms=20.0, sigma=0.8),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """One training.

    Attributes
    ----------
    name, split
        As files say them.
    batch_size
        Of each rank.
    build
        Called with a seed: model, loss and samples.
    world_size
        Processes that it trains in.
    logged_values
        How many weights a log line is made from.
    start
        Knobs whose value is not the default one.
    """

    name: str
    split: Split
    batch_size: int
    build: Callable[[int], Parts]
    world_size: int = 1
    logged_values: int = 10_000
    start: Mapping[str, Any] = field(default_factory=dict)

    def config(self, case: PairCase) -> dict[str, Any]:
        """All knobs of a case before its change."""
        ranks = dict(RANKS_DEFAULTS) | {"world_size": self.world_size} if self.world_size > 1 else {}
        own = {"workload": self.name, "batch_size": self.batch_size}
        return {**own, **DEFAULTS, **ranks, **self.start, **case.start}


class ResidualCnn(nn.Module):
    """Two residual blocks with batch normalisation for 3 x 32 x 32 images."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(2)
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Scores of each class."""
        hidden = nn.functional.max_pool2d(self.stem(images), 2)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        scores: Tensor = self.head(hidden)
        return scores


def _images(seed: int) -> Parts:
    random = _random(seed)
    return _parts(ResidualCnn(), torch.randn(1024, 3, 32, 32, generator=random), torch.randint(10, (1024,), generator=random))


def _autoencoder(seed: int) -> Parts:
    random = _random(seed)
    widths = (512, 768, 384, 96, 384, 768, 512)
    layers = [part for low, high in pairwise(widths) for part in (nn.Linear(low, high), nn.GELU())]
    inputs = torch.randn(2048, 512, generator=random)
    return Parts(nn.Sequential(*layers[:-1]), nn.functional.mse_loss, inputs, inputs, inputs[:8], inputs[:8])


def _large_images(seed: int) -> Parts:
    random = _random(seed)
    model = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(192, 10))
    return _parts(model, torch.randn(_LARGE, 3, 224, 224, generator=random), torch.randint(10, (_LARGE,), generator=random))


def _long_signals(seed: int) -> Parts:
    random = _random(seed)
    model = nn.Sequential(nn.AvgPool1d(256), nn.Conv1d(2, 16, 9, stride=4), nn.ReLU(), nn.AdaptiveAvgPool1d(8), nn.Flatten())
    model.append(nn.Linear(128, 10))
    return _parts(model, torch.randn(_LARGE, 2, 65_536, generator=random), torch.randint(10, (_LARGE,), generator=random))


def _random(seed: int) -> torch.Generator:
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed + 1)


def _parts(model: nn.Module, inputs: Tensor, targets: Tensor) -> Parts:
    return Parts(model, nn.functional.cross_entropy, inputs, targets, inputs[:8], targets[:8])


def _of_detection(name: str) -> Callable[[int], Parts]:
    build = DETECTION_WORKLOADS[name].build
    assert build is not None  # noqa: S101 - those of one process all have one

    def made(seed: int) -> Parts:
        found: Parts = build({}, seed)
        return found

    return made


def _of_ranks(name: str, wide_bytes: int) -> Callable[[int], Parts]:
    """A model of two ranks with weights that cost little to compute, whose gradients are exchanged all the same."""

    def made(seed: int) -> Parts:
        torch.manual_seed(seed)
        kind = KINDS[name]
        model = Wide(kind.build(), kind.outputs, wide_bytes) if wide_bytes else kind.build()
        inputs, targets = kind.draw(1024, torch.Generator().manual_seed(seed + 1))
        return Parts(model, _flat_cross_entropy, inputs, targets, inputs[:8], targets[:8])

    return made


def _flat_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores, targets.flatten())


# Batches such that a step takes some 10 to 25 ms with one thread, of which handing a batch over is then a small part.
WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType(
    {
        each.name: each
        for each in (
            Workload("mlp", "development", 20, _of_detection("mlp")),
            Workload("cnn", "development", 24, _of_detection("cnn")),
            Workload("large_images", "development", 24, _large_images, logged_values=2_000),
            Workload("mlp_ranks", "development", 192, _of_ranks("mlp", 2 << 20), RANKS),
            Workload("cnn_ranks", "development", 20, _of_ranks("cnn", 1 << 20), RANKS),
            Workload("gru_language_model", "scored", 24, _of_detection("gru_language_model")),
            Workload("small_transformer", "scored", 16, _of_detection("small_transformer")),
            Workload("embedding_recommender", "scored", 20, _of_detection("embedding_recommender")),
            Workload("residual_cnn", "scored", 10, _images),
            Workload("autoencoder", "scored", 128, _autoencoder),
            Workload("long_signals", "scored", 24, _long_signals, logged_values=2_000),
            Workload("gru_ranks", "scored", 24, _of_ranks("gru", 2 << 20), RANKS),
            Workload("transformer_ranks", "scored", 12, _of_ranks("transformer", 2 << 20), RANKS),
            Workload("recommender_ranks", "scored", 256, _of_ranks("recommender", 0), RANKS),
        )
    }
)
