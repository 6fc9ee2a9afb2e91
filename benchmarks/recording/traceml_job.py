"""The workloads as a job of TraceML: `traceml run` starts this file, which prints what each step took."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import traceml_ai as traceml

from benchmarks.recording.workload import Workload


class Traced(Workload):
    """Each step inside `trace_step`, as TraceML's documentation has it."""

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """One step of training."""
        with traceml.trace_step(self.model):
            super().step(inputs, targets)


def main(words: list[str]) -> None:
    """Train each workload: batch size and steps of each in turn; `plain` as the first word leaves TraceML's calls out."""
    kind, out, *rest = words
    if kind == "traced":
        traceml.init(mode="auto")
    found: dict[str, Any] = {}
    for target_ms, batch, steps in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        workload = (Traced if kind == "traced" else Workload)(float(target_ms), int(batch))
        taken = workload.block(int(steps), 10)
        found[target_ms] = {"wall_ms": taken.wall_ms.tolist(), "own_ms": taken.own_ms.tolist()}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
