"""Runs a training in processes of its own, as applying a config means to start anew, and measures what ran beside it."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch

import perfnb
from benchmarks.detection.ranks_job import end_with_parent
from benchmarks.prediction.job import Trial, train
from perfnb.record.collective_probe import probe_collectives
from perfnb.run import Run

LONGEST_S: Final = 120.0
"""A run that takes longer is ended: its pair counts as not run."""

LINK: Final = "link.json"
_PEER_LIMIT: Final = timedelta(seconds=60)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Around:
    """What ran on the machine meanwhile.

    Attributes
    ----------
    pressure
        Share of the time in which some task waited for a core (PSI "some", from its running total).
    foreign_cores
        Cores that processes of others used, time stolen by the hypervisor included.
    yielding_cores
        Of these, what ran at a lower priority (nice above 0) and so gives way at once; it shares caches and memory all the same.
    seconds
        How long.
    """

    pressure: float
    foreign_cores: float
    yielding_cores: float
    seconds: float


class _Clock:
    """Readings of the machine's counters, to be told from those of this process and its children."""

    def __init__(self) -> None:
        self._began = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float, float, float]:
        busy = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(each.ru_utime + each.ru_stime for each in used)
        pressed = int(Path("/proc/pressure/cpu").read_text(encoding="ascii").split("total=", 1)[1].split()[0])
        yielding = busy[1] / _TICKS - (own if os.nice(0) > 0 else 0.0)
        return time.monotonic(), (sum(busy) - busy[3] - busy[4]) / _TICKS, own, pressed / 1e6, yielding

    def around(self) -> Around:
        """What happened since it was made."""
        passed = [now - then for now, then in zip(self._read(), self._began, strict=True)]
        seconds, busy, own, pressed, yielding = passed
        return Around(min(pressed / seconds, 1.0), max(busy - own, 0.0) / seconds, max(yielding, 0.0) / seconds, seconds)


def idle(over_s: float) -> Around:
    """What runs on the machine while this process sleeps."""
    clock = _Clock()
    time.sleep(over_s)
    return clock.around()


def run_trial(trial: Trial, folder: Path) -> tuple[Run, Around]:
    """The run of a training, read back from where it was recorded, and what ran beside it.

    Parameters
    ----------
    trial
        What to train.
    folder
        Its files go there; what was there is removed.

    Raises
    ------
    RuntimeError
        If a rank failed; its last words.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clock = _Clock()
    apart(_rank, trial, folder, count=trial.workload.world_size)
    around = clock.around()
    return perfnb.read_run(folder / "run"), around


def link_times(folder: Path) -> list[dict[str, Any]]:
    """What the ranks of a trial found of their link; none where there is but one."""
    path = folder / LINK
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def apart(work: Callable[..., Any], *given: Any, count: int = 1) -> list[Any]:
    """What a function answers in forked processes, each called with what is given and its number.

    Raises
    ------
    RuntimeError
        If one failed or took too long; all are ended then.
    """
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_told, args=(pipes[number][1], os.getpid(), work, *given, number)) for number in range(count)
    ]
    for process, (_, out) in zip(processes, pipes, strict=True):
        process.start()
        out.close()
    until = time.monotonic() + LONGEST_S
    answers: list[Any] = []
    try:
        for inward, _ in pipes:
            if not inward.poll(max(until - time.monotonic(), 0.0)):
                message = f"a run took longer than {LONGEST_S:.0f} s"
                raise RuntimeError(message)
            try:
                is_good, answer = inward.recv()
            except EOFError as error:
                message = "a process of the run ended without a word"
                raise RuntimeError(message) from error
            if not is_good:
                raise RuntimeError(answer)
            answers.append(answer)
        for process in processes:
            process.join(LONGEST_S)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()
        for inward, _ in pipes:
            inward.close()
    return answers


def _told(out: Any, parent: int, work: Callable[..., Any], *given: Any) -> None:
    end_with_parent(parent)
    try:
        out.send((True, work(*given)))
    except BaseException as error:  # noqa: BLE001 - whatever it was, the process that waits is told
        last = traceback.format_exc(limit=-3)
        out.send((False, f"{type(error).__name__}: {error}\n{last}"))
        out.close()
        sys.exit(1)


def _rank(trial: Trial, folder: Path, rank: int) -> None:
    os.chdir(folder)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    ranks = trial.workload.world_size
    if ranks == 1:
        train(trial, folder)
        return
    import torch.distributed as dist  # noqa: PLC0415 - of ranks only

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), GLOO_SOCKET_IFNAME="lo")  # own host name need not resolve
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks, timeout=_PEER_LIMIT)
    try:
        if trial.probes_link:
            torch.set_num_threads(1)
            times = probe_collectives(dtypes=("float32", "float16"))
            if rank == 0:
                (folder / LINK).write_text(json.dumps(times), encoding="utf-8")
        train(trial, folder, rank)
    finally:
        dist.destroy_process_group()
