"""Settings of the training as its own objects show them: canonical knobs of the loader, the optimizer and torch."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from perfnb.record.json_rows import json_value

_LOADER: Final = ("num_workers", "batch_size", "prefetch_factor", "pin_memory", "persistent_workers", "drop_last", "in_order")
_OPTIMIZER: Final = {"lr": "learning_rate", "momentum": "momentum", "weight_decay": "weight_decay", "betas": "betas"}
_IMPLEMENTATIONS: Final = ("fused", "foreach")
_PRECISIONS: Final = {"torch.float64": "fp64", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
_MIB: Final = 1 << 20


def seen_of_loader(loader: Any) -> dict[str, Any]:
    """Knobs of a `torch.utils.data.DataLoader`; what it does not have is left out.

    A loader that has a batch sampler of its own says no batch size: that of the sampler is taken where it has one.
    """
    seen = {name: json_value(getattr(loader, name)) for name in _LOADER if hasattr(loader, name)}
    if seen.get("batch_size") is None:
        seen["batch_size"] = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    with contextlib.suppress(AttributeError, TypeError, NotImplementedError):  # an iterable dataset has no length
        seen["dataset_size"] = len(loader.dataset)
    if getattr(loader, "_dataset_kind", 0) == 1:  # torch.utils.data.dataloader._DatasetKind.Iterable
        seen["dataset_is_iterable"] = True
    return {name: value for name, value in seen.items() if value is not None}


def seen_of_iterator(iterator: Any) -> dict[str, Any]:
    """Knobs of a loader of which only an iterator was seen."""
    found = {name: getattr(iterator, f"_{name}", None) for name in ("num_workers", "prefetch_factor", "persistent_workers")}
    return {name: json_value(value) for name, value in found.items() if value is not None}


def seen_of_optimizer(optimizer: Any) -> dict[str, Any]:
    """Knobs of a `torch.optim.Optimizer`: its kind, the values of its first group, and how it is computed."""
    defaults = optimizer.defaults
    seen: dict[str, Any] = {"optimizer": type(optimizer).__name__.lower()}
    for name, knob in _OPTIMIZER.items():
        if isinstance(defaults.get(name), (int, float, tuple)):
            seen[knob] = json_value(defaults[name])
    chosen = [name for name in _IMPLEMENTATIONS if defaults.get(name)]
    if chosen:
        seen["optimizer_implementation"] = chosen[0]
    types = {str(each.dtype) for group in optimizer.param_groups for each in group["params"] if hasattr(each, "dtype")}
    if types and types <= set(_PRECISIONS):  # parameters in fp32 say nothing: autocast may compute in less
        seen["precision"] = _PRECISIONS[min(types)]
    return seen


def seen_of_data_parallel(module: Any, torch: Any) -> dict[str, Any]:
    """Knobs of a `torch.nn.parallel.DistributedDataParallel`; a limit of buckets that was left at torch's default is None."""
    seen: dict[str, Any] = {"parallelism": "ddp"}
    with contextlib.suppress(AttributeError):
        seen["find_unused_parameters"] = bool(module.find_unused_parameters)
    with contextlib.suppress(AttributeError, TypeError):
        seen["bucket_cap_mb"] = None if module.bucket_bytes_cap_default else module.bucket_bytes_cap / _MIB
    with contextlib.suppress(Exception):  # what a process group that is gone raises is torch's affair
        seen["backend"] = torch.distributed.get_backend(module.process_group)
    return {name: value if value is None else json_value(value) for name, value in seen.items()}


def seen_of_torch(torch: Any) -> dict[str, Any]:
    """Knobs that torch holds for the whole process, among them the precision under autocast at this moment."""
    seen: dict[str, Any] = {"torch_num_threads": torch.get_num_threads()}
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            seen["precision"] = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(torch.get_autocast_dtype(device), "other")
    if torch.cuda.is_available():
        seen["matmul_precision"] = torch.get_float32_matmul_precision()
    return seen
