"""Times of collective calls by their size, measured on the process group of a job."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from perfnb.errors import RecordingError

SIZES: Final = (16 << 10, 128 << 10, 1 << 20, 8 << 20)
"""Bytes of the probed calls: eight times apart, so that a fixed time can be told from a bandwidth."""

WARM_UPS: Final = 3
REPEATS: Final = 10


def probe_collectives(
    group: Any = None,
    *,
    sizes: Sequence[int] = SIZES,
    dtypes: Sequence[str] = ("float32", "float16", "bfloat16"),
    collectives: Sequence[str] = ("all_reduce",),
    repeats: int = REPEATS,
) -> list[dict[str, Any]]:
    """Median time of each collective at each size, and of casting gradients to 16 bits and back.

    Every rank of the group calls it at the same place, while nothing else runs: before training, say. Of each call the least
    time over the ranks counts, the last arriver's; on any other it holds waiting. With gloo tensors are the host's, with NCCL
    those of the current device. Not validated on a GPU.

    Parameters
    ----------
    group
        Process group; the default one by default.
    sizes
        Bytes of a call, three or more of which the largest is at least eight times the smallest.
    dtypes
        Types of the elements. One that the backend refuses is left out.
    collectives
        "all_reduce", "all_gather" (bytes of the output), "reduce_scatter" (bytes of the input).
    repeats
        Timed calls of each size.

    Returns
    -------
    list of dict
        The same on every rank, of plain values: backend, collective (or "cast": from float32 to dtype and back), dtype, ranks,
        bytes, time_us. Give it to `perfnb.with_link_times`.

    Raises
    ------
    RecordingError
        If there is no process group.
    """
    import torch  # noqa: PLC0415 - torch only where it is used
    import torch.distributed as dist  # noqa: PLC0415

    if not (dist.is_available() and dist.is_initialized()):
        message = "there is no process group: call probe_collectives() on every rank after torch.distributed.init_process_group"
        raise RecordingError(message)
    backend, ranks = str(dist.get_backend(group)), dist.get_world_size(group)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    rows: list[dict[str, Any]] = []
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        for collective in collectives:
            for size in sizes:
                call = _call(torch, collective, kind, size, device, group)
                try:
                    call()
                except (RuntimeError, TypeError, ValueError):  # the backend has no such sum: it says so on every rank
                    break
                dist.barrier(group)
                own = _times_us(call, wait, repeats)
                of_all: list[Any] = [None] * ranks
                dist.all_gather_object(of_all, own, group=group)
                took = statistics.median(min(each) for each in zip(*of_all, strict=True))
                rows.append(_row(backend, collective, dtype, ranks, size, took))
        if dtype != "float32":
            whole = torch.zeros(max(sizes) // 4, device=device)
            of_all = [None] * ranks
            dist.all_gather_object(of_all, statistics.median(_times_us(_cast(whole, kind), wait, repeats)), group=group)
            rows.append(_row(backend, "cast", dtype, ranks, max(sizes), statistics.median(of_all)))
    return rows


def _row(backend: str, collective: str, dtype: str, ranks: int, size: int, time_us: float) -> dict[str, Any]:
    names = ("backend", "collective", "dtype", "ranks", "bytes", "time_us")
    return dict(zip(names, (backend, collective, dtype, ranks, size, time_us), strict=True))


def _call(torch: Any, collective: str, kind: Any, size: int, device: Any, group: Any) -> Callable[[], Any]:
    dist = torch.distributed
    ranks = dist.get_world_size(group)
    elements = max(size // kind.itemsize // ranks, 1) * ranks
    whole = torch.zeros(elements, dtype=kind, device=device)
    part = torch.zeros(elements // ranks, dtype=kind, device=device)
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # torch 2.13 renamed both
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    calls: dict[str, Callable[[], Any]] = {
        "all_reduce": lambda: dist.all_reduce(whole, group=group),
        "all_gather": lambda: gather(whole, part, group=group),
        "reduce_scatter": lambda: scatter(part, whole, group=group),
    }
    if collective not in calls:
        message = f"{collective!r} cannot be probed: there are {', '.join(calls)}"
        raise RecordingError(message)
    return calls[collective]


def _cast(whole: Any, kind: Any) -> Callable[[], Any]:
    return lambda: whole.copy_(whole.to(kind))


def _times_us(call: Callable[[], Any], wait: Callable[[], Any], repeats: int) -> list[float]:
    times = []
    for number in range(WARM_UPS + repeats):
        wait()
        start_ns = time.perf_counter_ns()
        call()
        wait()
        if number >= WARM_UPS:
            times.append((time.perf_counter_ns() - start_ns) / 1e3)
    return times


def _nothing() -> None:
    """On the host a call is over when it returns."""
