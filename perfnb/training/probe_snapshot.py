"""A training as it stands, kept so that it can be put back bit for bit: tensors in place, all else as it was."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, MutableMapping, MutableSequence, MutableSet
from typing import Any, Final

import numpy as np

from perfnb.errors import RestoreFailed
from perfnb.training.probe_state import (
    TrainingState,
    is_module,
    is_tensor,
    random_states,
    same,
    same_bits,
    several,
    size_bytes,
    state_of,
)

Restore = Callable[[], Any]

_MOST_NAMED: Final = 5
_WRAPPERS: Final = ("torch.nn.parallel", "torch._dynamo")  # their Python flags follow a state in C++
_SKIPPED: Final = ("optimizer", "optimizers")


class Snapshot:
    """A training as it stood.

    Parameters
    ----------
    state
        What to keep.
    on_host
        Whether copies of a device's tensors go to the host's memory.
    """

    def __init__(self, state: TrainingState, *, on_host: bool = True) -> None:
        self._on_host = on_host
        self._tensors: dict[int, tuple[str, Any, Any]] = {}
        self._restores: list[Restore] = []
        modules = [*state.models, *(each for each in state.extra if is_module(each))]
        for number, module in enumerate(modules):
            self._keep_module(module, f"model {number}" if len(modules) > 1 else "model")
        for optimizer in state.optimizers:
            self._restores.append(self._kept(optimizer.state, "optimizer.state"))
            self._restores.append(self._kept(optimizer.param_groups, "optimizer.param_groups"))
            self._restores.append(self._kept_scalars(optimizer))
        for scheduler in several(state.scheduler):
            self._restores.append(self._kept_object(scheduler, "scheduler"))
        for scaler in several(state.scaler):
            self._restores.append(self._kept_object(scaler, "scaler"))
        self._states: list[tuple[str, Callable[[], Any], Callable[[Any], Any], Any]] = []
        for each in state.extra:
            if not is_module(each):
                self._keep_state(type(each).__name__, *state_of(each))
        for name, get, put in random_states():
            self._keep_state(name, get, put)

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors that are kept."""
        return sum(size_bytes(kept) for _, _, kept in self._tensors.values())

    def restore(self) -> None:
        """Put everything back; interrupted, it is done once more before the interrupt goes on."""
        try:
            self._restore()
        except KeyboardInterrupt:
            self._restore()
            raise

    def check(self) -> None:
        """Compare every bit of every tensor and every random state with what was kept.

        Raises
        ------
        RestoreFailed
            If something is not as it was.
        """
        changed = [name for name, now, kept in self._tensors.values() if not same_bits(now, kept)]
        changed += [name for name, get, _, kept in self._states if not same(get(), kept)]
        if changed:
            more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
            message = (
                f"after the probe these are not as they were: {', '.join(changed[:_MOST_NAMED])}{more}. Go on from a checkpoint; "
                "something that the step changes is beyond the probe's reach"
            )
            raise RestoreFailed(message)

    def _restore(self) -> None:
        import torch  # noqa: PLC0415 - only where it is used

        with torch.no_grad():
            for name, now, kept in self._tensors.values():
                try:
                    now.copy_(kept)
                except RuntimeError as error:
                    message = f"{name} cannot be put back, its shape or kind has changed: {error}"
                    raise RestoreFailed(message) from error
        for restore in self._restores:
            restore()
        for _, _, put, kept in self._states:
            put(copy.deepcopy(kept))

    def _keep_state(self, name: str, get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        self._states.append((name, get, put, copy.deepcopy(get())))

    def _keep_module(self, model: Any, prefix: str) -> None:
        for name, module in model.named_modules():
            place = f"{prefix}.{name}" if name else prefix
            for entries in (module._parameters, module._buffers):  # noqa: SLF001 - entries themselves are replaced by some
                self._restores.append(self._kept(entries, place))
            if not type(module).__module__.startswith(_WRAPPERS):
                self._restores.append(self._kept_attributes(module, place))
        for name, parameter in model.named_parameters():
            self._restores.append(self._kept_gradient(parameter, f"{prefix}.{name}.grad"))

    def _kept_gradient(self, parameter: Any, name: str) -> Restore:
        kept = self._kept(parameter.grad, name)

        def restore() -> None:
            parameter.grad = kept()

        return restore

    def _kept_attributes(self, module: Any, place: str) -> Restore:
        """Plain public values of a module, such as a counter, its mode or a hidden state; those that came since go."""
        names = {name for name in vars(module) if not name.startswith("_")}
        kept = {name: self._kept(vars(module)[name], f"{place}.{name}") for name in names if _is_plain(vars(module)[name])}

        def restore() -> None:
            for name in [each for each in vars(module) if not each.startswith("_") and each not in names]:
                delattr(module, name)
            for name, value in kept.items():
                vars(module)[name] = value()

        return restore

    def _kept_scalars(self, owner: Any) -> Restore:
        kept = {name: value for name, value in vars(owner).items() if isinstance(value, (bool, int, float, str))}
        return lambda: vars(owner).update(kept)

    def _kept_object(self, owner: Any, name: str) -> Restore:
        """All attributes of a scheduler or scaler, and of those inside it, except what they belong to."""
        kept = {}
        for attribute, value in vars(owner).items():
            if attribute in _SKIPPED:
                continue
            inner = value if isinstance(value, (list, tuple)) else ()
            nested = [each for each in inner if hasattr(each, "state_dict") and hasattr(each, "__dict__")]
            self._restores += [self._kept_object(each, f"{name}.{attribute}") for each in nested]
            kept[attribute] = self._kept(value, f"{name}.{attribute}")

        def restore() -> None:
            for attribute in [each for each in vars(owner) if each not in kept and each not in _SKIPPED]:
                delattr(owner, attribute)
            for attribute, value in kept.items():
                vars(owner)[attribute] = value()

        return restore

    def _kept(self, value: Any, name: str) -> Restore:
        """What gives the value as it is now: the same tensor or container, with what it held."""
        if is_tensor(value):
            return self._kept_tensor(value, name)
        if isinstance(value, np.ndarray):
            array = value.copy()
            return lambda: _rewritten(value, array)
        if isinstance(value, MutableMapping):
            entries = {key: self._kept(each, f"{name}.{_key(key)}") for key, each in value.items()}
            return lambda: _refilled(value, lambda: value.update({key: each() for key, each in entries.items()}))
        if isinstance(value, (MutableSequence, deque)):
            items = [self._kept(each, f"{name}[{number}]") for number, each in enumerate(value)]
            return lambda: _refilled(value, lambda: value.extend([each() for each in items]))
        if isinstance(value, MutableSet):
            members = set(value)
            return lambda: _refilled(value, lambda: value.update(members))  # type: ignore[attr-defined]
        if isinstance(value, tuple):
            for number, each in enumerate(value):
                self._restores.append(self._kept(each, f"{name}[{number}]"))
        return lambda: value

    def _kept_tensor(self, value: Any, name: str) -> Restore:
        if "strided" not in str(value.layout):  # a sparse gradient: a new one each time
            whole = value.detach().clone()
            return whole.clone  # type: ignore[no-any-return]
        if id(value) not in self._tensors:
            taken = value.detach()
            kept = taken.to("cpu", copy=True) if self._on_host else taken.clone()
            self._tensors[id(value)] = (name, value, kept)
        return lambda: value


def _refilled(value: Any, fill: Callable[[], None]) -> Any:
    value.clear()
    fill()
    return value


def _rewritten(value: Any, array: Any) -> Any:
    np.copyto(value, array)
    return value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else type(key).__name__


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray)) or is_tensor(value)
