"""The three models of the campaign and their random data: a ResNet-like CNN, a GPT-like transformer, a launch-bound MLP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

Config = Mapping[str, Any]

SIZES: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "measure": {
        "cnn": {"widths": [64, 128, 256, 512], "blocks": 2, "pixels": 128, "classes": 1000},
        "gpt": {"layers": 6, "width": 512, "heads": 8, "tokens": 512, "vocabulary": 16_384},
        "mlp": {"layers": 40, "width": 256, "classes": 10},
    },
    "rehearse": {
        "cnn": {"widths": [4, 8], "blocks": 1, "pixels": 16, "classes": 10},
        "gpt": {"layers": 2, "width": 16, "heads": 2, "tokens": 16, "vocabulary": 64},
        "mlp": {"layers": 4, "width": 16, "classes": 10},
    },
}
BATCHES: Final[Mapping[str, Mapping[str, int]]] = {
    "measure": {"cnn": 64, "gpt": 8, "mlp": 64},
    "rehearse": {"cnn": 4, "gpt": 2, "mlp": 4},
}

KNOBS: Final[Config] = {
    "precision": "fp32",
    "matmul_precision": "highest",
    "memory_format": "contiguous",
    "compile": False,
    "cuda_graphs": False,
    "optimizer": "adamw",
    "optimizer_implementation": "foreach",
    "zero_grad_set_to_none": True,
    "activation_checkpointing": "none",
    "attention": "sdpa",
    "log_every_n_steps": 50,
    "num_workers": 0,
    "prefetch_factor": None,
    "persistent_workers": False,
    "pin_memory": False,
    "non_blocking": False,
    "data": "device",
    "seed": 7,
}
"""Knob to its value where nothing else is said. `data`: "device" batches lie there, "loader" come from a DataLoader."""


def config_of(workload: str, mode: str, **knobs: Any) -> dict[str, Any]:
    """Whole config of a workload, with these knobs changed."""
    return {
        "workload": workload,
        "model": dict(SIZES[mode][workload]),
        "batch_size": BATCHES[mode][workload],
        **KNOBS,
        **knobs,
    }


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.shortcut = nn.Identity() if before == after and stride == 1 else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images of another width."""
        inner = functional.relu(self.norms[0](self.first(images)))
        return functional.relu(self.norms[1](self.second(inner)) + self.shortcut(images))


class Attention(nn.Module):
    """A transformer's block: causal attention and a feed-forward part."""

    def __init__(self, width: int, heads: int, implementation: str) -> None:
        super().__init__()
        self.heads, self.implementation = heads, implementation
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States of the next layer."""
        batch, tokens, width = states.shape
        parts = self.into(self.norms[0](states)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if self.implementation == "sdpa":
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
            hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=states.device).triu(1)
            mixed = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value
        states = states + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return states + self.narrow(functional.gelu(self.wide(self.norms[1](states))))


class Model(nn.Module):
    """A start, blocks that may be checkpointed, and an end."""

    def __init__(self, start: nn.Module, blocks: list[nn.Module], end: nn.Module, *, checkpointed: bool) -> None:
        super().__init__()
        self.start, self.blocks, self.end, self.checkpointed = start, nn.ModuleList(blocks), end, checkpointed

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores."""
        states = self.start(inputs)
        for block in self.blocks:
            states = checkpoint(block, states, use_reentrant=False) if self.checkpointed else block(states)
        return self.end(states)


def model_of(config: Config) -> Model:
    """The model of a config, on the host."""
    size, checkpointed = config["model"], config["activation_checkpointing"] != "none"
    if config["workload"] == "cnn":
        widths = size["widths"]
        start = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        blocks = [
            Residual(before if not number else after, after, 2 if not number and before != after else 1)
            for before, after in zip([widths[0], *widths], widths, strict=False)
            for number in range(size["blocks"])
        ]
        end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], size["classes"]))
        return Model(start, list(blocks), end, checkpointed=checkpointed)
    if config["workload"] == "gpt":
        width, vocabulary = size["width"], size["vocabulary"]
        layers = [Attention(width, size["heads"], config["attention"]) for _ in range(size["layers"])]
        end = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False))
        return Model(nn.Embedding(vocabulary, width), list(layers), end, checkpointed=checkpointed)
    width = size["width"]
    linear = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(size["layers"])]
    return Model(nn.Identity(), list(linear), nn.Linear(width, size["classes"]), checkpointed=checkpointed)


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Random samples, each made anew from its number: `work` further passes stand for decoding and transforming it."""

    def __init__(self, config: Config, samples: int) -> None:
        self._config, self._samples = config, samples

    def __len__(self) -> int:
        """How many there are."""
        return self._samples

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Inputs and target of one."""
        inputs, target = tensors(self._config, 1, torch.Generator().manual_seed(self._config["seed"] + number))
        for _ in range(self._config.get("sample_work", 0)):
            inputs = inputs.flip(-1) if inputs.dtype is torch.long else inputs.flip(-1).mul(1.0).add(0.0)
        return inputs[0], target[0]


def tensors(config: Config, batch: int, generator: torch.Generator, length: int | None = None) -> tuple[Tensor, Tensor]:
    """A random batch, on the host; `length` in place of the model's tokens or pixels."""
    size = config["model"]
    if config["workload"] == "gpt":
        shape = (batch, length or size["tokens"])
        return tuple(torch.randint(size["vocabulary"], shape, generator=generator) for _ in range(2))  # type: ignore[return-value]
    pixels = length or size.get("pixels", 0)
    shape = (batch, 3, pixels, pixels) if config["workload"] == "cnn" else (batch, size["width"])
    return torch.randn(shape, generator=generator), torch.randint(size["classes"], (batch,), generator=generator)


def batches_of(config: Config, device: torch.device) -> Iterator[Callable[[], tuple[Tensor, Tensor]]]:
    """For ever: a call that gives the next batch on the device, copied from the host where the config says so."""
    if config["data"] == "device":
        generator = torch.Generator().manual_seed(config["seed"])
        lengths = config.get("lengths") or [None, None]
        held = [tensors(config, config["batch_size"], generator, length) for length in lengths]
        ready = [tuple(part.to(device) for part in batch) for batch in held]
        while True:
            for batch in ready:
                yield lambda batch=batch: batch  # type: ignore[misc]
    workers = config["num_workers"]
    loader = DataLoader(
        Samples(config, config["batch_size"] * config.get("epoch_steps", 64)),
        batch_size=config["batch_size"],
        num_workers=workers,
        pin_memory=config["pin_memory"] and device.type == "cuda",
        persistent_workers=bool(workers) and config["persistent_workers"],
        prefetch_factor=config["prefetch_factor"] if workers else None,
    )
    while True:
        for batch in loader:
            yield lambda batch=batch: tuple(part.to(device, non_blocking=config["non_blocking"]) for part in batch)  # type: ignore[misc]
