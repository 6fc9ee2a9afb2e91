"""What a probe refuses: arguments that ask for nothing, trainings spread over machines, and snapshots without room in memory."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, Final

from perfnb import text
from perfnb.errors import ProbeRefused
from perfnb.record.cgroup import ControlGroup
from perfnb.training.probe_state import TrainingState, is_module, is_tensor, size_bytes

HOST_ROOM: Final = 1.1
"""Bytes of the host's memory that a snapshot needs, over its own."""

DEVICE_ROOM: Final = 1.2
"""The same on a device, where the allocator needs room of its own."""

_WRAPPERS: Final = {
    "FullyShardedDataParallel": "fully sharded parameters (FSDP)",
    "FSDPModule": "fully sharded parameters (FSDP)",
    "DeepSpeedEngine": "a DeepSpeed engine",
    "PipelineStage": "pipeline parallelism",
    "PipelineModule": "pipeline parallelism",
}


def refuse_arguments(step_function: Any, state: Any, changes: Any, batches: Any, *, keep: Any, **counts: Any) -> None:
    """Refuse what cannot be meant, before anything runs.

    Parameters
    ----------
    step_function, state, changes, batches, keep
        See `perfnb.probe`.
    **counts
        Its numbers of steps, by name: None, or whole and 1 or more.

    Raises
    ------
    ProbeRefused
        Names the argument, what it is, and what it takes.
    """
    wrong = [
        f"{name} is {text.name(repr(value))}: it takes a whole number of steps, 1 or more"
        for name, value in counts.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1)
    ]
    if not callable(step_function):
        wrong.append(f"step_function is a {_kind(step_function)}: it takes a function that trains one step and returns its loss")
    if not isinstance(state, TrainingState):
        wrong.append(f"state is a {_kind(state)}: it takes a perfnb.TrainingState(model, optimizer, scheduler, scaler)")
    if isinstance(changes, str) or not hasattr(changes, "__iter__"):
        wrong.append(f"changes is a {_kind(changes)}: it takes a list, such as [0.4, 2.5]")
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        wrong.append(f"batches is a {_kind(batches)}: it takes a list of batches, an iterator or a DataLoader")
    if keep not in ("start", "base"):
        wrong.append(f'keep is {text.name(repr(keep))}: it takes "start" or "base"')
    if wrong:
        raise ProbeRefused("; ".join(wrong))


def _kind(value: Any) -> str:
    return text.name(type(value).__name__)


def refuse_spread_state(state: TrainingState) -> None:
    """Refuse trainings whose state a snapshot of this process does not hold.

    Raises
    ------
    ProbeRefused
        Names what was found.
    """
    if not state.models or not all(is_module(each) for each in state.models):
        found = ", ".join(text.name(type(each).__name__) for each in state.models) or "nothing"
        message = f"TrainingState.model takes a torch.nn.Module, or a sequence of them, not {found}"
        raise ProbeRefused(message)
    if not state.optimizers or not all(hasattr(each, "param_groups") for each in state.optimizers):
        message = "TrainingState.optimizer takes an optimizer of torch.optim, or a sequence of them"
        raise ProbeRefused(message)
    for found in _spread(state):
        message = f"the training uses {found}, which no probe has been tested with: probe a small copy of it on one device"
        raise ProbeRefused(message)


def _spread(state: TrainingState) -> Iterator[str]:
    for model in state.models:
        for module in model.modules():
            names = {each.__name__ for each in type(module).__mro__}
            yield from (what for name, what in _WRAPPERS.items() if name in names)
        for name, parameter in model.named_parameters():
            kind = {each.__name__ for each in type(parameter).__mro__} | {type(parameter.data).__name__}
            if "DTensor" in kind:
                yield f"the distributed tensor {text.name(name)}"
            if "UninitializedParameter" in kind:
                yield f"the parameter {text.name(name)}, which no batch has given a shape yet"


def is_kept_on_host(state: TrainingState) -> bool:
    """Whether a snapshot goes to the host's memory; else it stays on the device.

    Raises
    ------
    ProbeRefused
        If it fits neither, with both figures.
    """
    by_device: dict[str, int] = {}
    for tensor in _tensors(state):
        by_device[tensor.device.type] = by_device.get(tensor.device.type, 0) + size_bytes(tensor)
    whole = sum(by_device.values())
    free = host_bytes_free()
    if HOST_ROOM * whole <= free:
        return True
    on_device = whole - by_device.get("cpu", 0)
    room = device_bytes_free() if on_device else None
    on_host = by_device.get("cpu", 0)
    if room is not None and DEVICE_ROOM * on_device <= room and HOST_ROOM * on_host <= free:
        return False
    device = (
        ""
        if room is None
        else f"; {text.byte_size(DEVICE_ROOM * on_device)} on the device, which has {text.byte_size(room)} free"
    )
    message = (
        f"no room for a copy of the training: it needs {text.byte_size(HOST_ROOM * whole)} of the host's memory, which has "
        f"{text.byte_size(free)} free{device}. Probe with a smaller model, or free memory first"
    )
    raise ProbeRefused(message)


def _tensors(state: TrainingState) -> Iterator[Any]:
    seen = set()
    for value in _values(state):
        if is_tensor(value) and id(value) not in seen:
            seen.add(id(value))
            yield value


def _values(state: TrainingState) -> Iterator[Any]:
    for model in (*state.models, *(each for each in state.extra if is_module(each))):
        for parameter in model.parameters():
            yield parameter
            yield parameter.grad
        yield from model.buffers()
    for optimizer in state.optimizers:
        for entries in optimizer.state.values():
            yield from entries.values()


def host_bytes_free() -> int:
    """Bytes of the host's memory that can still be had, by the machine and by the limit of this process's group."""
    import psutil  # noqa: PLC0415 - only where it is used

    free = int(psutil.virtual_memory().available)
    group = ControlGroup()
    try:
        limited = group.memory()
    except OSError:  # the group is gone
        limited = None
    finally:
        group.close()
    return free if limited is None else min(free, max(limited[1] - limited[0], 0))


def device_bytes_free() -> int | None:
    """Bytes that are free on the current CUDA device; None where there is none."""
    import torch  # noqa: PLC0415 - only where it is used

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
