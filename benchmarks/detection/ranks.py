"""Faults and controls of several ranks: two processes on gloo that train the same model and exchange its gradients."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.detection.case import Case, Clock, Measured, Split, Truth
from benchmarks.detection.ranks_faults import CONTROLS, FAULT_BY_ID, FAULTS, WORKLOADS, config_of, sides_of
from benchmarks.detection.ranks_job import RANKS, SIDES, own_us
from benchmarks.detection.ranks_link import in_own_network
from benchmarks.detection.ranks_trace import slim_traces

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_LIMIT_S: Final = 150.0
_REPETITIONS: Final = 3
_STEPS: Final = 50
_RECORDED_STEPS: Final = 90
_TRACED_STEPS: Final = 3
"""Steps under torch's profiler, after the tenth: where calls of collectives are seen; most bytes of a stored case."""

_SLOW_LINK_STEPS: Final = 15
"""A step over a slow link takes a third of a second: fewer of them, of which the ten that a rank comparison needs remain."""

_SLOW_LINK_RECORDED_STEPS: Final = 36
_SLOW_LINK_TRACED_STEPS: Final = 12
"""A bandwidth is told from ten calls of one size at least (detectors.md 3), and such a step has one."""

_LARGEST_EXCHANGE: Final = 0.05
"""Of a healthy step that exchanging gradients may take, against the same training that exchanges none."""


def cases(split: Split) -> Iterator[Case]:
    """All cases of a split: workloads x settings x faults x doses, and the controls."""
    for workload in (each for each in WORKLOADS if each.split == split):
        for setting in workload.settings:
            for fault in FAULTS:
                for dose in fault.doses[split]:
                    yield Case("ranks", workload.name, setting, split, (fault.id,), dose)
            for control in CONTROLS:
                yield Case("ranks", workload.name, setting, split, control=control.id)


def measure(case: Case, folder: Path) -> Measured:
    """Record the training of a case into a folder, and measure what its cause takes.

    Parameters
    ----------
    case
        Of kind "ranks".
    folder
        Where the run goes: run/rank0/ and run/rank1/ in it.

    Returns
    -------
    Measured
        One truth for a fault. A control is certified by what exchanging gradients takes of its step.

    Raises
    ------
    NotPermittedError
        If the fault cannot be made on this machine.
    RuntimeError
        If a rank failed; its last words.
    """
    sides = sides_of(case)
    links = "slow_link" in case.faults
    sleeps = float(case.dose) if case.faults == ("rank_loader_sleep",) and isinstance(case.dose, float) else 0.0
    spec = {
        "sides": {side: training.as_json() for side, training in zip(SIDES, sides, strict=True)},
        "sleep_share": sleeps,
        "repetitions": _REPETITIONS,
        "steps": _SLOW_LINK_STEPS if links else _STEPS,
        "recorded_steps": _SLOW_LINK_RECORDED_STEPS if links else _RECORDED_STEPS,
        "traced_steps": _SLOW_LINK_TRACED_STEPS if links else _TRACED_STEPS,
        "config": config_of(sides[0]),
        "folder": str(folder.absolute() / "run"),
    }
    answer = _run(spec, own_network=links)
    measured = _measured(case, answer["blocks"])
    return replace(measured, notes=(*measured.notes, *slim_traces(folder / "run")))


def _run(spec: Mapping[str, Any], *, own_network: bool) -> dict[str, Any]:
    """Run the job of both ranks; it and all its processes are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="perfnb-ranks-") as scratch:
        file, answer = Path(scratch) / "spec.json", Path(scratch) / "answer.json"
        file.write_text(json.dumps({**spec, "answer": str(answer), "parent": os.getpid()}), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.detection.ranks_job", str(file)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        if own_network:
            command, environment["PERFNB_OWN_NETWORK"] = in_own_network(command), "1"
        told = Path(scratch) / "words.txt"
        with told.open("wb") as words:
            job = subprocess.Popen(  # noqa: S603 - this interpreter on a module of this package
                command, stdout=words, stderr=words, env=environment, cwd=REPOSITORY, start_new_session=True
            )
            try:
                code = job.wait(_LIMIT_S)
            except subprocess.TimeoutExpired as error:
                message = f"the ranks took longer than {_LIMIT_S:.0f} s"
                raise RuntimeError(message) from error
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job.pid, signal.SIGKILL)
                job.wait()
        if code != 0 or not answer.exists():
            message = f"the ranks ended with {code}: {told.read_text(encoding='utf-8', errors='replace').strip()[-600:]}"
            raise RuntimeError(message)
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def _measured(case: Case, blocks: Sequence[Mapping[str, Any]]) -> Measured:
    clock: Clock = FAULT_BY_ID[case.faults[0]].clock if case.faults else "wall"
    own = {side: _block_means(blocks, side) for side in SIDES}
    with_us, without_us = (statistics.fmean(own[side]) for side in SIDES)
    shares = tuple(1 - without / with_ for with_, without in zip(own["with"], own["without"], strict=True))
    share = 1 - without_us / with_us
    seen = {**_seen(blocks, "without"), "own_us": without_us}
    notes = ("wall time less what the rank that waited longest for a core waited: two ranks that wait in turn count once",)
    if case.faults:
        return Measured((Truth(case.faults[0], clock, share, with_us, without_us, shares),), seen, notes=notes)
    # What the loader takes is not measured: its samples lie in memory, as those do that others are held against.
    certified = {"data_share": float("nan"), "exchange_share": share, "is_certified": share < _LARGEST_EXCHANGE}
    return Measured((), {**_seen(blocks, "with"), "own_us": with_us}, certified, notes)


def _block_means(blocks: Sequence[Mapping[str, Any]], side: str) -> list[float]:
    """Own time of a step, in us, of each block of a side."""
    return [own_us(ranks) for ranks in zip(*(_of(blocks, side, rank) for rank in range(RANKS)), strict=True)]


def _of(blocks: Sequence[Mapping[str, Any]], side: str, rank: int) -> list[Any]:
    return [np.array(each["steps"], dtype=np.float64) for each in blocks if each["side"] == side and each["rank"] == rank]


def _seen(blocks: Sequence[Mapping[str, Any]], side: str) -> dict[str, float]:
    steps = np.concatenate([each for rank in range(RANKS) for each in _of(blocks, side, rank)])
    return {"wall_us": float(steps[:, 0].mean() / 1e3), "runqueue_share": float(steps[:, 2].sum() / steps[:, 0].sum())}


__all__ = ["CONTROLS", "FAULTS", "WORKLOADS", "cases", "measure"]
