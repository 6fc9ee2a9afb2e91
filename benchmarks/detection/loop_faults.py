"""Faults of the training loop: what it does after each step, how it computes, what it keeps."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.detection.case import ONCE, Fault
from benchmarks.detection.training import Pair, Plan, State
from benchmarks.detection.workloads import Parts

Sides = tuple[Plan, Plan]

# Rough costs of one core, only to begin the calibration with; tiny_batch and the others without a dose need none.
_HISTOGRAM_S_PER_VALUE: Final = 5e-9
_SAVE_BYTES_PER_S: Final = 400e6
_COLLECT_S_PER_OBJECT: Final = 40e-9
_SCAN_S_PER_ITEM: Final = 12e-9

SAVE_EVERY: Final = 4
_CYCLES: Final = 200
_EVERY: Final = (1, 2, 5, 10, 25, 50)  # divisors of a block
_TINY_LAYERS: Final = 250
_PAUSE_EVERY: Final = 50
_PAUSE_STEPS: Final = 20
GROWING_STEPS: Final = 320
KEPT_BYTES: Final = 512 << 10


def _after(plan: Plan, hook: Callable[[State], None]) -> Plan:
    return replace(plan, after_step=(*plan.after_step, hook))


def python_logging(plan: Plan, amount_s: float) -> Sides:
    """Norms and histograms of the weights and gradients after each step."""
    values = max(1, round(amount_s / _HISTOGRAM_S_PER_VALUE))

    def log(state: State) -> None:
        left = values
        written = state.kept.setdefault("log", [])
        while left > 0:
            for parameter in state.model.parameters():
                part = parameter.detach().flatten()[:left]
                written.append((float(part.norm()), torch.histc(part, 50).tolist()))
                left -= len(part)
                if left <= 0:
                    return

    return _after(plan, log), plan


def frequent_save(plan: Plan, amount_s: float) -> Sides:
    """The model and its optimizer's state, of such a size, are saved and forced to disk every fourth step."""
    padding = torch.rand(max(1, round(amount_s * SAVE_EVERY * _SAVE_BYTES_PER_S / 4)))

    def save(state: State) -> None:
        if state.step % SAVE_EVERY:
            return
        with tempfile.TemporaryFile(prefix="perfnb-save-", dir=Path.cwd()) as file:  # a temporary folder may lie in memory
            torch.save({"padding": padding, "step": state.step}, file)
            file.flush()
            os.fsync(file.fileno())

    return _after(plan, save), plan


def garbage(plan: Plan, amount_s: float) -> Sides:
    """Reference cycles, which the loop has collected every few steps, among so many live objects."""
    pause_s = _collection_s()
    # A collection goes through all of Python's objects, so a small dose is a rare pause; blocks hold a whole number of them.
    every = next((each for each in _EVERY if each * amount_s >= pause_s), _EVERY[-1])
    live = max(1, round((every * amount_s - pause_s) / _COLLECT_S_PER_OBJECT))

    def make(state: State) -> None:
        if "live" not in state.kept:
            state.kept["live"] = [[number] for number in range(live)]
        for _ in range(_CYCLES):
            cycle: list[Any] = []
            cycle.append(cycle)
        if state.step % every == every - 1:
            gc.collect()

    return _after(plan, make), plan


def _collection_s() -> float:
    """Time of a collection of what there is."""
    gc.collect()
    began = time.thread_time()
    gc.collect()
    return time.thread_time() - began


def tiny_batch(plan: Plan, _: float) -> Sides:
    """One sample a step; the cause is gone in a batch of the usual size, of which a sample's share counts."""
    return replace(plan, settings={**plan.settings, "batch_size": 1}), plan


