"""What a model's forward and backward on one batch cost on this machine in another type, layout or number of threads."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from perfnb.record.machine_probe_layers import called
from perfnb.record.machine_probe_timing import FEWEST, Constant, alternated, constant, quotient

LARGEST_BYTES: Final = 1 << 30
"""Of parameters and buffers: larger models are not copied, which leaves their layers to speak for them."""

_IMAGE_DIMENSIONS: Final = 4
_CROWDED: Final = 2
"""Times as many threads as cores, at most."""


def model_constants(torch: Any, model: Any, batch: Any, cores: float, longest_s: float) -> dict[str, Constant]:
    """Time of forward and backward, and the share of it that bfloat16, channels-last images and other numbers of threads take.

    A copy of the model runs on the batch as in training (dropout draws, batch normalisation takes the batch's mean); gradients of
    the sum of its outputs go to the parameters, and nothing is updated. The training's loss is not in it. Each way is timed in
    turn with the plain one. Where one pass is long, the ways that fewer changes need are left out.

    Parameters
    ----------
    torch
        The module.
    model, batch
        On the CPU.
    cores
        That this process may use.
    longest_s
        Seconds to take, roughly; passes of more than `longest_s / 12` leave only bfloat16 beside the plain one.

    Raises
    ------
    ValueError
        If the model is too large to be copied, is not on the CPU, or gives nothing that a gradient goes through.
    """
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(each.numel() * each.element_size() for each in tensors)
    if size > LARGEST_BYTES:
        message = f"a copy of the model takes {size / 2**20:,.0f} MiB, at most {LARGEST_BYTES >> 20:,} MiB are copied"
        raise ValueError(message)
    if any(each.device.type != "cpu" for each in tensors):
        message = "the model is not on the CPU"
        raise ValueError(message)
    calls = _ways(torch, model, batch, cores)
    calls["fp32"]()  # the first one is slower: caches, threads, kernels that are chosen once
    begin = time.perf_counter()
    calls["fp32"]()
    once = time.perf_counter() - begin
    most = max(int(longest_s / (once * (1 + FEWEST))), 2)
    chosen = dict(list(calls.items())[:most])
    times = alternated(chosen, longest_s)
    plain = times.pop("fp32")
    found = {"model.fp32.us": constant(plain)}
    return found | {f"model.{name}.ratio": quotient(seconds, plain) for name, seconds in times.items()}


def _ways(torch: Any, model: Any, batch: Any, cores: float) -> dict[str, Callable[[], Any]]:
    """A pass of each kind: the plain one first, then what most changes ask for."""
    own = copy.deepcopy(model)
    if not model.training:
        own.train()
    run = partial(_pass, torch, own, batch)
    calls: dict[str, Callable[[], Any]] = {
        "fp32": run,
        "bf16": partial(run, forward=lambda: torch.autocast("cpu", torch.bfloat16)),
    }
    if any(isinstance(each, torch.nn.Conv2d) for each in own.modules()):
        images = copy.deepcopy(own).to(memory_format=torch.channels_last)
        calls["channels_last"] = partial(_pass, torch, images, _channels_last(torch, batch))
    known = torch.get_num_threads()
    fair = max(int(cores), 1) if math.isfinite(cores) else known
    counts = {1, known, fair, _CROWDED * fair, *(1 << power for power in range(1, fair.bit_length()))}
    for count in sorted(counts, key=lambda each: (each not in (1, known, fair), each)):
        calls[f"threads.{count}"] = partial(run, around=partial(_threads, torch, count))
    return calls


def _pass(
    torch: Any,
    model: Any,
    batch: Any,
    *,
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    forward: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> None:
    with around(), torch.enable_grad():
        with forward():
            made = [each for each in _leaves(called(model, batch)) if getattr(each, "requires_grad", False)]
            if not made:
                message = "the model gives nothing that a gradient goes through"
                raise ValueError(message)
            total = sum(each.float().sum() for each in made)
        torch.autograd.grad(total, [each for each in model.parameters() if each.requires_grad], allow_unused=True)


def _leaves(made: Any) -> Iterator[Any]:
    """Tensors in what a model gives: one, or in tuples, lists and mappings."""
    if isinstance(made, Mapping):
        made = list(made.values())
    if isinstance(made, tuple | list):
        for each in made:
            yield from _leaves(each)
    else:
        yield made


def _channels_last(torch: Any, batch: Any) -> Any:
    """The batch with its images in that layout."""
    if isinstance(batch, Mapping):
        return {name: _channels_last(torch, each) for name, each in batch.items()}
    if isinstance(batch, tuple | list):
        return [_channels_last(torch, each) for each in batch]  # a model is given them one by one
    is_image = isinstance(batch, torch.Tensor) and batch.dim() == _IMAGE_DIMENSIONS
    return batch.to(memory_format=torch.channels_last) if is_image else batch


@contextlib.contextmanager
def _threads(torch: Any, count: int) -> Iterator[None]:
    known = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(known)
