"""Batches of a probe: the random generators that drawing them uses, and whether a step has changed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perfnb.training.probe_state import is_tensor


def generators_of(batches: Any) -> tuple[Any, ...]:
    """Random generators of a DataLoader and its samplers, each once: the next epoch's order depends on them."""
    sampler, batch_sampler = getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)
    owners = (batches, sampler, batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(each): each for owner in owners if (each := getattr(owner, "generator", None)) is not None}
    return tuple(each for each in found.values() if hasattr(each, "get_state"))


def versions_of(batches: Any) -> tuple[int, ...]:
    """How often each tensor of the batches was written to."""
    return tuple(_versions(batches))


def _versions(value: Any) -> Iterator[int]:
    if is_tensor(value):
        yield 0 if value.is_inference() else int(value._version)  # noqa: SLF001 - torch tells it nowhere else
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _versions(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _versions(each)