class TinyLayers(nn.Module):
    """A model with 250 layers of one multiplication before it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(_TINY_LAYERS))

    def forward(self, inputs: Tensor) -> Tensor:
        """What the model gives, times one."""
        outputs: Tensor = self.model(inputs)
        for scale in self.scales:
            outputs = outputs * scale
        return outputs


def small_ops(plan: Plan, _: float) -> Sides:
    """250 tiny layers, and an optimizer that handles each parameter apart."""

    def more(parts: Parts) -> Parts:
        return replace(parts, model=TinyLayers(parts.model))

    return replace(plan, change=more, one_by_one=True), plan


def double_precision(plan: Plan, _: float) -> Sides:
    """Weights and samples in double precision."""

    def doubled(parts: Parts) -> Parts:
        def wide(values: Tensor) -> Tensor:
            return values.double() if values.is_floating_point() else values

        tensors = {name: wide(getattr(parts, name)) for name in ("inputs", "targets", "held_inputs", "held_targets")}
        return replace(parts, model=parts.model.double(), **tensors)

    return replace(plan, change=doubled), plan


def shape_churn(plan: Plan, _: float) -> Sides:
    """A compiled model that meets a batch of another size at each step; without: the same sizes, not compiled."""
    import torch._dynamo  # noqa: PLC0415 - takes a second, which only this fault needs

    torch._dynamo.config.recompile_limit = 10_000  # noqa: SLF001 - its public place
    torch._dynamo.config.accumulated_recompile_limit = 10_000  # noqa: SLF001

    def compiled(parts: Parts) -> Parts:
        # Tracing without code generation: what recompiles is the same, and no C++ compiler is needed.
        torch._dynamo.reset()  # noqa: SLF001
        return replace(parts, model=torch.compile(parts.model, backend="eager", dynamic=False))

    def cut(step: int, batch: Pair) -> Pair:
        size = max(1, len(batch[0]) - step % (len(batch[0]) // 2))
        return batch[0][:size], batch[1][:size]

    churned = replace(plan, batches=cut)
    return replace(churned, change=compiled), churned


def growing_list(plan: Plan, amount_s: float) -> Sides:
    """A list of all that was logged grows, and is searched at each step; the dose is its mean cost over 320 steps."""
    items = max(1, round(amount_s / _SCAN_S_PER_ITEM / (GROWING_STEPS / 2)))

    def search(state: State) -> None:
        history = state.kept.setdefault("history", [0.0] * items * state.step if "history" not in state.kept else [])
        history.extend([float(state.step)] * items)
        history.count(-1.0)

    return _after(plan, search), plan


def random_pause(plan: Plan, _: float) -> Sides:
    """Two of a hundred steps, at random, stop for twenty steps' time."""

    def pause(state: State) -> None:
        turn, place = divmod(state.step, _PAUSE_EVERY)
        if place == 0:
            state.kept["at"] = int(torch.randint(10, _PAUSE_EVERY, (1,), generator=torch.Generator().manual_seed(turn + 17)))
            state.kept["began"] = (state.step, time.perf_counter())
        elif place == state.kept["at"]:
            first, began = state.kept["began"]
            time.sleep(_PAUSE_STEPS * (time.perf_counter() - began) / (state.step - first))

    return _after(plan, pause), plan


def kept_graph(plan: Plan, _: float) -> Sides:
    """The sum of all losses is kept with what computed them."""

    def keep(state: State) -> None:
        extra = torch.ones(KEPT_BYTES // 4, requires_grad=True) * 2  # the graph of a large batch, at a known size
        loss = (extra * extra).mean()
        state.kept["sum"] = state.kept.get("sum", 0.0) + loss

    def drop(state: State) -> None:
        extra = torch.ones(KEPT_BYTES // 4, requires_grad=True) * 2
        state.kept["sum"] = state.kept.get("sum", 0.0) + (extra * extra).mean().item()

    return _after(plan, keep), _after(plan, drop)


def kept_tensors(plan: Plan, _: float) -> Sides:
    """Outputs of each step, of half a megabyte, are kept in a list."""

    def keep(state: State, *, is_kept: bool) -> None:
        copy = torch.full((KEPT_BYTES // 4,), float(state.step))
        if is_kept:
            state.kept.setdefault("outputs", []).append(copy)

    return _after(plan, partial(keep, is_kept=True)), _after(plan, partial(keep, is_kept=False))


def _fault(name: str, family: str, expects: tuple[str, ...], inject: Callable[[Plan, float], Sides], **more: Any) -> Fault:
    return Fault(name, family, expects, inject, (inject.__doc__ or "").split("\n", 1)[0], **more)


_NOT_ON_CPU: Final[dict[str, Any]] = {"doses": ONCE, "seen_in_tables": False}

FAULTS: Final = (
    _fault("python_logging", "device idle", ("python_overhead",), python_logging),
    _fault("frequent_save", "host", ("checkpoint_stall",), frequent_save, accepted=("outlier_steps",)),
    _fault("garbage", "host", ("garbage_collection_pauses",), garbage, accepted=("outlier_steps",)),
    # one batch size, and an optimizer that is light: whether the rest would pay for a larger batch stands in no table
    # what a batch costs the loop and the loader besides its samples is a larger share of a step of one sample
    _fault(
        "tiny_batch",
        "device compute",
        ("undersized_batch",),
        tiny_batch,
        accepted=("python_overhead", "slow_transform", "data_stall"),
        **_NOT_ON_CPU,
    ),
    _fault("small_ops", "device idle", ("launch_overhead",), small_ops, **_NOT_ON_CPU),
    _fault("double_precision", "device compute", ("full_precision_math",), double_precision, **_NOT_ON_CPU),
    _fault("shape_churn", "device idle", ("recompilation",), shape_churn, doses=ONCE),
    _fault("growing_list", "over time", ("growing_step_time",), growing_list, accepted=("python_overhead",)),
    _fault("random_pause", "over time", ("outlier_steps",), random_pause, doses=ONCE),
    _fault("kept_graph", "memory", ("host_memory_leak",), kept_graph, doses=ONCE, clock="memory"),
    _fault("kept_tensors", "memory", ("host_memory_leak",), kept_tensors, doses=ONCE, clock="memory"),
)
