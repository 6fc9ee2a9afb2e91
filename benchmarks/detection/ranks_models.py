"""The models that two ranks train: small versions of the benchmark's workloads, whose step is a few milliseconds on one core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

CLASSES: Final = 10
VOCABULARY: Final = 200
FIELDS: Final = 4
ROWS_PER_FIELD: Final = 5_000
"""Rows of each embedding table of the recommender."""

_EXPERTS_BYTES: Final = 4  # of a float32 weight
_NARROW: Final = 164
"""Width of a small layer: its weights, 108 kB, just fill a bucket of .1 MB (104,858 bytes) alone."""


class Gru(nn.Module):
    """A language model: embedding, one recurrent layer, scores of the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 64)
        self.recurrent = nn.GRU(64, 96, batch_first=True)
        self.scores = nn.Linear(96, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores of each token's successor, one row per token."""
        hidden, _ = self.recurrent(self.embedding(tokens))
        return self.scores(hidden).flatten(0, 1)


class Transformer(nn.Module):
    """A language model: embedding, two encoder layers, scores of the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.scores = nn.Linear(64, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores of each token's successor, one row per token."""
        return self.scores(self.layers(self.embedding(tokens))).flatten(0, 1)


class Recommender(nn.Module):
    """One embedding table per field, a perceptron over what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(ROWS_PER_FIELD, 16) for _ in range(FIELDS))
        self.scores = nn.Sequential(nn.Linear(16 * FIELDS, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 2))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Scores of both classes, one row per sample."""
        found = [table(rows[:, field]) for field, table in enumerate(self.tables)]
        scores: torch.Tensor = self.scores(torch.cat(found, dim=1))
        return scores


class Wide(nn.Module):
    """A model with many weights behind its scores that cost little to compute: each row uses one of many experts.

    Every rank exchanges the gradient of all of them at each step, as an embedding with dense gradients does.

    Parameters
    ----------
    model
        Whose scores it adds to.
    outputs
        Scores per row.
    weights_bytes
        Size of the weights added.
    """

    def __init__(self, model: nn.Module, outputs: int, weights_bytes: int) -> None:
        super().__init__()
        self.model = model
        self.experts = nn.Embedding(max(1, weights_bytes // _EXPERTS_BYTES // outputs), outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scores of the model plus those of the experts."""
        scores: torch.Tensor = self.model(inputs)
        chosen = torch.arange(len(scores)) % self.experts.num_embeddings
        return scores + self.experts(chosen)


class Deep(nn.Module):
    """A model with many small layers behind its scores, which see the mean of the batch: little to compute, much to exchange.

    Parameters
    ----------
    model
        Whose scores it refines.
    outputs
        Scores per row.
    layers
        Small layers added.
    """

    def __init__(self, model: nn.Module, outputs: int, layers: int) -> None:
        super().__init__()
        self.model = model
        self.into, self.out = nn.Linear(outputs, _NARROW), nn.Linear(_NARROW, outputs)
        self.small = nn.ModuleList(nn.Linear(_NARROW, _NARROW) for _ in range(layers))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Refined scores."""
        scores: torch.Tensor = self.model(inputs)
        hidden = self.into(scores.mean(dim=0, keepdim=True))
        for layer in self.small:
            hidden = hidden + torch.relu(layer(hidden))
        return scores + self.out(hidden)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of model.

    Attributes
    ----------
    build
        Makes the model.
    draw
        Inputs and targets of so many samples.
    outputs
        Scores per row.
    """

    build: Callable[[], nn.Module]
    draw: Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
    outputs: int


def _vectors(samples: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(samples, 256, generator=random), torch.randint(CLASSES, (samples,), generator=random)


def _images(samples: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(samples, 3, 24, 24, generator=random), torch.randint(CLASSES, (samples,), generator=random)


def _texts(samples: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(VOCABULARY, (samples, 25), generator=random)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _rows(samples: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(ROWS_PER_FIELD, (samples, FIELDS), generator=random), torch.randint(2, (samples,), generator=random)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES))


def _cnn() -> nn.Module:
    first, second = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 32, 3, stride=2, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, CLASSES))


KINDS: Final[Mapping[str, Kind]] = {
    "mlp": Kind(_mlp, _vectors, CLASSES),
    "cnn": Kind(_cnn, _images, CLASSES),
    "gru": Kind(Gru, _texts, VOCABULARY),
    "transformer": Kind(Transformer, _texts, VOCABULARY),
    "recommender": Kind(Recommender, _rows, 2),
}
