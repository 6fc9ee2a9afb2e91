"""Bytes of all storages that operators have made and nobody has let go of, in blocks as torch's CUDA allocator hands them out."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_GRANULE = 512


class LivingStorages(TorchDispatchMode):  # type: ignore[misc] # torch is not followed, see pyproject.toml
    """A mode under which the storages of every operator's results are counted for as long as they live.

    Attributes
    ----------
    block_bytes
        Their bytes now, each rounded up to 512.
    """

    def __init__(self) -> None:
        super().__init__()
        self.block_bytes = 0
        self._seen: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and look at its results."""
        results = operator(*args, **(kwargs or {}))
        for one in tree_leaves(results):
            if isinstance(one, torch.Tensor):
                self._see(one.untyped_storage())
        return results

    def _see(self, storage: Any) -> None:
        key = id(storage)
        if key in self._seen:
            return
        size = -(-int(storage.nbytes()) // _GRANULE) * _GRANULE
        self._seen[key] = (weakref.ref(storage, lambda _: self._gone(key)), size)
        self.block_bytes += size

    def _gone(self, key: int) -> None:
        self.block_bytes -= self._seen.pop(key)[1]
