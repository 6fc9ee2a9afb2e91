"""What a worker costs beside its batches: starting it, handing a batch over, taking it; from a real loader over a stub."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from perfnb.record.loader_probe_samples import bytes_of, tensors_of

AHEAD: Final = 8
"""Batches that wait, made, before the first is taken back to back; of them items 3 to 8 count (whatif contract, section 4.3)."""

_FIRST_TAKEN: Final = 2
_FOLLOWING: Final = 16
_MADE: Final = 8
_STARTS: Final = 3
_LONGEST_S: Final = 20.0
_SHARED_SHARE: Final = 4  # no more than a quarter of the shared memory that is free
_QUANTILES: Final = (0.1, 0.5, 0.9)


class WorkerCosts(dict[str, float]):
    """Constants by their names without prefix: `get_us`, `get_us.low`, `get_us.high`, `get_us.n`, ..., `worker_bytes`."""

    def add(self, name: str, values: list[float]) -> None:
        """The median of some values with their 10th and 90th percentile and their number."""
        low, middle, high = np.quantile(values, _QUANTILES)
        self |= {name: float(middle), f"{name}.low": float(low), f"{name}.high": float(high), f"{name}.n": float(len(values))}


class Stub:
    """A dataset of batches: each item is a new copy of the same one, as collating makes a new one for each.

    Parameters
    ----------
    batch
        The batch.
    length
        Number of items.
    is_shared
        Whether its tensors are made in shared memory, as torch's own collating does in a worker.
    """

    def __init__(self, batch: Any, length: int, *, is_shared: bool) -> None:
        self.batch, self.length, self.is_shared = batch, length, is_shared

    def __len__(self) -> int:
        """Number of items."""
        return self.length

    def __getitem__(self, index: int) -> Any:
        """A new copy of the batch."""
        return fresh(self.batch, is_shared=self.is_shared)


def fresh(value: Any, *, is_shared: bool = False) -> Any:
    """A copy of a batch whose tensors have memory of their own.

    Parameters
    ----------
    value
        Tensors, arrays and what holds them.
    is_shared
        Whether new tensors are made in shared memory, where this is a worker.
    """
    if hasattr(value, "untyped_storage"):
        return _shared_copy(value) if is_shared else value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, str | bytes | int | float | bool | None):
        return value
    if isinstance(value, dict):
        return {name: fresh(each, is_shared=is_shared) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(fresh(each, is_shared=is_shared) for each in value)
    return copy.deepcopy(value)


def _shared_copy(tensor: Any) -> Any:
    """A copy in shared memory, as torch's own collating makes it in a worker (utils/data/_utils/collate.py)."""
    import torch  # noqa: PLC0415 - torch only where something is measured

    if torch.utils.data.get_worker_info() is None or tensor.layout is not torch.strided or not tensor.numel():
        return tensor.clone()
    storage = torch.UntypedStorage._new_shared(tensor.nbytes, device=tensor.device)  # noqa: SLF001 - as torch itself does
    return torch.empty(0, dtype=tensor.dtype).set_(storage, 0, tensor.shape).copy_(tensor)


def same(batch: Any) -> Any:
    """The batch as it is: what a stub gives is collated already."""
    return batch


