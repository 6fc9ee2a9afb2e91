"""Families that were written after the dry run was finished: nothing in perfnb was changed for them before their first run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from benchmarks.memory.dry_run_families import Family, mean_square, next_word, words

_DECODER_VARIANTS: Final = ({}, {"activation_checkpointing": "full"}, {"precision": "bf16"}, {"optimizer": "adagrad"})


class Mixer(nn.Module):
    """Layers over patches, then over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(48, 64), nn.Linear(64, 10)
        self.over_patches = nn.ModuleList(nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)) for _ in range(3))
        self.over_channels = nn.ModuleList(nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of classes."""
        x = self.into(x.unflatten(-1, (64, 48)))
        for place, (patches, channels) in enumerate(zip(self.over_patches, self.over_channels, strict=True)):
            x = x + patches(self.norms[2 * place](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * place + 1](x))
        return self.head(x.mean(1))


class RotaryBlock(nn.Module):
    """Attention with rotated positions and fewer keys than queries, then a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.RMSNorm(64), nn.RMSNorm(64)
        self.q, self.k, self.v, self.out = (
            nn.Linear(64, 64, bias=False),
            nn.Linear(64, 32, bias=False),
            nn.Linear(64, 32, bias=False),
            nn.Linear(64, 64),
        )
        self.gate, self.up, self.down = nn.Linear(64, 172), nn.Linear(64, 172), nn.Linear(172, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        y = self.one(x)
        q, k, v = (one(y).unflatten(-1, (-1, 16)).transpose(1, 2) for one in (self.q, self.k, self.v))
        angle = torch.outer(torch.arange(x.shape[1], dtype=x.dtype), 1e4 ** (-torch.arange(0, 8, dtype=x.dtype) / 8))
        turned = [
            torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
            for a, b in (one.chunk(2, -1) for one in (q, k))
        ]
        k, v = turned[1].repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        found = functional.scaled_dot_product_attention(turned[0].to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        y = self.two(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class RotaryDecoder(nn.Module):
    """A language model of such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.blocks = nn.Embedding(350, 64), nn.ModuleList(RotaryBlock() for _ in range(3))
        self.norm, self.head = nn.RMSNorm(64), nn.Linear(64, 350, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next word."""
        x = self.words(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Patches(nn.Module):
    """A vision transformer: patches by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 64, 8, 8), nn.Linear(64, 10)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True) for _ in range(3))
        self.place = nn.Parameter(torch.zeros(1, 16, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of classes."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class Experts(nn.Module):
    """All experts, weighted by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(64, 4), nn.Linear(64, 8)
        self.first, self.second = nn.Parameter(torch.randn(4, 64, 128) / 8), nn.Parameter(torch.randn(4, 128, 64) / 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores."""
        inner = functional.relu(torch.einsum("bd,edh->beh", x, self.first))
        outer = torch.einsum("beh,ehd->bed", inner, self.second)
        return self.head((outer * self.gate(x).softmax(-1).unsqueeze(-1)).sum(1))


class Variational(nn.Module):
    """An autoencoder with drawn codes."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Sequential(nn.Linear(784, 256), nn.ELU(), nn.Linear(256, 64)), nn.Linear(32, 784)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What was decoded, means and logarithms of variances."""
        mean, spread = self.into(x).chunk(2, -1)
        return self.out(mean + torch.randn_like(mean) * (0.5 * spread).exp()), mean, spread


def evidence(model: Any, batch: torch.Tensor) -> torch.Tensor:
    """Reconstruction and divergence."""
    decoded, mean, spread = model(batch)
    divergence = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(-1).mean()
    return functional.binary_cross_entropy_with_logits(decoded, batch.sigmoid()) + 1e-3 * divergence


class Recommender(nn.Module):
    """Bags of items and products of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(500, 32) for _ in range(4))
        self.top = nn.Sequential(nn.Linear(16 + 32 * 4, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores."""
        vectors = torch.stack([bag(one) for bag, one in zip(self.bags, x.unbind(1), strict=True)], 1)
        return self.top(torch.cat([(vectors @ vectors.transpose(1, 2)).flatten(1), vectors.flatten(1)], 1))


class Graph(nn.Module):
    """Messages along edges, added up at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))

    def forward(self, parts: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Values of nodes."""
        x, edges = parts
        for layer in self.layers:
            x = functional.relu(x + torch.zeros_like(x).index_add(0, edges[1], layer(x)[edges[0]]))
        return x


class Contrast(nn.Module):
    """Two towers whose outputs are compared across the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(96, 128), nn.Tanh(), nn.Linear(128, 64)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Similarities of all pairs."""
        one, two = (functional.normalize(tower(part), dim=-1) for tower, part in zip(self.towers, x.unbind(1), strict=True))
        return one @ two.T / 0.07


class Sounds(nn.Module):
    """Convolutions over time with norms of groups."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 32)
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 9, 2, 4) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for width in widths[1:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = functional.silu(norm(layer(x)))
        return x.mean(-1)


class Gated(nn.Module):
    """Words through a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layers, self.head = nn.Embedding(300, 48), nn.GRU(48, 64, batch_first=True), nn.Linear(64, 300)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next word."""
        return self.head(self.layers(self.words(x))[0])


def _floats(*shape: int) -> Any:
    return lambda batch_size: torch.randn(batch_size, *shape)


def _pairs(model: Any, batch: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(batch), torch.arange(batch.shape[0]))


def _graph(batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(20 * batch_size, 64), torch.randint(0, 20 * batch_size, (2, 80 * batch_size))


HELD_OUT: Final[Mapping[str, Family]] = {
    "mixer": Family(Mixer, _floats(3072), mean_square, (2, 4, 16), None, ({}, {"precision": "bf16"})),
    "rotary decoder": Family(RotaryDecoder, words(350), next_word, (2, 4, 12), 64, _DECODER_VARIANTS),
    "vision transformer": Family(
        Patches, _floats(3, 32, 32), mean_square, (2, 4, 16), None, ({}, {"activation_checkpointing": "full"})
    ),
    "experts": Family(Experts, _floats(64), mean_square, (16, 64, 512)),
    "variational": Family(Variational, _floats(784), evidence, (8, 16, 256), None, ({}, {"optimizer": "momentum"})),
    "recommender": Family(Recommender, lambda size: torch.randint(0, 500, (size, 4, 6)), mean_square, (16, 64, 512)),
    "graph": Family(Graph, _graph, mean_square, (2, 8, 64)),
    "contrast": Family(Contrast, _floats(2, 96), _pairs, (32, 64, 512)),
    "sounds": Family(Sounds, _floats(1, 1024), mean_square, (2, 4, 16)),
    "gru": Family(Gated, words(300), next_word, (2, 4, 16), 32),
}
"""Families that nobody looked at while the dry run was written.

An encoder with a decoder was among them at first: the dry run failed on the deep copies of `nn.Transformer`, which was repaired,
so that family now stands with those that the dry run was built with.
"""
