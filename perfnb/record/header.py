"""What holds for one rank's whole recording: which rank, which clock, which machine and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import perfnb
from perfnb.record.json_rows import json_value
from perfnb.record.rows import COLUMNS, SCHEMA_VERSION

RANK_VARIABLES: Final = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
WORLD_SIZE_VARIABLES: Final = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""What launchers set: torchrun, Slurm, Open MPI, MPICH. Those of one launcher stand at the same place in both."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of ranks: of torch's process group if it is up, else as the launcher says, else 0 of 1.

    Examples
    --------
    >>> rank, world_size = rank_and_world_size()
    >>> 0 <= rank < world_size
    True
    """
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    for rank, world_size in zip(RANK_VARIABLES, WORLD_SIZE_VARIABLES, strict=True):
        stated = os.environ.get(rank, ""), os.environ.get(world_size, "")
        if all(value.isdecimal() for value in stated) and int(stated[0]) < int(stated[1]):
            return int(stated[0]), int(stated[1])
    return 0, 1


def header(config: Mapping[str, Any] | None, devices: Mapping[str, Any], cpu_capacity: float | None) -> dict[str, Any]:
    """The header of this process's recording, of plain values that JSON can hold.

    Parameters
    ----------
    config
        The training's config as the user gave it; values that JSON lacks become their text.
    devices
        `devices` (names) and `device_memory_bytes` of the machine.
    cpu_capacity
        Cores that the job may use.

    Returns
    -------
    dict
        schema_version, columns (of each table), rank, world_size, host, process, boot (which tells whether two monotonic
        clocks are one), monotonic_ns and wall_ns (the same moment on both clocks), signals, config, machine, versions.
    """
    rank, world_size = rank_and_world_size()
    return {
        "schema_version": SCHEMA_VERSION,
        "columns": {table: list(names) for table, names in COLUMNS.items()},
        "rank": rank,
        "world_size": world_size,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "boot": _boot(),
        "monotonic_ns": time.perf_counter_ns(),
        "wall_ns": time.time_ns(),
        "signals": ["compile", "gc"],  # recorded where it happens: without a row nothing compiled, or no collection ran
        "config": json_value(dict(config or {})),
        "machine": {**devices, "cpu_capacity": cpu_capacity},
        "versions": {"perfnb": perfnb.__version__, "python": platform.python_version(), "torch": _version("torch")},
    }


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
