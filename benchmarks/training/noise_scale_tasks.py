"""Two small tasks whose gradient noise scale is known exactly: from every sample's gradient, at any point of a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from perfnb.training.noise_scale import exact_noise_scale

SAMPLES = 2_048
WARM_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A model with its data and how its training is reached.

    Attributes
    ----------
    name
        What it is.
    model
        The module.
    inputs, targets
        All samples.
    loss
        Called as `loss(outputs, targets)`: the mean over samples.
    rate
        Learning rate of the SGD that leads to the checkpoints.
    """

    name: str
    model: torch.nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor
    loss: Any
    rate: float


def tasks() -> Iterator[Task]:
    """A classifier of noisy clusters, and a regression by a network without noise in its targets' form."""
    torch.manual_seed(0)
    centres = torch.randn(6, 12)
    labels = torch.randint(0, 6, (SAMPLES,))
    inputs = centres[labels] + 1.5 * torch.randn(SAMPLES, 12)
    model = torch.nn.Sequential(torch.nn.Linear(12, 24), torch.nn.Tanh(), torch.nn.Linear(24, 6))
    yield Task("clusters, classifier", model, inputs, labels, torch.nn.functional.cross_entropy, 0.05)
    torch.manual_seed(1)  # whatever was done with the first
    inputs = torch.randn(SAMPLES, 8)
    targets = torch.sin(inputs @ torch.randn(8, 2)).sum(dim=1, keepdim=True) + 0.3 * torch.randn(SAMPLES, 1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1))
    yield Task("sine, regression", model, inputs, targets, torch.nn.functional.mse_loss, 0.02)


def trained(task: Task, steps: int) -> None:
    """Train on batches of 64."""
    optimizer = torch.optim.SGD(task.model.parameters(), lr=task.rate)
    for rows in (torch.randint(0, SAMPLES, (WARM_BATCH,)) for _ in range(steps)):
        optimizer.zero_grad()
        task.loss(task.model(task.inputs[rows]), task.targets[rows]).backward()
        optimizer.step()


def exact(task: Task) -> float:
    """Noise scale of all samples' gradients at the present parameters."""
    parameters = {name: each.detach() for name, each in task.model.named_parameters()}

    def one(values: dict[str, torch.Tensor], sample: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        made = torch.func.functional_call(task.model, values, (sample.unsqueeze(0),))
        return task.loss(made, target.unsqueeze(0))  # type: ignore[no-any-return]

    told = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(parameters, task.inputs, task.targets)
    rows = torch.cat([each.reshape(SAMPLES, -1) for each in told.values()], dim=1)
    return exact_noise_scale(rows.double().numpy().astype(np.float64))
