"""What this machine can do: products, convolutions, copies and casts per second, more threads, copies to a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from perfnb.record.machine_probe_timing import Constant, alternated, constant, quotient, times_s

_WIDTH: Final = 512
"""Of square matrices: 1 MiB in float32, about what one layer of a small model holds."""

_COPIED: Final = 1 << 24
"""Elements of a copy: 64 MiB in float32, past every cache."""

_SMALL: Final = 1 << 15
"""Elements of an operator that takes some ten microseconds, as those of small models."""

_H2D_BYTES: Final = (1 << 16, 1 << 20, 1 << 24)
_IMAGES: Final = (8, 32, 28, 28)
_FILTERS: Final = (64, 32, 3, 3)

Found = Iterator[tuple[str, Constant]]


def products(torch: Any, longest_s: float) -> Found:
    """Rate of products in float32 and bfloat16, and how many times as fast the second is."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    pairs = {name: torch.randn(2, _WIDTH, _WIDTH).to(dtype) for name, dtype in dtypes.items()}
    calls = {name: partial(torch.matmul, *pair) for name, pair in pairs.items()}
    found = alternated(calls, longest_s)
    for name, seconds in found.items():
        yield f"gemm.{name}.flops_per_s", constant(seconds, 1.0).rate_of(2.0 * _WIDTH**3)
    yield "gemm.bfloat16.speedup", quotient(found["float32"], found["bfloat16"])


def convolutions(torch: Any, longest_s: float) -> Found:
    """How many times as fast a convolution, forward and backward, is on channels-last images."""

    def run(images: Any, filters: Any) -> Any:
        with torch.enable_grad():
            made = torch.nn.functional.conv2d(images, filters, padding=1)
            return torch.autograd.grad(made.sum(), (images, filters))

    images, filters = torch.randn(_IMAGES), torch.randn(_FILTERS)
    calls = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
        given = [each.clone(memory_format=layout).requires_grad_() for each in (images, filters)]
        calls[name] = partial(run, *given)
    found = alternated(calls, longest_s)
    yield "convolution.channels_last.speedup", quotient(found["contiguous"], found["channels_last"])


def memory(torch: Any, longest_s: float) -> Found:
    """Bytes read and written per second by a copy and by a cast to bfloat16, both past every cache."""
    source, target = torch.randn(_COPIED), torch.empty(_COPIED)
    narrow = torch.empty(_COPIED, dtype=torch.bfloat16)
    calls: dict[str, Callable[[], Any]] = {"copy": lambda: target.copy_(source), "cast.bfloat16": lambda: narrow.copy_(source)}
    for name, seconds in alternated(calls, longest_s).items():
        moved = _COPIED * (8.0 if name == "copy" else 6.0)
        yield f"{name}.bytes_per_s", constant(seconds, 1.0).rate_of(moved)


def threads(torch: Any, cores: float, longest_s: float) -> Found:
    """How many times as fast products, large and small elementwise operators are on several threads as on one."""
    left, right = torch.randn(2, _WIDTH, _WIDTH)
    large, small = torch.randn(_COPIED // 4), torch.randn(_SMALL)
    work: dict[str, Callable[[], Any]] = {
        "gemm": lambda: left @ right,
        "elementwise": lambda: torch.mul(large, 2.0),
        "small": lambda: [torch.mul(small, 2.0) for _ in range(20)],
    }
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= cores]
    if cores >= 1 and int(cores) not in counts:
        counts.append(int(cores))
    known = torch.get_num_threads()
    found: dict[tuple[str, int], list[float]] = {}
    try:
        for count in counts:
            torch.set_num_threads(count)
            for kind, call in work.items():
                found[kind, count] = times_s(call, longest_s / (len(counts) * len(work)))
    finally:
        torch.set_num_threads(known)
    for (kind, count), seconds in found.items():
        yield f"threads.{count}.{kind}_speedup", quotient(found[kind, 1], seconds)


def copies_to_gpu(torch: Any, longest_s: float) -> Found:
    """Latency and rate of copies to the first GPU from pageable and from pinned memory; nothing without CUDA.

    A line through three sizes, t = latency + bytes / rate. Not validated on a GPU.
    """
    if not torch.cuda.is_available():
        return
    for kind in ("pageable", "pinned"):
        medians = []
        for size in _H2D_BYTES:
            source = torch.empty(size, dtype=torch.uint8, pin_memory=kind == "pinned")
            target = torch.empty(size, dtype=torch.uint8, device="cuda")
            seconds = times_s(
                partial(target.copy_, source, non_blocking=True),
                longest_s / (2 * len(_H2D_BYTES)),
                settle=torch.cuda.synchronize,
            )
            medians.append(constant(seconds, 1.0))
        yield from _line(kind, medians)


def _line(kind: str, medians: list[Constant]) -> Found:
    sizes = np.array(_H2D_BYTES, dtype=np.float64)
    ends = []
    for side in ("value", "low", "high"):
        slope, latency = np.polyfit(sizes, [getattr(each, side) for each in medians], 1)
        ends.append((max(float(latency), 0.0) * 1e6, 1.0 / max(float(slope), 1e-15)))
    latencies, rates = zip(*ends, strict=True)
    count = min(each.n for each in medians)
    yield f"h2d.{kind}.latency_us", Constant(latencies[0], min(latencies), max(latencies), count)
    yield f"h2d.{kind}.bytes_per_s", Constant(rates[0], min(rates), max(rates), count)
