"""Small trainings on the CPU for probes: eight tasks of seconds each, five to develop with and three that are only scored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch

from perfnb.training.probe_state import TrainingState

STEPS: Final = 200
"""Length of a run."""

_BATCH: Final = 32
_TRAINED: Final = 1_536
_HELD_OUT: Final = 512
_MOMENTUM: Final = 0.9

Made = tuple[torch.nn.Module, torch.Tensor, torch.Tensor, Callable[[Any, Any], Any]]


@dataclass(frozen=True, slots=True)
class Task:
    """A task.

    Attributes
    ----------
    name, split
        What it is; whether it may be looked at while something is developed.
    make
        Gives the model, inputs, targets and loss.
    optimizer
        sgd, momentum or adam.
    rate
        Learning rate that positions count from, in decades.
    """

    name: str
    split: Literal["development", "scored"]
    make: Callable[[], Made]
    optimizer: str
    rate: float


class Live:
    """A training of a task at a position: the same model, batches and order each time.

    Parameters
    ----------
    task
        The task.
    position
        Decades of the learning rate from the task's own.
    """

    def __init__(self, task: Task, position: float) -> None:
        torch.manual_seed(11)
        self.model, inputs, targets, self._loss = task.make()
        rate = task.rate * 10.0**position
        parameters = self.model.parameters()
        self.optimizer: Any = (
            torch.optim.Adam(parameters, lr=rate)
            if task.optimizer == "adam"
            else torch.optim.SGD(parameters, lr=rate, momentum=_MOMENTUM if task.optimizer == "momentum" else 0.0)
        )
        self._held_out = inputs[_TRAINED:], targets[_TRAINED:]
        rows = np.random.default_rng(5).integers(0, _TRAINED, (STEPS, _BATCH))
        self.batches = [(inputs[each], targets[each]) for each in torch.from_numpy(rows)]
        self.state = TrainingState(self.model, self.optimizer)

    def step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """One step."""
        self.optimizer.zero_grad()
        loss: torch.Tensor = self._loss(self.model(batch[0]), batch[1])
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def train(self, first: int, end: int = STEPS) -> list[float]:
        """Losses of the steps from `first` on."""
        return [float(self.step(batch)) for batch in self.batches[first:end]]

    def validation(self) -> float:
        """Mean loss of the held-out samples."""
        with torch.no_grad():
            loss = float(self._loss(self.model(self._held_out[0]), self._held_out[1]))
        return loss if math.isfinite(loss) else math.nan

    def scale_rate(self, factor: float) -> None:
        """Multiply the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor


def _perceptron(inputs: int, outputs: int, activation: type[torch.nn.Module] = torch.nn.ReLU) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(inputs, 32), activation(), torch.nn.Linear(32, outputs))


def _clusters(scatter: float) -> Made:
    count = _TRAINED + _HELD_OUT
    centres, labels = torch.randn(8, 16), torch.randint(0, 8, (count,))
    return _perceptron(16, 8), centres[labels] + scatter * torch.randn(count, 16), labels, torch.nn.functional.cross_entropy


def _sine() -> Made:
    inputs = torch.randn(_TRAINED + _HELD_OUT, 8)
    targets = torch.sin(inputs @ torch.randn(8, 2)).sum(dim=1, keepdim=True) + 0.1 * torch.randn(len(inputs), 1)
    return _perceptron(8, 1, torch.nn.Tanh), inputs, targets, torch.nn.functional.mse_loss


def _patterns() -> Made:
    count = _TRAINED + _HELD_OUT
    shapes, labels = torch.rand(6, 1, 8, 8).gt(0.6).float(), torch.randint(0, 6, (count,))
    inputs = torch.stack(
        [torch.roll(shapes[label], int(shift), 2) for label, shift in zip(labels, torch.randint(0, 8, (count,)), strict=True)]
    )
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 6),
    )
    return model, inputs + 0.7 * torch.randn(count, 1, 8, 8), labels, torch.nn.functional.cross_entropy


def _words() -> Made:
    count = _TRAINED + _HELD_OUT
    chances = torch.softmax(2.0 * torch.randn(20, 20, 20), dim=2)
    one, two = torch.randint(0, 20, (count,)), torch.randint(0, 20, (count,))
    following = torch.multinomial(chances[one, two], 1).squeeze(1)
    model = torch.nn.Sequential(torch.nn.Embedding(20, 12), torch.nn.Flatten(), _perceptron(24, 20))
    return model, torch.stack([one, two], dim=1), following, torch.nn.functional.cross_entropy


def _recurrent() -> Made:
    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = torch.nn.GRU(2, 16, batch_first=True), torch.nn.Linear(16, 1)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.out(self.cell(inputs)[0][:, -1])
            return made

    values = torch.rand(_TRAINED + _HELD_OUT, 8, 1)
    marks = torch.zeros_like(values)
    marks[:, 1], marks[:, 5] = 1.0, 1.0
    return Last(), torch.cat([values, marks], dim=2), (values * marks).sum(dim=1), torch.nn.functional.mse_loss


def _squeezed() -> Made:
    inputs = torch.randn(_TRAINED + _HELD_OUT, 4) @ torch.randn(4, 24) + 0.1 * torch.randn(_TRAINED + _HELD_OUT, 24)
    model = torch.nn.Sequential(torch.nn.Linear(24, 6), torch.nn.GELU(), torch.nn.Linear(6, 24))
    return model, inputs, inputs, torch.nn.functional.mse_loss


def _skewed() -> Made:
    inputs = torch.randn(_TRAINED + _HELD_OUT, 20) * torch.logspace(0.5, -1.0, 20)
    labels = ((inputs @ (torch.randn(20) / torch.logspace(0.5, -1.0, 20)) + torch.randn(len(inputs))) > 0).long()
    return torch.nn.Linear(20, 2), inputs, labels, torch.nn.functional.cross_entropy


TASKS: Final = (
    Task("clusters, SGD", "development", lambda: _clusters(1.5), "sgd", 0.3),
    Task("clusters, Adam", "development", lambda: _clusters(2.0), "adam", 0.01),
    Task("sine, momentum", "development", _sine, "momentum", 0.02),
    Task("patterns, Adam", "development", _patterns, "adam", 0.01),
    Task("words, momentum", "development", _words, "momentum", 0.1),
    Task("adding, recurrent, Adam", "scored", _recurrent, "adam", 0.01),
    Task("squeezed, momentum", "scored", _squeezed, "momentum", 0.02),
    Task("skewed, SGD", "scored", _skewed, "sgd", 0.3),
)
"""No number of the package was chosen on them; the scored ones were run once, when everything else was written."""
