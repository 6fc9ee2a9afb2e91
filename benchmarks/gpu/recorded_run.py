"""A run folder that perfnb records of a training, read back, and without anything that names the machine."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import perfnb
from benchmarks.gpu.names import without_names

MOST_TRACE_BYTES: Final = 1_000_000

_UUID: Final = re.compile(r"\b(GPU|MIG)-[0-9a-f]{8}-[0-9a-f-]{27}\b")
NO_UUID: Final = r"\1-00000000-0000-0000-0000-000000000000"

_LOOKED_AT: Final = {
    "phases": ("cpu_us", "runqueue_us", "device_us"),
    "allocator": ("allocated_bytes", "reserved_bytes", "peak_allocated_bytes"),
    "gpu_samples": ("utilization_share", "power_w", "energy_j", "sm_active_share", "process_memory_bytes"),
    "host_samples": ("cpu_share", "training_cpu_share"),
}


def record_run(training: Any, folder: Path, *, steps: int, trace: int) -> dict[str, Any]:
    """Train under `perfnb.record`, then say what reads back.

    Returns
    -------
    dict
        Rows of each table, how many values of the columns that only a GPU fills are there, what is missing and why.
    """
    shutil.rmtree(folder, ignore_errors=True)
    training.activate()
    with perfnb.record(folder, config=training.config, trace=trace, gpu_interval_s=0.2) as recorder:
        for _ in range(steps):
            training.step()
            recorder.step()
    anonymous(folder)
    return {"folder": folder.name, **read_back(folder)}


def read_back(folder: Path) -> dict[str, Any]:
    """What `perfnb.read_run` finds in a folder, in numbers."""
    run = perfnb.read_run(folder)
    tables = ("steps", "phases", "host_ops", "device_ops", "allocator", "gpu_samples", "host_samples", "gaps")
    filled = {
        f"{table}.{column}": int(getattr(run, table)[column].notna().sum())
        for table, columns in _LOOKED_AT.items()
        for column in columns
    }
    gaps = run.gaps[["table", "column", "reason"]].astype(object).where(run.gaps[["table", "column", "reason"]].notna(), None)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return {
        "rows": {table: len(getattr(run, table)) for table in tables},
        "filled": filled,
        "gaps": gaps.to_numpy().tolist(),
        "signals": sorted(run.signals),
        "notes": list(run.notes),
        "states": [each.state for each in run.recordings],
    }


def anonymous(folder: Path) -> None:
    """Take the names of the machine out of a run folder; a trace that is too large goes altogether."""
    for rank in sorted(folder.glob("rank*")):
        header = json.loads((rank / "header.json").read_text(encoding="utf-8"))
        header |= {"host": "", "boot": "", "process": 0}
        (rank / "header.json").write_text(json.dumps(header), encoding="utf-8")
        (rank / "lock").unlink(missing_ok=True)
        for path in sorted(rank.glob("*.jsonl")):
            path.write_text(_UUID.sub(NO_UUID, path.read_text(encoding="utf-8")), encoding="utf-8")
        for path in sorted(rank.glob("*.json.gz")):
            text = without_names(gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace"))
            written = gzip.compress(text.encode(), 9, mtime=0)
            path.write_bytes(written)
            if len(written) > MOST_TRACE_BYTES:
                path.unlink()
