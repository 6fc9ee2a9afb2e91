"""One reading of many ranks in a fresh process: `python rank_job.py WAY WORKERS FILE...` prints what it and its workers cost."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import psutil

import perfnb
from benchmarks.reading.measured import MARK, memory_bytes
from benchmarks.reading.warm import read_once

WAYS: Final = ("in-process", "process pool", "dask")
_PYTHON_PROGRAMS: Final = ("resource_tracker", "semaphore_tracker")


def summarised(paths: Sequence[Path], executor: Executor | None) -> perfnb.RankSummary:
    """Summaries of all ranks."""
    return perfnb.summarize_ranks(*paths, executor=executor)


@contextmanager
def executor_of(way: str, workers: int) -> Iterator[Executor | None]:
    """What runs the tasks; everything of it is gone at the end."""
    if way == "process pool":
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    elif way == "dask":
        from distributed import Client, LocalCluster  # noqa: PLC0415 - an optional dependency of this one way

        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
            Client(cluster) as client,  # type: ignore[no-untyped-call]
            client.get_executor() as executor,
        ):
            yield executor
    else:
        yield None


def digest(answer: Any) -> str:
    """Hash of every table that an answer holds, so that ways can be compared."""
    found = hashlib.sha256()
    for name, frame in sorted(_frames(answer)):
        plain = frame.astype({column: object for column, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)})
        found.update(name.encode())
        found.update(plain.to_csv(index=False, float_format="%.17g").encode())
    return found.hexdigest()[:16]


def main(words: list[str]) -> int:
    """Read and summarise, then print wall and CPU time, and the peak memory of this process and of each worker."""
    way, workers, *files = words
    with executor_of(way, int(workers)) as executor:
        if executor is not None:
            list(executor.map(read_once, [Path(files[0])] * 2 * int(workers)))
        summarised([Path(file) for file in files[: int(workers)]], executor)
        rests = {process.pid: memory_bytes("VmRSS", process.pid) for process in _workers(int(workers))}
        own_rest = memory_bytes("VmRSS")
        cpu, wall = _cpu_s(int(workers)), time.perf_counter()
        answer = summarised([Path(file) for file in files], executor)
        wall = time.perf_counter() - wall
        cpu = _cpu_s(int(workers)) - cpu
        growth = {pid: memory_bytes("VmHWM", pid) - rest for pid, rest in rests.items()}
        own_growth = memory_bytes("VmHWM") - own_rest
    cost = {
        "wall_s": wall,
        "cpu_s": cpu,
        "parent_growth_bytes": own_growth,
        "worker_growth_bytes": max(growth.values(), default=0),
        "worker_peak_bytes": max((rests[pid] + growth[pid] for pid in rests), default=0),
        "digest": digest(answer),
        "api": "perfnb.summarize_ranks",
    }
    print(MARK + json.dumps(cost))
    return 0


def _workers(most: int) -> list[psutil.Process]:
    """The processes that do the work: the largest children, without Python's own trackers."""
    children = psutil.Process().children(recursive=True)
    found = [each for each in children if not any(word in " ".join(each.cmdline()) for word in _PYTHON_PROGRAMS)]
    return sorted(found, key=lambda each: -each.memory_info().rss)[:most]


def _cpu_s(workers: int) -> float:
    times = [process.cpu_times() for process in (psutil.Process(), *_workers(workers))]
    return float(sum(each.user + each.system for each in times))


def _frames(answer: Any, name: str = "") -> Iterator[tuple[str, pd.DataFrame]]:
    if isinstance(answer, pd.DataFrame):
        yield name, answer
    elif isinstance(answer, dict):
        for key, value in answer.items():
            yield from _frames(value, f"{name}.{key}")
    elif isinstance(answer, list | tuple):
        for number, value in enumerate(answer):
            yield from _frames(value, f"{name}[{number}]")
    elif is_dataclass(answer) and not isinstance(answer, type):
        for each in fields(answer):
            yield from _frames(getattr(answer, each.name), f"{name}.{each.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
