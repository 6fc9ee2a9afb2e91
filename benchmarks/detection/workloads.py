"""The trainings that faults are put into: two to tune thresholds on, three that are only scored. Small, but each learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.detection.case import Workload

SAMPLES: Final = 2048
VALIDATION: Final = 256
_LEARNING_RATE: Final = 0.03
_NOISE: Final = 0.2  # of words that follow from nothing
_HIDDEN: Final = 0.5  # of words that do not tell the class
_WINDOWS: Final = 16  # few weights and few, heavy samples: large weights leave the cache during each wait for data


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What one training is made of.

    Attributes
    ----------
    model, loss
        The network, and the loss of what it gives and the targets.
    inputs, targets
        All training samples.
    held_inputs, held_targets
        Samples for validation.
    is_text
        Whether a sample is a row of token numbers, of which 0 pads.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    held_inputs: Tensor
    held_targets: Tensor
    is_text: bool = False


class SmallCnn(nn.Sequential):
    """Two convolutions and a linear layer for 3 x 24 x 24 images."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 96, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(1536, 10),
        )


class GruLanguageModel(nn.Module):
    """Predicts each next token from those before it."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of each next token."""
        scores: Tensor = self.out(self.gru(self.embedding(tokens))[0])
        return scores.transpose(1, 2)


class SmallTransformer(nn.Module):
    """An encoder of four layers that tells the class of a row of tokens."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of each class."""
        scores: Tensor = self.out(self.encoder(self.embedding(tokens)).mean(dim=1))
        return scores


class EmbeddingRecommender(nn.Module):
    """Eight tables of embeddings and an MLP that tells which candidates a user takes."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in range(8))
        self.mlp = nn.Sequential(nn.Linear(8 * width, 768), nn.ReLU(), nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 1))

    def forward(self, fields: Tensor) -> Tensor:
        """Log-odds of each candidate."""
        looked_up = [table(fields[..., number]) for number, table in enumerate(self.tables)]
        odds: Tensor = self.mlp(torch.cat(looked_up, dim=-1))
        return odds.squeeze(-1)


def _split(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor, *, is_text: bool = False
) -> Parts:
    return Parts(
        model, loss, inputs[VALIDATION:], targets[VALIDATION:], inputs[:VALIDATION], targets[:VALIDATION], is_text=is_text
    )


def _generator(seed: int) -> torch.Generator:
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed + 1)


class WindowMlp(nn.Module):
    """An MLP over the windows of a sample, whose scores are averaged."""

    def __init__(self) -> None:
        super().__init__()
        widths = (128, 768, 768, 256)
        layers = [part for low, high in pairwise(widths) for part in (nn.Linear(low, high), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(256, 10))

    def forward(self, windows: Tensor) -> Tensor:
        """Scores of each class."""
        scores: Tensor = self.layers(windows).mean(dim=1)
        return scores


def _mlp(_: Mapping[str, Any], seed: int) -> Parts:
    generator = _generator(seed)
    teacher = torch.randn(128, 10, generator=generator)
    targets = torch.randint(10, (SAMPLES + VALIDATION,), generator=generator)
    inputs = torch.randn(SAMPLES + VALIDATION, _WINDOWS, 128, generator=generator) + 0.1 * teacher.T[targets][:, None]
    return _split(WindowMlp(), nn.functional.cross_entropy, inputs, targets)


def _cnn(_: Mapping[str, Any], seed: int) -> Parts:
    generator = _generator(seed)
    targets = torch.randint(10, (SAMPLES + VALIDATION,), generator=generator)
    patterns = torch.randn(10, 3, 24, 24, generator=generator)
    inputs = patterns[targets] + 2.0 * torch.randn(SAMPLES + VALIDATION, 3, 24, 24, generator=generator)
    return _split(SmallCnn(), nn.functional.cross_entropy, inputs, targets)


def _sentences(count: int, length: int, words: int, generator: torch.Generator) -> Tensor:
    """Rows of tokens in which each word mostly follows from the one before it."""
    follows = torch.randint(1, words, (words,), generator=generator)
    rows = torch.empty(count, length, dtype=torch.long)
    rows[:, 0] = torch.randint(1, words, (count,), generator=generator)
    for place in range(1, length):
        is_noise = torch.rand(count, generator=generator) < _NOISE
        rows[:, place] = torch.where(
            is_noise, torch.randint(1, words, (count,), generator=generator), follows[rows[:, place - 1]]
        )
    return rows


def _gru(_: Mapping[str, Any], seed: int) -> Parts:
    rows = _sentences(SAMPLES + VALIDATION, 25, 64, _generator(seed))
    loss = nn.CrossEntropyLoss(ignore_index=0)
    return _split(GruLanguageModel(64, 192), loss, rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), is_text=True)


def _transformer(_: Mapping[str, Any], seed: int) -> Parts:
    generator = _generator(seed)
    rows = torch.randint(1, 64, (SAMPLES + VALIDATION, 24), generator=generator)
    targets = torch.randint(10, (SAMPLES + VALIDATION,), generator=generator)
    rows = torch.where(torch.rand(rows.shape, generator=generator) < 1 - _HIDDEN, targets[:, None] + 1, rows)
    return _split(SmallTransformer(64, 64), nn.functional.cross_entropy, rows, targets, is_text=True)


def _recommender(_: Mapping[str, Any], seed: int) -> Parts:
    generator = _generator(seed)
    fields = torch.randint(200, (SAMPLES + VALIDATION, _WINDOWS, 8), generator=generator)
    taste = torch.randn(8, 200, generator=generator)
    score = taste[torch.arange(8), fields].sum(dim=-1)
    return _split(EmbeddingRecommender(200, 32), nn.functional.binary_cross_entropy_with_logits, fields, (score > 0).float())


def _settings(small: int, large: int) -> Mapping[str, Mapping[str, Any]]:
    """A batch that the process reads itself, and another that two workers read."""
    shared = {"learning_rate": _LEARNING_RATE, "optimizer": "sgd", "momentum": 0.9}
    return MappingProxyType(
        {
            "alone": {"batch_size": small, "num_workers": 0, **shared},
            "workers": {"batch_size": large, "num_workers": 2, **shared},
        }
    )


# Batches such that a step takes about 8 to 16 ms with one thread.
WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType(
    {
        each.name: each
        for each in (
            Workload("mlp", "development", _settings(12, 16), _mlp),
            Workload("cnn", "development", _settings(16, 20), _cnn),
            Workload("gru_language_model", "held_out", _settings(12, 16), _gru),
            Workload("small_transformer", "held_out", _settings(16, 20), _transformer),
            Workload("embedding_recommender", "held_out", _settings(12, 16), _recommender),
        )
    }
)
