"""A short trace of a training under torch.profiler, without names of the machine, trimmed to a few steps."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from benchmarks.gpu.names import without_names
from benchmarks.gpu.training import synchronize
from benchmarks.gpu.trim_trace import TrimError, trim

STEPS: Final = 5
"""Steps that a trace keeps at most; perfnb leaves the first out, and a last one whose device work was cut off."""

_WARM_UP: Final = 2


def record_trace(training: Any, target: Path, *, steps: int = STEPS, most_bytes: int = 1_000_000) -> dict[str, Any]:
    """Profile a training and write its trace; what was written, or why nothing was."""
    training.activate()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    for _ in range(_WARM_UP):
        training.step()
    synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        plan = schedule(wait=0, warmup=_WARM_UP, active=steps + 1, repeat=1)
        with profile(activities=activities, record_shapes=True, profile_memory=True, schedule=plan) as profiler:
            for _ in range(_WARM_UP + steps + 1):
                training.step()
                profiler.step()
        profiler.export_chrome_trace(str(path))
        raw_bytes = path.stat().st_size
        cleaned = Path(folder) / "cleaned.json.gz"
        cleaned.write_bytes(gzip.compress(without_names(path.read_text(encoding="utf-8")).encode(), 1))
        try:
            made = trim(cleaned, target, steps=steps, most_bytes=most_bytes)
        except TrimError as error:
            return {"file": None, "reason": str(error), "raw_bytes": raw_bytes}
    return {
        "file": target.name,
        "bytes": made.bytes,
        "raw_bytes": raw_bytes,
        "steps": list(made.steps),
        "events": made.events,
        "kinds_lost": list(made.kinds_lost),
    }
