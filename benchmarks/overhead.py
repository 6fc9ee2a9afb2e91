"""What recording costs a training: counted in its hooks and its background thread, and timed beside other tools."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.recording.background import RATES, background_cost
from benchmarks.recording.direct import direct_costs
from benchmarks.recording.interleaved import CONTROL, RECORDER, SIDES, interleaved
from benchmarks.recording.peer_jobs import TRACEML, JobError, traceml
from benchmarks.recording.report import added_table, background_table, direct_table, verdicts
from benchmarks.recording.workload import Workload

_TARGETS_MS: Final = (5.0, 50.0)
_JOB_STEPS: Final = (200, 30)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured.

    Attributes
    ----------
    direct_pairs
        Pairs of blocks for the direct cost.
    background_s
        Seconds per speed of training.
    rounds, steps
        Rounds and steps of a block for each length of step.
    sides
        Tools that are timed.
    """

    direct_pairs: int
    background_s: float
    rounds: tuple[int, int]
    steps: tuple[int, int]
    sides: tuple[str, ...]


FULL: Final = Effort(60, 20.0, (8, 6), (60, 8), tuple(SIDES))
QUICK: Final = Effort(10, 2.0, (2, 1), (30, 8), (RECORDER, CONTROL))

_HOW: Final = (
    "Counted: CPU time of the training thread in blocks of 200 steps that alternate, with hooks and without; the median of the "
    "paired differences. In a real loop torch's own code for hooks counts too, and less of ours is in the caches. "
    "Timed: blocks run in one process in the order A B B A (without, with, with, without); a round's value is the sum of the two "
    "with over the sum of the two without, each block by its median or its mean; shown is the median over rounds with its 95 % "
    "interval (bootstrap over rounds). Medians leave out what happens in few steps, such as samples of the host: the counted "
    "costs have it. Starting and stopping a tool, and the first 0.6 s of each block, are not timed. Recording keeps its defaults "
    "and writes a folder. TraceML patches a process for good, so it is timed in jobs of its own: its launcher with its "
    "telemetry and the launcher with --disable-traceml, in the same order. <= 1 % is said only where counting and timing both "
    "carry it."
)


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and what may be claimed."""
    chosen = _parser().parse_args(words)
    effort = QUICK if chosen.quick else FULL
    direct = direct_costs(effort.direct_pairs)
    background = [background_cost(rate, effort.background_s) for rate in RATES]
    workloads = [Workload(target_ms) for target_ms in _TARGETS_MS]
    found = []
    for workload, rounds, steps in zip(workloads, effort.rounds, effort.steps, strict=True):
        found += interleaved(workload, effort.sides, rounds, steps)
    absent = f"{TRACEML}: did not run (no --traceml-python)"
    if chosen.traceml_python:
        try:
            found += traceml(chosen.traceml_python, workloads, chosen.traceml_rounds, _JOB_STEPS)
            absent = ""
        except JobError as error:
            absent = f"{TRACEML}: did not run ({error})"
    found.sort(key=lambda one: one.target_ms)
    said = verdicts(direct, background, found)
    parts = ["# Cost of recording", _machine(), direct_table(direct), background_table(background), added_table(found)]
    print("\n\n".join([*parts, *([absent] if absent else []), "\n".join(said), _HOW]))
    if chosen.out:
        told: dict[str, Any] = {"machine": _machine(), "direct": [asdict(one) for one in direct], "verdicts": said}
        told |= {"background": [asdict(one) for one in background], "added": [asdict(one) for one in found]}
        chosen.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, without peers: whether it runs, not what it costs")
    parser.add_argument("--traceml-python", type=Path, help="interpreter of an environment with traceml-ai and this torch")
    parser.add_argument("--traceml-rounds", type=int, default=2, help="rounds of four jobs")
    parser.add_argument("-o", "--out", type=Path, help="JSON file with every figure")
    return parser


def _machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} cores{load}; Python {sys.version.split()[0]}, torch {torch.__version__}, one thread."


if __name__ == "__main__":
    sys.exit(main())