def worker_costs(loader: Any, batch: Any, *, shared_bytes: float, told: Callable[[], object]) -> WorkerCosts:
    """Constants of one worker, with its queue hot.

    Parameters
    ----------
    loader
        The loader whose worker it stands for: its way to start processes and to collate count.
    batch
        A batch of it.
    shared_bytes
        Shared memory that is free; infinity where it does not matter.
    told
        Called after each batch that was taken.

    Returns
    -------
    WorkerCosts
        fork_us, init_us, get_us, put_us, worker_bytes, and pin_us where there is CUDA.

    Raises
    ------
    RuntimeError, OSError
        If workers cannot be started, die, or take too long: torch's own error.
    """
    from torch.utils.data import default_collate  # noqa: PLC0415 - torch only where something is measured

    size = bytes_of(batch)
    ahead = int(max(min(AHEAD, shared_bytes / _SHARED_SHARE / max(size, 1)), _FIRST_TAKEN))
    stub = Stub(batch, 1 + 2 * ahead + _FOLLOWING, is_shared=loader.collate_fn is default_collate)
    made = [_seconds(lambda: fresh(batch)) for _ in range(_MADE)]
    make = float(np.median(made))
    starts = [_started(loader, stub, ahead) for _ in range(_STARTS - 1)]
    for _, _, iterator in starts:
        _stop(iterator)
    forked, first, iterator = _started(loader, stub, ahead)
    starts.append((forked, first, iterator))
    try:
        _wait_for(iterator, ahead)
        taken = [_told(iterator, told) for _ in range(ahead + _FOLLOWING)]
        used = _worker_bytes(iterator)
    finally:
        _stop(iterator)
    hot = taken[min(_FIRST_TAKEN, ahead - 1) : ahead]
    spacings = taken[-_FOLLOWING // 2 :]
    period = float(np.median(spacings))
    costs = WorkerCosts()
    costs.add("get_us", [1e6 * each for each in hot])
    costs.add("put_us", [1e6 * max(each - make, 0.0) for each in spacings])
    costs.add("fork_us", [1e6 * each for each, _, _ in starts])
    costs.add("init_us", [1e6 * max(each - period - float(np.median(hot)), 0.0) for _, each, _ in starts])
    costs |= {"batch_bytes": float(size), "tensors": float(len(tensors_of(batch)))} | used
    pinned = _pin_seconds(batch)
    if pinned:
        costs.add("pin_us", [1e6 * each for each in pinned])
    return costs


def _started(loader: Any, stub: Stub, ahead: int) -> tuple[float, float, Any]:
    """Seconds to start a worker, seconds from there to its first batch, and its iterator."""
    from torch.utils.data import DataLoader  # noqa: PLC0415 - torch only where something is measured

    dataset: Any = stub  # it has all that torch asks of a dataset
    made: Any = DataLoader(
        dataset,
        batch_size=None,
        num_workers=1,
        prefetch_factor=ahead,
        collate_fn=same,
        timeout=_LONGEST_S,
        multiprocessing_context=loader.multiprocessing_context,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: forking a process that has threads
        start = time.perf_counter()
        iterator = iter(made)
        forked = time.perf_counter()
    try:
        next(iterator)
    except BaseException:
        _stop(iterator)
        raise
    return forked - start, time.perf_counter() - forked, iterator


def _wait_for(iterator: Any, batches: int) -> None:
    """Until that many batches lie ready, at most two seconds."""
    for _ in range(200):
        try:
            if iterator._data_queue.qsize() >= batches:  # noqa: SLF001 - torch tells nowhere else how many are ready
                return
        except (AttributeError, NotImplementedError):  # macOS has no qsize
            pass
        time.sleep(0.01)


def _told(iterator: Any, told: Callable[[], object]) -> float:
    seconds = _seconds(lambda: next(iterator))
    told()
    return seconds


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _stop(iterator: Any) -> None:
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


def _worker_bytes(iterator: Any) -> dict[str, float]:
    """Memory that the worker shares with nobody; nothing where the system does not tell."""
    import psutil  # noqa: PLC0415 - only where something is measured

    try:
        return {"worker_bytes": float(psutil.Process(iterator._workers[0].pid).memory_full_info().uss)}  # noqa: SLF001
    except (psutil.Error, AttributeError, IndexError):
        return {}


def _pin_seconds(batch: Any) -> list[float]:
    """Seconds to copy the batch's tensors into pinned memory; empty without CUDA."""
    import torch  # noqa: PLC0415 - torch only where something is measured

    if not torch.cuda.is_available():
        return []
    tensors = [each for each in tensors_of(batch) if hasattr(each, "pin_memory") and not each.is_cuda]
    return [_seconds(lambda: [each.pin_memory() for each in tensors]) for _ in range(_MADE)][1:]
