"""The processes of two ranks: `python -m benchmarks.detection.ranks_job SPEC` trains and records as the file SPEC says."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing

import perfnb
from benchmarks.detection.ranks_link import limit
from benchmarks.detection.ranks_training import Setup, Training, prepare

RANKS: Final = 2
SIDES: Final = ("with", "without")
DROPPED: Final = 5
"""First steps of each block that are left out: caches are cold, and the other side's rest is still under way."""

_PEER_LIMIT: Final = timedelta(seconds=60)
_DIES_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_CALIBRATION_STEPS: Final = 25
_RUNQUEUE: Final = 1  # second field of schedstat: time on a run queue


def main(words: list[str]) -> int:
    """Start the ranks and wait for them; whatever fails ends both."""
    told = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    end_with_parent(int(told["parent"]))
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        multiprocessing.spawn(_rank, args=(meeting, {**told, "parent": os.getpid()}), nprocs=RANKS)
    return 0


def end_with_parent(parent: int | None) -> None:
    """Have this process die when the one that started it does: no orphan trains on.

    Parameters
    ----------
    parent
        Number of the process that started it, which may have ended before we came to ask; None where it is not known.
    """
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        sys.exit("whoever started this has ended")


def _rank(rank: int, meeting: str, told: Mapping[str, Any]) -> None:
    end_with_parent(int(told["parent"]))
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS), GLOO_SOCKET_IFNAME="lo")  # lo: own host name need not resolve
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS, timeout=_PEER_LIMIT)
    try:
        _measure(rank, told)
    finally:
        dist.destroy_process_group()


def _measure(rank: int, told: Mapping[str, Any]) -> None:
    """Calibrate, train both sides in turn, then record the side with the cause."""
    sides = {side: Training.from_json(told["sides"][side]) for side in SIDES}
    if told["sleep_share"]:
        share = float(told["sleep_share"])
        pause_s = _mean_step_s(prepare(sides["without"], rank)) * share / (1 - share)
        sides["with"] = sides["with"].sleeping(pause_s, rank=1)
    setups = {side: prepare(training, rank) for side, training in sides.items()}
    blocks = []
    for number in range(2 * int(told["repetitions"])):
        side = SIDES[(number + number // 2) % 2]  # with, without, without, with, ...: a drift falls on both
        blocks.append({"side": side, "rank": rank, "steps": _block(setups[side], int(told["steps"]))})
    _limited(sides["with"], rank)
    config = {**told["config"], "world_size": RANKS, "backend": "gloo"}
    setup = prepare(sides["with"], rank)
    with perfnb.record(told["folder"], config=config, trace=int(told["traced_steps"])):
        for _ in setup.steps(int(told["recorded_steps"])):
            pass
    everything: list[Any] = [None] * RANKS
    dist.all_gather_object(everything, blocks)
    if rank == 0:
        answer = {"blocks": [block for each in everything for block in each], "sleep_s": sides["with"].sleep_s}
        Path(told["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def own_us(ranks: Sequence[Any]) -> float:
    """Mean step of all ranks that is their own, in us, without its slowest and fastest fifth.

    A step's own time is its wall time less what the rank that waited longest for a core waited. Every step has the cause alike,
    so that the fifths hold what others on the machine did.

    Parameters
    ----------
    ranks
        Rows of wall, CPU and run-queue time in ns, one per step, of each rank.

    Examples
    --------
    >>> first = [[10_000, 8_000, 0]] * 5
    >>> second = [[10_000, 6_000, 3_000]] * 4 + [[90_000, 6_000, 3_000]]
    >>> own_us([first, second])
    7.0
    """
    steps = np.array(ranks, dtype=np.float64)
    own = np.sort(steps[:, :, 0].mean(axis=0) - steps[:, :, 2].max(axis=0))
    fifth = len(own) // 5
    return float(own[fifth : len(own) - fifth].mean()) / 1e3


def _mean_step_s(setup: Setup) -> float:
    """Mean step, the same number on every rank: they agree on it."""
    everything: list[Any] = [None] * RANKS
    dist.all_gather_object(everything, _block(setup, _CALIBRATION_STEPS))
    return own_us(everything) / 1e6


def _limited(training: Training, rank: int) -> None:
    """Set the rate of the link, if this job has a network of its own; both ranks see it set."""
    if rank == 0 and os.environ.get("PERFNB_OWN_NETWORK"):
        limit(training.link_bit_per_s)
    dist.barrier()


def _block(setup: Setup, steps: int) -> list[tuple[int, int, int]]:
    """Wall, CPU and run-queue time of each kept step of one side, in ns, of the thread that trains."""
    _limited(setup.training, setup.rank)
    kept = []
    with Path("/proc/thread-self/schedstat").open("rb", buffering=0) as schedstat:
        before = _now(schedstat)
        for step in setup.steps(steps + DROPPED):
            after = _now(schedstat)
            if step >= DROPPED:
                kept.append((after[0] - before[0], after[1] - before[1], after[2] - before[2]))
            before = after
    return kept


def _now(schedstat: Any) -> tuple[int, int, int]:
    schedstat.seek(0)
    return time.perf_counter_ns(), time.thread_time_ns(), int(schedstat.read().split()[_RUNQUEUE])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
