"""Loaders: waiting for their batches, how many samples those have, and settings and workers of the loader that trains."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from perfnb.record.frameworks import accelerate
from perfnb.record.marks import Code
from perfnb.record.patches import Patch
from perfnb.record.phase_names import DATA, INFERENCE_DATA
from perfnb.record.seen_config import seen_of_iterator, seen_of_loader

if TYPE_CHECKING:
    from perfnb.record.hooks import Watch


class LoaderHooks:
    """Marks the phase `data`, each iterator of a loader under a number of its own: see `perfnb.record.sources`.

    Attributes
    ----------
    is_loading_ahead
        Whether batches are noted by who hands them on, see `note_batch`, not when they are loaded.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # of the loader's iterators
        self._next_number = itertools.count(1)
        self._asked: weakref.ref[Any] | None = None  # the iterator that was asked last
        self._number = 0  # of it
        self._waiting = (DATA, 0)  # the phase in which it is waited for
        self._met: dict[int, tuple[dict[str, Any], tuple[int, ...]]] = {}  # what new ones use, until the training used them
        self.is_loading_ahead = False
        self._has_loader = False

    def patches(self) -> list[Patch]:
        """Patches of torch's loader, and of Accelerate's where it was imported."""
        import torch.utils.data.dataloader as loading  # noqa: PLC0415 - torch only where it is used

        return [
            Patch(loading.DataLoader, "__iter__", self._loader_iter),
            Patch(loading._BaseDataLoaderIter, "__next__", self._next_batch),  # noqa: SLF001 - both kinds of iterator have this
            *accelerate.patches(self),
        ]

    def note_batch(self, batch: Any) -> None:
        """The training gets a batch, of the iterator that was asked last."""
        if not self._watch.is_elsewhere():
            self._watch.marks.note(Code.BATCH, (self._number, samples_of(batch)))

    def use(self) -> None:
        """The training uses the batch that was asked for last."""
        if self._number in self._met:
            self._adopt(self._number)

    @contextlib.contextmanager
    def loading_ahead(self) -> Iterator[None]:
        """Batches that are loaded inside are for later: whoever hands them on notes them."""
        before, self.is_loading_ahead = self.is_loading_ahead, True
        try:
            yield
        finally:
            self.is_loading_ahead = before

    def _loader_iter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        watch = self._watch

        def loader_iter(loader: Any) -> Any:
            if watch.is_elsewhere():
                return original(loader)
            if not watch.is_grad_enabled():
                return self._for_inference(original, loader)
            kept = getattr(loader, "_iterator", None)  # where workers are persistent
            number = self._numbers.get(kept) if kept is not None else None
            number = next(self._next_number) if number is None else number
            watch.marks.mark(Code.ENTER, (DATA, number))
            try:
                iterator = original(loader)
            finally:
                watch.marks.mark(Code.LEAVE, (DATA, number))
            self._meet_iterator(iterator, number, seen_of_loader(loader))
            return iterator

        return loader_iter

    def _for_inference(self, original: Callable[..., Any], given: Any) -> Any:
        """What a loader or its iterator gives to a model that does not train on it."""
        self._watch.marks.mark(Code.ENTER, INFERENCE_DATA)
        try:
            return original(given)
        finally:
            self._watch.marks.mark(Code.LEAVE, INFERENCE_DATA)

    def _number_of(self, iterator: Any) -> int:
        number = self._numbers.get(iterator)
        if number is None:  # it was made before
            number = next(self._next_number)
            self._meet_iterator(iterator, number, seen_of_iterator(iterator))
        return number

    def _meet_iterator(self, iterator: Any, number: int, settings: dict[str, Any]) -> None:
        self._numbers[iterator] = number
        self._watch.marks.note(Code.EPOCH, number)
        pids = tuple(worker.pid for worker in getattr(iterator, "_workers", ()) if worker.pid)
        self._met[number] = (settings, pids)
        if not self._has_loader:
            self._adopt(number)

    def _adopt(self, number: int) -> None:
        """The training uses an iterator: its settings and workers are those to be shown."""
        settings, self._watch.worker_pids = self._met[number]
        self._watch.seen.update(settings)
        self._met, self._has_loader = {}, True

    def _next_batch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        watch, marks = self._watch, self._watch.marks

        def next_batch(iterator: Any) -> Any:
            if watch.is_elsewhere():
                return original(iterator)
            if not watch.is_grad_enabled():
                return self._for_inference(original, iterator)
            if self._asked is None or self._asked() is not iterator:
                self._asked, self._number = weakref.ref(iterator), self._number_of(iterator)
                self._waiting = (DATA, self._number)
            number, waiting = self._number, self._waiting
            marks.mark(Code.ENTER, waiting)
            try:
                batch = original(iterator)
            finally:
                marks.mark(Code.LEAVE, waiting)
            if not self.is_loading_ahead:
                marks.note(Code.BATCH, (number, samples_of(batch)))
            return batch

        return next_batch


def samples_of(batch: Any) -> int | None:
    """Number of samples of a batch: the length of its first tensor, else None.

    Examples
    --------
    >>> samples_of("no tensor") is None
    True
    """
    for _ in range(3):  # as deep as batches are nested: a list of dicts of tensors
        shape = getattr(batch, "shape", None)
        if shape is not None:
            return int(shape[0]) if len(shape) else None
        if isinstance(batch, (list, tuple)) and batch:
            batch = batch[0]
        elif isinstance(batch, Mapping) and batch:
            batch = next(iter(batch.values()))
        else:
            return None
    return None
