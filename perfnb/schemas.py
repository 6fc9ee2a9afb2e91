"""Schemas of the tables of a run: one row per what, and the type of each column."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# One row per: see the comment at each table. Times are microseconds since the run's first event.
FLOAT, INT, NULLABLE, TEXT, BOOL, MAYBE = "float64", "int64", "Int64", "category", "bool", "boolean"

SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        # one row per rank and step
        "steps": {
            "rank": INT,
            "step": INT,
            "start_us": FLOAT,
            "duration_us": FLOAT,
            "is_edge": BOOL,
            "steps_inferred": BOOL,
            "is_profiled": BOOL,  # under torch.profiler, whose cost is in its time
            "epoch": NULLABLE,  # which pass over the loader, from 0
            "micro_batches": NULLABLE,  # backward passes
        },
        # (rank, step, phase); phases: data, transfer, forward, backward, communication, optimizer, other
        "phases": {
            "rank": INT,
            "step": INT,
            "phase": TEXT,
            "wall_us": FLOAT,
            "cpu_us": FLOAT,
            "runqueue_us": FLOAT,
            "blocked_us": FLOAT,
            "device_us": FLOAT,  # between events of the device at the phase's edges
        },
        # host event; category: operator, annotation, runtime, synchronization, overhead, python, ...
        "host_ops": {
            "rank": INT,
            "process": TEXT,
            "thread": TEXT,
            "category": TEXT,
            "name": TEXT,
            "start_us": FLOAT,
            "duration_us": FLOAT,
            "correlation": NULLABLE,
            "stream": NULLABLE,
            "sequence": NULLABLE,
            "input_shapes": TEXT,  # JSON as the profiler writes it: [[8,16],[]]
            "input_types": TEXT,
            "waits_on_stream": NULLABLE,  # of a synchronization: the stream, and the call that recorded the event
            "waits_on_correlation": NULLABLE,
        },
        # kernel, copy or memset; kind: compute, communication, copy, memset
        "device_ops": {
            "rank": INT,
            "device": NULLABLE,
            "stream": NULLABLE,
            "kind": TEXT,
            "name": TEXT,
            "start_us": FLOAT,
            "duration_us": FLOAT,
            "correlation": NULLABLE,
            "bytes": NULLABLE,
            "kind_source": TEXT,
            "grid": TEXT,  # JSON: [128,1,1]
            "block": TEXT,
            "occupancy_share": FLOAT,
        },
        # (rank, call); clock: device (a kernel) or host (a range of a host library such as gloo)
        "collectives": {
            "rank": INT,
            "group": TEXT,
            "sequence": NULLABLE,
            "collective": TEXT,
            "dtype": TEXT,
            "elements_in": NULLABLE,
            "elements_out": NULLABLE,
            "group_size": NULLABLE,
            "members": TEXT,  # ranks of the group, "0,1,2,3"; NA where the trace does not list them all
            "bytes": NULLABLE,
            "device": NULLABLE,
            "stream": NULLABLE,
            "launch_us": FLOAT,  # start of the launch call; NaN where none was recorded, and on the host's clock
            "start_us": FLOAT,
            "duration_us": FLOAT,
            "clock": TEXT,
        },
        # allocation (bytes > 0) or free (bytes < 0) of the host's or a device's memory, in the order they happened
        "allocations": {
            "rank": INT,
            "device": NULLABLE,  # NA on the host
            "time_us": FLOAT,
            "address": NULLABLE,
            "bytes": INT,
            "allocated_bytes": NULLABLE,  # totals of that memory after this row
            "reserved_bytes": NULLABLE,
            # of a memory snapshot, else NA; there a row is also a change of the segments, and `bytes` theirs
            "sequence": NULLABLE,  # order of the rows of a memory; below 0: the state before the first event
            "action": TEXT,  # existing, alloc, free_requested, free_completed, segment_existing, segment_alloc, ..., oom
            "requested_bytes": NULLABLE,  # as asked for; `bytes` counts whole blocks
            "stream": NULLABLE,
            "pool": TEXT,  # small, large, private:id
            "phase": TEXT,
            "category": TEXT,  # what the memory holds: parameter, gradient, activation, ...
            "stack": TEXT,  # file:line:name from the innermost frame outwards, joined by ";"
        },
        # (rank, step, device): torch's caching allocator at the end of the step; counters are since the process began
        "allocator": {
            "rank": INT,
            "step": INT,
            "device": NULLABLE,
            "time_us": FLOAT,
            "requested_bytes": NULLABLE,
            "allocated_bytes": NULLABLE,
            "active_bytes": NULLABLE,
            "inactive_split_bytes": NULLABLE,
            "reserved_bytes": NULLABLE,
            "peak_requested_bytes": NULLABLE,
            "peak_allocated_bytes": NULLABLE,
            "peak_reserved_bytes": NULLABLE,
            "peaks_are_per_step": BOOL,  # else they are running maxima
            "retries": NULLABLE,
            "ooms": NULLABLE,
            "device_allocs": NULLABLE,
            "device_frees": NULLABLE,
        },
        # (GPU, time), as its driver tells; rank is the one that asked
        "gpu_samples": {
            "rank": INT,
            "gpu": NULLABLE,  # number, as the driver counts
            "uuid": TEXT,
            "time_us": FLOAT,
            "utilization_share": FLOAT,  # share of the last 1/6 to 1 s with a kernel running: not how full the device was
            "memory_utilization_share": FLOAT,
            "memory_used_bytes": NULLABLE,  # of all processes
            "memory_total_bytes": NULLABLE,
            "memory_reserved_bytes": NULLABLE,  # by the driver
            "process_memory_bytes": NULLABLE,
            "power_w": FLOAT,
            "power_limit_w": FLOAT,
            "energy_j": FLOAT,  # counter since the driver was loaded
            "temperature_c": FLOAT,
            "sm_clock_mhz": FLOAT,
            "memory_clock_mhz": FLOAT,
            "throttle_reasons": NULLABLE,  # bit mask of nvml.h: nvmlClocksEventReason*
            "sm_active_share": FLOAT,
            "tensor_active_share": FLOAT,
            "dram_active_share": FLOAT,
            "pcie_receive_bytes_per_s": FLOAT,
            "pcie_send_bytes_per_s": FLOAT,
            "nvlink_receive_bytes_per_s": FLOAT,
            "nvlink_send_bytes_per_s": FLOAT,
        },
        # (rank, time): the host, its control group, the rank's own process and its loader workers; rates and shares are
        # over the time since the row before
        "host_samples": {
            "rank": INT,
            "host": TEXT,
            "time_us": FLOAT,
            "cpu_share": FLOAT,  # busy share of all cores of the host
            "low_priority_cpu_share": FLOAT,  # the part of it by niced processes, which give way to others
            "load_1m": FLOAT,
            "cgroup_cpu_limit": FLOAT,  # cores
            "memory_bytes": NULLABLE,  # of the control group, else of the host
            "memory_limit_bytes": NULLABLE,
            "pressure_cpu_share": FLOAT,  # PSI "some", mean of 10 s
            "pressure_memory_share": FLOAT,
            "pressure_io_share": FLOAT,
            "throttled_us": FLOAT,
            "nr_periods": NULLABLE,
            "nr_throttled": NULLABLE,
            "disk_read_bytes_per_s": FLOAT,
            "disk_write_bytes_per_s": FLOAT,
            "network_receive_bytes_per_s": FLOAT,
            "network_send_bytes_per_s": FLOAT,
            "swap_in_bytes_per_s": FLOAT,
            "own_cpu_cores": FLOAT,  # the rank's process, all threads
            "own_memory_bytes": NULLABLE,  # resident
            "own_threads": NULLABLE,
            "training_cpu_share": FLOAT,  # the thread that trains: running, waiting for a core, neither
            "training_runqueue_share": FLOAT,
            "training_blocked_share": FLOAT,
            "read_bytes_per_s": FLOAT,  # own process and workers, from storage
            "write_bytes_per_s": FLOAT,
            "read_chars_per_s": FLOAT,  # the same through read() and write(), the page cache included
            "write_chars_per_s": FLOAT,
            "voluntary_switches_per_s": FLOAT,  # of the thread that trains
            "workers": NULLABLE,  # loader workers alive
            "worker_cpu_cores": FLOAT,  # sum
            "worker_runqueue_share": FLOAT,  # mean over workers, of each one's main thread
            "worker_blocked_share": FLOAT,
            "worker_memory_bytes": NULLABLE,  # sum of resident memory: what workers share counts in each
            "worker_switches_per_s": FLOAT,
        },
        # (rank, step) of what the training itself says; values are this rank's own
        "training": {
            "rank": INT,
            "step": INT,
            "time_us": FLOAT,
            "loss": FLOAT,
            "validation_loss": FLOAT,
            "learning_rate": FLOAT,
            "gradient_norm": FLOAT,  # after unscaling, before clipping
            "clip_norm": FLOAT,
            "batch_size": FLOAT,  # samples of this rank, all micro-batches
            "tokens": FLOAT,
            "padded_tokens": FLOAT,
            "loss_scale": FLOAT,
            "skipped": MAYBE,  # by the gradient scaler
            "finite": MAYBE,  # loss and gradient norm, where known
            "micro_batches": NULLABLE,
            "micro_gradient_square": FLOAT,
            "gradient_square": FLOAT,
        },
        # further values by name: those that no table has a column for
        "metrics": {
            "rank": INT,
            "step": NULLABLE,
            "time_us": FLOAT,
            "name": TEXT,
            "value": FLOAT,
        },
        # (rank, position): a sample, the samples of a batch, or the collating of one; source: probe (perfnb.probe_dataset)
        "loader_samples": {
            "rank": INT,
            "position": INT,  # order of measuring
            "batch": INT,
            "part": TEXT,  # sample; samples: fetched together by __getitems__; collate
            "wall_us": FLOAT,
            "cpu_us": FLOAT,  # of the thread, or of the process where threads inside the sample work too
            "bytes": NULLABLE,  # of the tensors and arrays in it
            "source": TEXT,
        },
        # what was meant to be recorded and could not be: one row per (table, column, rank, device, reason)
        "gaps": {
            "rank": INT,
            "table": TEXT,
            "column": TEXT,  # NA: the whole table
            "device": NULLABLE,
            "reason": TEXT,
            "first_us": FLOAT,
            "count": NULLABLE,
        },
    }
)
