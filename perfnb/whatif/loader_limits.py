"""What workers need of the machine: descriptors, shared memory, memory; and whether a probe says that it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perfnb.prediction import Unknown
from perfnb.whatif.loader_settings import DEFAULT_PREFETCH

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

DESCRIPTOR_SHARE: Final = 0.8
SHARED_MEMORY_MARGIN: Final = 2.0
"""Whatif contract, section 4.4."""

_MIB: Final = 1 << 20


def within_limits(model: StepModel) -> StepModel | Unknown:
    """The model, with what is tight as an assumption; or that the workers it asks for cannot be had.

    A batch that waits holds one descriptor per tensor in the training process, and its bytes of shared memory; at most
    workers x prefetch_factor batches wait.
    """
    probe = model.loader.probe or model.loader.moved
    if probe is None or not model.workers or not model.loader.is_simulated(model.workers, model.recorded_workers):
        return model
    known = probe.constants
    waiting = model.workers * (model.loader.prefetch or DEFAULT_PREFETCH)
    texts = []
    used, limit = waiting * known.get("tensors", 0.0), known.get("descriptors")
    if limit is not None and known.get("uses_descriptors", 1.0) and used > DESCRIPTOR_SHARE * limit:
        text = f"{used:.0f} descriptors of waiting batches, and a process may hold {limit:.0f} (ulimit -n)"
        if used > limit:
            return Unknown(text, "fewer workers, a smaller prefetch_factor, or a higher limit")
        texts.append(text)
    used, limit = waiting * known.get("batch_bytes", 0.0), known.get("shared_memory_bytes")
    if limit is not None and SHARED_MEMORY_MARGIN * used > limit:
        text = f"{used / _MIB:.0f} MiB of waiting batches in shared memory, of which {limit / _MIB:.0f} MiB are free"
        if used > limit:
            return Unknown(text, "fewer workers, a smaller prefetch_factor, or more shared memory (docker run --shm-size)")
        texts.append(text)
    used, limit = model.workers * known.get("worker_bytes", 0.0), known.get("memory_bytes")
    if limit is not None and used > limit:
        text = f"{model.workers} workers of {known['worker_bytes'] / _MIB:.0f} MiB each, and {limit / _MIB:.0f} MiB are free"
        return Unknown(text, "fewer workers, or more memory")
    return model.with_error("loader_queue", 0.0, *texts) if texts else model
