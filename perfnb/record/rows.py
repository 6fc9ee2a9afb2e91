"""Rows as a recorder writes them: the columns of each recorded table, in the order of a row, and the version of the format."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from perfnb.schemas import SCHEMAS

SCHEMA_VERSION: Final = 1
"""Version of the format; a reader refuses a newer one."""


def _sampled(table: str, *left_out: str) -> tuple[str, ...]:
    """Columns of a table as a row holds them: without the rank, with the moment in whole nanoseconds."""
    names = [name for name in SCHEMAS[table] if name not in ("rank", *left_out)]
    return tuple("time_ns" if name == "time_us" else name for name in names)


COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "steps": ("step", "start_ns", "end_ns", "is_profiled", "epoch", "micro_batches"),
        # runqueue_ns is None where the system does not tell; device_us where no device event was taken
        "phases": ("step", "phase", "wall_ns", "cpu_ns", "runqueue_ns", "device_us"),
        # any value that belongs to a step: a column of the table training, or a name of its own (table metrics)
        "values": ("step", "time_ns", "name", "value"),
        "host_ops": ("thread", "category", "name", "start_ns", "end_ns"),
        "allocator": _sampled("allocator"),
        "gpu_samples": _sampled("gpu_samples"),
        "host_samples": _sampled("host_samples", "host"),  # the host stands in the header
        "config": ("time_ns", "knob", "value"),  # what was seen of the training's settings while it ran
        "gaps": ("table", "column", "device", "reason", "first_ns", "count"),  # the last row of a key counts
        "notes": ("time_ns", "note"),
        # a window of torch.profiler: recorder's steps in it; start_ns: where the first ProfilerStep annotation of the trace
        # starts; file: name of the trace in the rank's folder
        "windows": ("step_first", "step_last", "start_ns", "end_ns", "file"),
        "costs": ("time_ns", "hook_ns", "steps", "sampler_cpu_ns"),  # of perfnb itself, since the recording began
    }
)
"""Table to the columns of its rows. Moments are nanoseconds of the monotonic clock (time.perf_counter_ns)."""
