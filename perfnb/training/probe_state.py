"""What a training step changes, and how its random states and bits are read: for the probe, which puts all of it back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfnb.errors import ProbeRefused


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """What a training step changes.

    Attributes
    ----------
    model
        A torch.nn.Module, or a sequence of them.
    optimizer
        Its optimizer, or a sequence of them.
    scheduler, scaler
        Learning-rate scheduler and gradient scaler, or sequences of them; None where there is none.
    extra
        Whatever else a step changes: modules, random generators of torch or numpy, and anything with `state_dict` and
        `load_state_dict`, such as an average of the weights.
    """

    model: Any
    optimizer: Any
    scheduler: Any = None
    scaler: Any = None
    extra: tuple[Any, ...] = ()

    @property
    def models(self) -> tuple[Any, ...]:
        """The modules."""
        return several(self.model)

    @property
    def optimizers(self) -> tuple[Any, ...]:
        """The optimizers."""
        return several(self.optimizer)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch, or of a class made from it."""
    import torch  # noqa: PLC0415 - only where it is used

    return isinstance(value, torch.Tensor)


def is_module(value: Any) -> bool:
    """Whether a value is a module of torch."""
    import torch  # noqa: PLC0415 - only where it is used

    return isinstance(value, torch.nn.Module)


def size_bytes(tensor: Any) -> int:
    """Bytes that the values of a tensor take."""
    return int(tensor.numel() * tensor.element_size())


def same_bits(one: Any, other: Any) -> bool:
    """Whether two tensors hold the same bits, a NaN like any other value; on which device does not matter."""
    import torch  # noqa: PLC0415 - only where it is used

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    flat, kept = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (one, other.to(one.device)))
    return bool(torch.equal(flat, kept))


def several(value: Any) -> tuple[Any, ...]:
    """The value as a tuple: its items where it is a sequence, none where it is None."""
    return () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)


def state_of(extra: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """What tells the state of an object, and what puts it back.

    Raises
    ------
    ProbeRefused
        If it has no such pair of methods.
    """
    if isinstance(extra, np.random.Generator):
        return lambda: extra.bit_generator.state, lambda kept: setattr(extra.bit_generator, "state", kept)
    for get, put in (("state_dict", "load_state_dict"), ("get_state", "set_state")):
        if hasattr(extra, get) and hasattr(extra, put):
            return getattr(extra, get), getattr(extra, put)
    message = (
        f"extra holds a {type(extra).__name__}, which has neither state_dict and load_state_dict nor get_state and set_state: "
        "give it both, or leave it out where a step does not change it"
    )
    raise ProbeRefused(message)


def random_states() -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
    """Name of each random state of this process, what tells it and what puts it back."""
    import torch  # noqa: PLC0415 - only where it is used

    yield "random state of python", random.getstate, random.setstate
    yield "random state of numpy", np.random.get_state, np.random.set_state
    yield "random state of torch", torch.get_rng_state, torch.set_rng_state
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        yield "random states of CUDA", torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
    if torch.backends.mps.is_available():
        yield "random state of MPS", torch.mps.get_rng_state, torch.mps.set_rng_state


def same(one: Any, other: Any) -> bool:
    """Whether two states are the same, a NaN like any other value."""
    if is_tensor(one):
        return is_tensor(other) and same_bits(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(each, old) for each, old in zip(one, other, strict=True))
    return bool(one == other) or one is other or (isinstance(one, float) and one != one)  # noqa: PLR0124 - NaN
