"""Small traces written by hand, as text, for the tests of the reader."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

STEP_US = 100.0


def event(
    name: str, category: str, start: float, duration: float, *, thread: object = 1, process: object = 1, **args: object
) -> dict[str, Any]:
    """One complete event as Kineto writes it."""
    return {"ph": "X", "cat": category, "name": name, "pid": process, "tid": thread, "ts": start, "dur": duration, "args": args}


def training(steps: int = 3, start: float = 1_000_000.0) -> list[dict[str, Any]]:
    """Steps of 100 us, each: 40 us of loading, a forward operator of 20, a backward of 20, an optimizer of 10, 10 of nothing."""
    events = []
    for step in range(steps):
        at = start + step * STEP_US
        number = {"Sequence number": 10 + step}
        events += [
            event(f"ProfilerStep#{step}", "user_annotation", at, STEP_US),
            event("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "user_annotation", at, 40.0),
            event("aten::linear", "cpu_op", at + 40, 20.0, **number),
            event("autograd::engine::evaluate_function: AddmmBackward0", "cpu_op", at + 60, 20.0, **number),
            event("Optimizer.step#SGD.step", "user_annotation", at + 80, 10.0),
        ]
    return events


def write(path: Path, events: list[dict[str, Any]], **keys: object) -> Path:
    """Write a trace; gzip where the name says so."""
    text = json.dumps({"schemaVersion": 1, **keys, "traceEvents": events}).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
