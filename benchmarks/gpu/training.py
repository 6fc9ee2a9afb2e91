"""A training by its config: one call makes one step, on a GPU where there is one, else on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.units import NeedsCudaError
from benchmarks.gpu.workloads import Config, batches_of, model_of

_CAPTURE_WARM_UP: Final = 3  # torch/cuda/graphs.py: warm up on a side stream before a capture


def device() -> torch.device:
    """The GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def described() -> dict[str, Any]:
    """What results depend on: versions and the device, without anything that names the machine."""
    told: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": "cpu"}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        told |= {
            "device": properties.name,
            "device_memory_bytes": properties.total_memory,
            "capability": list(torch.cuda.get_device_capability(0)),
            "cudnn": torch.backends.cudnn.version(),
        }
    return told


class Training:
    """A model, its data and its optimizer.

    Parameters
    ----------
    config
        See `benchmarks.gpu.workloads.KNOBS`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = device()
        self.steps = 0
        self.kept: list[Any] = []
        if config["cuda_graphs"] and self.device.type != "cuda":
            message = "CUDA graphs"
            raise NeedsCudaError(message)
        if config["pin_memory"] and self.device.type != "cuda":
            message = "pinned memory"
            raise NeedsCudaError(message)
        self.activate()
        torch.manual_seed(config["seed"])
        model = model_of(config).to(self.device)
        if config["memory_format"] == "channels_last":
            model = model.to(memory_format=torch.channels_last)
        self.parameters = list(model.parameters())
        if config["precision"] == "pure_bf16":
            model = model.to(dtype=torch.bfloat16)
            self.parameters = list(model.parameters())
        self.optimizer = self._optimizer()
        self.model: Any = model
        if config.get("synchronize_every_operator"):
            self._wait_after_each(model)
        if config["compile"]:
            self.model = torch.compile(model, backend="inductor" if self.device.type == "cuda" else "eager")
        self._batches = batches_of(config, self.device)
        self._replay: Callable[[], None] | None = None

    def activate(self) -> None:
        """Set what torch keeps for the whole process; to be called before a side takes its turn."""
        high = self.config["matmul_precision"] != "highest"
        torch.set_float32_matmul_precision("high" if high else "highest")
        with contextlib.suppress(AttributeError, RuntimeError):  # torch from 2.9 on has another name and refuses both
            torch.backends.cudnn.allow_tf32 = high

    def step(self, mark: Callable[[str], None] = lambda _: None) -> None:
        """One step; `mark` is told the part that begins."""
        mark("data")
        take = next(self._batches)
        mark("transfer")
        inputs, targets = take()
        if self.config["memory_format"] == "channels_last" and inputs.dim() == 4:  # noqa: PLR2004 - images
            inputs = inputs.to(memory_format=torch.channels_last)
        is_captured = self.config["cuda_graphs"]
        loss = self._replayed(inputs, targets) if is_captured else self._eager(inputs, targets, mark)
        mark("logging")
        if self.steps % self.config["log_every_n_steps"] == 0:
            loss.item()
        self._misbehave(loss)
        self.steps += 1

    def _eager(self, inputs: Tensor, targets: Tensor, mark: Callable[[str], None]) -> Tensor:
        mark("optimizer")
        self.optimizer.zero_grad(set_to_none=self.config["zero_grad_set_to_none"])
        mark("forward")
        loss = self._loss(inputs, targets)
        mark("backward")
        loss.backward()
        mark("optimizer")
        self.optimizer.step()
        return loss

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        low = self.config["precision"] == "bf16"
        if self.config["precision"] == "pure_bf16" and inputs.is_floating_point():
            inputs = inputs.to(torch.bfloat16)
        with torch.autocast(self.device.type, torch.bfloat16) if low else contextlib.nullcontext():
            scores = self.model(inputs)
            return functional.cross_entropy(scores.flatten(0, -2), targets.flatten())

    def _replayed(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """A step of the captured graph, which is made at the first call."""
        if self._replay is None:
            self._inputs, self._targets = inputs.clone(), targets.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_CAPTURE_WARM_UP):
                    self._eager(self._inputs, self._targets, lambda _: None)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                self._captured = self._loss(self._inputs, self._targets)
                self._captured.backward()
                self.optimizer.step()
            self._replay = graph.replay
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._replay()
        return self._captured

    def _optimizer(self) -> torch.optim.Optimizer:
        name, implementation = self.config["optimizer"], self.config["optimizer_implementation"]
        chosen: dict[str, Any] = {"foreach": implementation == "foreach", "fused": implementation == "fused"}
        if name == "adamw":
            return torch.optim.AdamW(self.parameters, lr=1e-4, capturable=self.config["cuda_graphs"], **chosen)
        momentum = 0.9 if name == "momentum" else 0.0
        return torch.optim.SGD(self.parameters, lr=1e-3, momentum=momentum, **chosen)

    def _wait_after_each(self, model: torch.nn.Module) -> None:
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(lambda *_: synchronize())

    def _misbehave(self, loss: Tensor) -> None:
        """The faults that a config asks for."""
        if self.config.get("extra_loss"):
            extra = self._loss(*next(self._batches)())
            if self.config.get("keep_graphs"):
                self.kept.append(extra)  # with its graph, as a logged loss that nobody detached
        every = self.config.get("empty_cache_every_n_steps")
        if every and self.device.type == "cuda" and self.steps % every == 0:
            torch.cuda.empty_cache()
        del loss
