"""TraceML, which patches a process for good: jobs with it and without it in turn, A B B A, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.reading.children import REPOSITORY
from benchmarks.recording.interleaved import Added, added
from benchmarks.recording.workload import Taken, Workload

TRACEML: Final = "TraceML, a process each"
_LIMIT_S: Final = 120.0
_LAST_WORDS: Final = 200


class JobError(Exception):
    """A job did not run: the message has its last words."""


def traceml(python: Path, workloads: Sequence[Workload], rounds: int, steps: Sequence[int]) -> list[Added]:
    """What TraceML adds to the steps of each workload.

    Parameters
    ----------
    python
        Interpreter of an environment with `traceml-ai` and torch.
    workloads, rounds, steps
        What trains, how many rounds of four jobs, and steps of each workload in a job.

    Raises
    ------
    JobError
        If a job fails.
    """
    jobs = [[_job(python, kind, workloads, steps) for kind in ("plain", "traced", "traced", "plain")] for _ in range(rounds)]
    return [
        added(TRACEML, workload.target_ms, [[job[number] for job in four] for four in jobs])
        for number, workload in enumerate(workloads)
    ]


def _job(python: Path, kind: str, workloads: Sequence[Workload], steps: Sequence[int]) -> list[Taken]:
    with tempfile.TemporaryDirectory(prefix="perfnb-traceml-") as folder:
        out = Path(folder) / "steps.json"
        words = [kind, str(out)]
        for workload, number in zip(workloads, steps, strict=True):
            words += [str(workload.target_ms), str(workload.batch_size), str(number)]
        command = [str(python.parent / "traceml"), "run", "--mode", "summary", "--logs-dir", folder]
        command += ["--disable-traceml"] if kind == "plain" else []
        command += [str(Path(__file__).with_name("traceml_job.py")), "--args", *words]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - the interpreter that the caller names, on a file of this package
                command, capture_output=True, encoding="utf-8", errors="replace", env=environment, timeout=_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise JobError(str(error)[:_LAST_WORDS]) from error
        if not out.exists():
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            message = f"exit status {done.returncode}: {last[:_LAST_WORDS]}"
            raise JobError(message)
        found = json.loads(out.read_text())
    return [Taken(np.array(each["wall_ms"]), np.array(each["own_ms"])) for each in found.values()]
