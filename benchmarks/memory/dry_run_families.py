"""Small models of the families that the dry run was built with, and what makes a family: four functions, sizes, variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

Options = Mapping[str, Any]
"""Knobs of a variant, as `predict_memory` takes them in its config; batch and length left out."""


@dataclass(frozen=True, slots=True)
class Family:
    """A model with its data and loss.

    Attributes
    ----------
    model, batch, loss
        As `predict_memory` takes them.
    batches
        Two small batch sizes and a larger one, which is predicted.
    length
        Sequence length; None where there is none.
    variants
        Knobs of each configuration.
    """

    model: Callable[[], nn.Module]
    batch: Callable[..., Any]
    loss: Callable[[Any, Any], torch.Tensor]
    batches: tuple[int, int, int]
    length: int | None = None
    variants: tuple[Options, ...] = ({},)


class Block(nn.Module):
    """A pre-norm transformer block, attention fused or written out."""

    def __init__(self, width: int, *, is_fused: bool) -> None:
        super().__init__()
        self.is_fused = is_fused
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.drop = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention, then the two layers."""
        parts = self.into(self.first(x)).chunk(3, -1)
        q, k, v = (one.unflatten(-1, (4, -1)).transpose(1, 2) for one in parts)
        if self.is_fused:
            found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
            found = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        x = x + self.drop(self.out(found.transpose(1, 2).flatten(2)))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class Decoder(nn.Module):
    """A causal language model."""

    def __init__(self, *, is_fused: bool, width: int = 64, depth: int = 3, words: int = 400) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, is_fused=is_fused) for _ in range(depth))
        self.head = nn.Linear(width, words)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next word."""
        x = self.words(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Net(nn.Module):
    """Convolutions down and up with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(*io, 3, padding=1) for io in ((3, 16), (16, 32), (48, 16)))
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of each pixel."""
        top = functional.relu(self.one(x))
        low = functional.relu(self.two(functional.max_pool2d(top, 2)))
        joined = torch.cat([top, functional.interpolate(low, scale_factor=2.0)], 1)
        return self.last(functional.relu(self.three(joined)))


class Recurrent(nn.Module):
    """Words through an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layers, self.head = nn.Embedding(300, 64), nn.LSTM(64, 96, 2, batch_first=True), nn.Linear(96, 300)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next word."""
        return self.head(self.layers(self.words(x))[0])


class Translator(nn.Module):
    """torch's own transformer, encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(200, 32), nn.Linear(32, 200)
        self.inner = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of words."""
        return self.head(self.inner(self.words(x), self.words(x.flip(1))))


def next_word(model: Any, batch: Any) -> torch.Tensor:
    """Cross entropy of each word."""
    return functional.cross_entropy(model(batch).flatten(0, 1).float(), batch.flatten())


def words(count: int) -> Callable[[int, int], torch.Tensor]:
    """Batches of random words."""
    return lambda batch_size, length: torch.randint(0, count, (batch_size, length))


def mean_square(model: Any, batch: Any) -> torch.Tensor:
    """A loss for models whose output has any shape."""
    return model(batch).float().square().mean()


def _convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for wide, wider in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(wide, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _layers() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), *layers, nn.Linear(256, 10))


BUILT_WITH: Final[Mapping[str, Family]] = {
    "transformer": Family(
        lambda: Decoder(is_fused=True),
        words(400),
        next_word,
        (2, 4, 12),
        64,
        (
            {},
            {"precision": "bf16"},
            {"activation_checkpointing": "full"},
            {"optimizer": "sgd"},
            {"optimizer_implementation": "foreach"},
            {"precision": "pure_bf16"},
            {"gradient_accumulation_steps": 2},
        ),
    ),
    "transformer, attention written out": Family(
        lambda: Decoder(is_fused=False), words(400), next_word, (2, 4, 12), 64, ({}, {"activation_checkpointing": "full"})
    ),
    "layers": Family(
        _layers,
        lambda batch_size: torch.randn(batch_size, 64),
        mean_square,
        (16, 64, 2048),
        None,
        ({}, {"optimizer": "momentum"}, {"precision": "bf16"}, {"optimizer": "rprop"}),
    ),
    "convolutions": Family(
        _convolutions,
        lambda batch_size: torch.randn(batch_size, 3, 32, 32),
        mean_square,
        (2, 4, 16),
        None,
        ({}, {"optimizer": "sgd"}),
    ),
    "u-net": Family(Net, lambda batch_size: torch.randn(batch_size, 3, 32, 32), mean_square, (2, 4, 16)),
    "encoder and decoder": Family(Translator, words(200), next_word, (2, 4, 12), 40, ({}, {"optimizer": "adam"})),
    "lstm": Family(Recurrent, words(300), next_word, (2, 4, 16), 32, ({}, {"optimizer": "momentum"})),
}
"""Families that were looked at while the dry run was written."""
