"""The peak of a real training on the CPU, from the [memory] events of torch's profiler; a loop of its own, not perfnb's."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.memory.dry_run_families import Family, Options

_STEPS: Final = 3
_DTYPES: Final = {"pure_bf16": torch.bfloat16}
_OPTIMIZERS: Final = {
    "sgd": lambda own: torch.optim.SGD(own, lr=1e-3),
    "momentum": lambda own: torch.optim.SGD(own, lr=1e-3, momentum=0.9),
    "rprop": lambda own: torch.optim.Rprop(own, lr=1e-3),
    "adagrad": lambda own: torch.optim.Adagrad(own, lr=1e-3),
    "adam": lambda own: torch.optim.Adam(own, lr=1e-3),
}


def real_peak(family: Family, options: Options, batch_size: int) -> int:
    """Bytes at the highest moment of three steps, from before the model is made.

    Parameters
    ----------
    family, options
        What is trained and how.
    batch_size
        Samples of a micro-batch.
    """
    gc.collect()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            train_steps(family, options, batch_size, _STEPS)
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return peak_of(event for event in events if event.get("name") == "[memory]")


def peak_of(events: Iterable[Mapping[str, Any]]) -> int:
    """Highest sum of the bytes of living blocks; frees of blocks that were made before the first event do not count."""
    ordered = sorted((event["ts"], event["args"].get("Ev Idx", 0), event["args"]) for event in events)
    living: dict[int, int] = {}
    total = peak = 0
    for _, _, what in ordered:
        address, size = what["Addr"], what["Bytes"]
        total -= living.pop(address, 0)
        if size > 0:
            living[address] = size
            total += size
            peak = max(peak, total)
    return peak


def optimizer_of(options: Options, parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of a variant: AdamW unless it says otherwise."""
    if "optimizer" in options:
        return _OPTIMIZERS[options["optimizer"]](parameters)
    is_foreach = True if options.get("optimizer_implementation") == "foreach" else None
    return torch.optim.AdamW(parameters, lr=1e-3, foreach=is_foreach)


def train_steps(
    family: Family, options: Options, batch_size: int, steps: int, *, after_step: Callable[[], object] | None = None
) -> None:
    """Make the model and train it, as a user would write it.

    Parameters
    ----------
    family, options
        What is trained and how.
    batch_size
        Samples of a micro-batch.
    steps
        How many.
    after_step
        Called at the end of each.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES.get(options.get("precision", ""), before))
    try:
        model = family.model()
        if options.get("activation_checkpointing") == "full":
            _recompute(model)
        optimizer = optimizer_of(options, model.parameters())
        micro_batches = options.get("gradient_accumulation_steps", 1)
        for _ in range(steps):
            for _ in range(micro_batches):
                batch = family.batch(batch_size) if family.length is None else family.batch(batch_size, family.length)
                narrow = torch.autocast("cpu", torch.bfloat16) if options.get("precision") == "bf16" else contextlib.nullcontext()
                with narrow:
                    loss = family.loss(model, batch)
                (loss / micro_batches if micro_batches > 1 else loss).backward()
                del loss, batch
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if after_step is not None:
                after_step()
    finally:
        torch.set_default_dtype(before)


def _recompute(model: nn.Module) -> None:
    """Each block of the model's list under checkpoint, as a user would write it."""
    blocks = model.blocks
    assert isinstance(blocks, nn.ModuleList)  # noqa: S101 - families with this variant have one
    for block in blocks:
        forward = block.forward
        block.forward = lambda x, forward=forward: checkpoint(forward, x, use_reentrant=False)  # type: ignore[method-assign]
