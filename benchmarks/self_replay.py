"""Replays every recorded trace without a change: how far its steps are from the recorded ones, or why there is no replay.

Lags and gaps are taken from the recording, so that this tests the graph; how right a prediction is it does not say.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from tqdm import tqdm

from perfnb.errors import PerfnbError
from perfnb.ledger import steady_steps
from perfnb.prediction import Unknown
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.whatif.model import StepModel
from perfnb.whatif.rank_model import recorded_waits
from perfnb.whatif.segments import compile_timeline
from perfnb.whatif.step_simulation import simulated_step_us
from perfnb.whatif.timeline import build_timeline
from perfnb.whatif.trace_replay import replayed_steps_us

REPOSITORY: Final = Path(__file__).resolve().parents[1]
CORPUS: Final = Path(os.environ.get("PERFNB_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
SAMPLES: Final = REPOSITORY / "data" / "samples"
LARGEST_ERROR: Final = 0.005  # whatif contract, section 5.4


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one rank of a trace.

    Attributes
    ----------
    name
        Of the trace, and its rank where it holds several.
    steps
        Steps that were replayed.
    error
        The largest distance of a replayed step from the recorded one, as a share of it; NaN where there is no replay.
    unexplained_share
        Share of the time in lags that nothing recorded explains.
    refused
        Why there is no replay; empty where there is one.
    """

    name: str
    steps: int = 0
    error: float = float("nan")
    unexplained_share: float = float("nan")
    refused: str = ""


def traces(corpus: Path, samples: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Name and files of each trace; the ranks of one job are one trace."""
    for root in (corpus / "traces", samples):
        found: dict[Path, list[Path]] = {}
        for path in sorted(root.rglob("*.json*")):
            if path.name.endswith((".json", ".json.gz")) and "trace" in f"{path.parent}{path.name}":
                job = path.parent if root == samples or path.parent.name == "dlrm_8rank" else path
                found.setdefault(job, []).append(path)
        for job, files in found.items():
            yield str(job.relative_to(root)), tuple(files)


def replayed(name: str, files: Sequence[Path]) -> list[Replayed]:
    """Each rank of a trace, replayed as it was recorded."""
    try:
        run = read_kineto(*files)
    except PerfnbError as error:
        return [Replayed(name, refused=str(error))]
    if run.steps.empty:
        return [Replayed(name, refused=run.missing.get("steps", "no steps"))]
    if not run.is_device_job:
        return [_phases(name, run)]
    steps = steady_steps(run)
    several = len(run.ranks) > 1
    return [_rank(f"{name} rank {rank}" if several else name, run, rank, steps[steps["rank"] == rank]) for rank in run.ranks]


def _phases(name: str, run: Run) -> Replayed:
    """The model of a CPU job, which is made of the phases of its steps."""
    model = StepModel.from_run(run, {"num_workers": 0})
    if isinstance(model, Unknown):
        return Replayed(name, refused=model.reason)
    steps = len(model.measured.step_us)
    error = abs(simulated_step_us(model.unchanged, range(steps), {}) / model.before_us - 1.0)
    return Replayed(f"{name} (phases)", steps, error, 0.0)


def _rank(name: str, run: Run, rank: int, steps: pd.DataFrame) -> Replayed:
    graph = build_timeline(run, rank, steps)
    if isinstance(graph, Unknown):
        return Replayed(name, refused=graph.reason)
    waits = [each.total_us for step in recorded_waits(graph) for each in step]
    spacing = np.diff(graph.edges_us)
    error = np.abs(np.array(replayed_steps_us(compile_timeline(graph), waits)) / spacing - 1.0)
    return Replayed(name, len(spacing), float(error.max()), graph.unexplained_share)


def table(rows: Sequence[Replayed]) -> str:
    """The ranks as text: a row each, then a line that sums them up."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'trace':{width}} {'steps':>5} {'error':>8} {'unexpl.':>8}", "-" * (width + 24)]
    for row in rows:
        told = f"{row.steps:5} {row.error:8.4%} {row.unexplained_share:8.3%}" if not row.refused else f"refused: {row.refused}"
        lines.append(f"{row.name:{width}} {told}")
    done = [row for row in rows if not row.refused]
    within = sum(row.error <= LARGEST_ERROR for row in done)
    worst = max((row.error for row in done), default=float("nan"))
    counts = f"{len(rows)} ranks of traces, {len(rows) - len(done)} refused, {len(done)} replayed"
    lines.append(f"{counts}, {within} within {LARGEST_ERROR:.1%}; worst {worst:.4%}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a replay misses a step by more than 0.5 %."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.self_replay", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of the corpus of traces")
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="folder of the recorded samples")
    parser.add_argument("--only", default="", help="part of the names of the traces to replay")
    chosen = parser.parse_args(arguments)
    found = [each for each in traces(chosen.corpus, chosen.samples) if chosen.only in each[0]]
    if not found:
        print(f"no trace in {chosen.corpus} and {chosen.samples}: name the corpus in PERFNB_CORPUS or --corpus")
        return 2
    rows: list[Replayed] = []
    for name, files in tqdm(found, desc="traces", disable=None):
        rows += replayed(name, files)
        gc.collect()  # a trace has up to a gigabyte of tables
    print(table(rows))
    return int(any(row.error > LARGEST_ERROR for row in rows if not row.refused))


if __name__ == "__main__":
    sys.exit(main())
