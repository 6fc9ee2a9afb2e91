"""Accelerate's loaders, which fetch one batch ahead: a batch counts in the step that gets it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from perfnb.record.patches import Patch

if TYPE_CHECKING:
    from perfnb.record.loader_hooks import LoaderHooks

_LOADERS: Final = ("DataLoaderShard", "DataLoaderDispatcher")


def patches(loaders: LoaderHooks) -> list[Patch]:
    """Patches of Accelerate's loaders; none where it was not imported."""
    module = sys.modules.get("accelerate.data_loader")
    kinds = [getattr(module, name, None) for name in _LOADERS]
    return [Patch(kind, "__iter__", _ahead(loaders)) for kind in kinds if kind is not None]


def _ahead(loaders: LoaderHooks) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def loader_iter(loader: Any) -> Iterator[Any]:
            batches = original(loader)
            while True:
                with loaders.loading_ahead():
                    try:
                        batch = next(batches)
                    except StopIteration:
                        return
                loaders.note_batch(batch)
                yield batch

        return loader_iter

    return make
