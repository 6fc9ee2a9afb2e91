"""The training loop that every sample runs: an ordinary one, with logging between the optimizer and the next batch."""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from benchmarks.samples.data import Pair, build_loader
from benchmarks.samples.workloads import Config

HISTOGRAM_BINS = 64


@dataclass(frozen=True, slots=True)
class Setup:
    """What one variant trains with."""

    config: Config
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Iterable[Pair]
    log: list[str]


def prepare(config: Config, steps: int) -> Setup:
    """Model, optimizer and loader of a configuration, the same for the same seed.

    Parameters
    ----------
    config
        Configuration of the run.
    steps
        Length of the epoch that the loader delivers.

    Returns
    -------
    Setup
        Ready to train; wrapped for gradient exchange when a process group is up.
    """
    torch.set_num_threads(config["torch_num_threads"])
    torch.manual_seed(config["seed"])
    model: nn.Module = build_model(config)
    rank = 0
    if dist.is_initialized():
        rank = dist.get_rank()
        model = DistributedDataParallel(model, bucket_cap_mb=config["bucket_cap_mb"])
    optimizer = torch.optim.SGD(model.parameters(), lr=config["learning_rate"])
    return Setup(config, model, optimizer, build_loader(config, steps, rank), [])


class MeanOverWindows(nn.Module):
    """Class scores of a sample: the mean of those of its windows."""

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Mean over the second dimension."""
        return scores.mean(dim=1)


def build_model(config: Config) -> nn.Sequential:
    """A multilayer perceptron of the configured widths: few operators, each large, so that profiling costs little."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(config["model"]["widths"]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1], MeanOverWindows())


def training_steps(setup: Setup) -> Iterator[int]:
    """Train one epoch, one step at a time.

    Parameters
    ----------
    setup
        What to train with.

    Yields
    ------
    int
        The number of the step that has just ended, where ``prof.step()`` stands in a user's loop.
    """
    every = setup.config["log_every_n_steps"]
    for step, (inputs, targets) in enumerate(setup.loader):
        setup.optimizer.zero_grad()
        loss = cross_entropy(setup.model(inputs), targets)
        loss.backward()
        setup.optimizer.step()
        if every and step % every == 0:
            setup.log[:] = [log_line(setup, loss)]
        yield step


def log_line(setup: Setup, loss: torch.Tensor) -> str:
    """One line of JSON: the loss, and where asked for, norms and histograms of all parameters and gradients."""
    if setup.config["logging"]["what"] == "loss":
        return json.dumps({"loss": loss.item()})
    statistics = {name: parameter_statistics(parameter) for name, parameter in setup.model.named_parameters()}
    return json.dumps({"loss": loss.item(), "parameters": statistics})


def parameter_statistics(parameter: nn.Parameter) -> dict[str, float | list[float]]:
    """Norm and histogram of a parameter and of its gradient, as plain Python numbers."""
    gradient = parameter.grad
    if gradient is None:
        return {}
    return {
        "norm": parameter.detach().norm().item(),
        "gradient_norm": gradient.norm().item(),
        "histogram": torch.histc(parameter.detach(), HISTOGRAM_BINS).tolist(),
        "gradient_histogram": torch.histc(gradient, HISTOGRAM_BINS).tolist(),
    }
