"""One measurement in a fresh process: `python measured.py SIDE TINY FILE [RANKED FILES]` prints what it cost as JSON.

It runs under any interpreter: nothing but the standard library is imported before a side is chosen, so that the peer's own
environment can run it too. Imports and one reading of the tiny trace (lazy imports, compiled code from its cache) come before
the measurement and are reported apart.
"""

from __future__ import annotations

import gzip
import importlib.util
import inspect
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MARK: Final = "measured: "
ABSENT: Final = "absent: "
_CLEAR_PEAK: Final = "5"  # proc(5), clear_refs: resets VmHWM to VmRSS

Task = Callable[[list[str]], Any]


class AbsentError(Exception):
    """A side cannot run in this interpreter: the message says why."""


def cpu_s() -> float:
    """User and system seconds of this process and of the children it waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def memory_bytes(key: str, pid: int | str = "self") -> int:
    """A size that the kernel states of a process: VmRSS, VmHWM (peak of VmRSS), VmSize."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def clear_peak() -> bool:
    """Make VmHWM start anew; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    except OSError:
        return False
    return True


def measure(task: Task, tiny: str, files: list[str]) -> dict[str, float]:
    """Cost of a task on files, after it has done the tiny one."""
    before = cpu_s()
    task([tiny])
    startup = cpu_s() - before
    clear_peak()
    rss, cpu, wall = memory_bytes("VmRSS"), cpu_s(), time.perf_counter()
    answer = task(files)
    wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
    peak = memory_bytes("VmHWM") - rss
    return {"cpu_s": cpu, "wall_s": wall, "peak_growth_bytes": peak, "startup_cpu_s": startup, "rows": rows_of(answer)}


def rows_of(answer: Any) -> int:
    """How many events a side kept."""
    if isinstance(answer, dict):  # the JSON sides keep every entry
        return len(answer["traceEvents"])
    if isinstance(answer, list):
        return len(answer)
    if hasattr(answer, "host_ops"):
        return len(answer.host_ops) + len(answer.device_ops)
    return sum(len(frame) for frame in answer.t.traces.values())


def ours(parser: str | None) -> Task:
    """Our reader and the join of device work to its launch calls."""
    from perfnb.launches import launches  # noqa: PLC0415 - only the chosen side is imported
    from perfnb.read.kineto import read_kineto  # noqa: PLC0415

    chooses = "parser" in inspect.signature(read_kineto).parameters
    if parser != "msgspec" and not chooses:
        message = "read_kineto has no parameter `parser`: there is one tier only"
        raise AbsentError(message)
    if parser == "numba" and not importlib.util.find_spec("numba"):
        message = "numba is not installed (extra `fast`)"
        raise AbsentError(message)
    options: dict[str, Any] = {"parser": parser} if chooses else {}

    def read(files: list[str]) -> Any:
        run = read_kineto(*files, **options)
        launches(run)
        return run

    return read


def hta() -> Task:
    """HTA as shipped: what `TraceAnalysis(...)` does before the first question."""
    logging.disable(logging.CRITICAL)
    try:
        from hta.trace_analysis import TraceAnalysis  # type: ignore[import-not-found]  # noqa: PLC0415 - the peer's environment only
    except ImportError as error:
        message = f"this interpreter has no HTA ({error}): name one in --peer-python"
        raise AbsentError(message) from error

    def load(files: list[str]) -> Any:
        return TraceAnalysis(trace_files=dict(enumerate(files)), trace_dir="")

    return load


def document(module: str) -> Task:
    """Gunzip, then the whole document as Python objects; no table."""
    try:
        loads = __import__(module).loads
    except ImportError as error:
        message = f"this interpreter has no {module}"
        raise AbsentError(message) from error

    def read(files: list[str]) -> Any:
        content = Path(files[0]).read_bytes()
        return loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)

    return read


TASKS: Final[dict[str, Callable[[], Task]]] = {
    "default": lambda: ours("msgspec"),
    "fast": lambda: ours("numba"),
    "auto": lambda: ours("auto"),
    "hta": hta,
    "json": lambda: document("json"),
    "orjson": lambda: document("orjson"),
}


def main(words: list[str]) -> int:
    """Run one side and print its cost, or that it is absent."""
    side, tiny, *files = words
    os.environ.setdefault("TQDM_DISABLE", "1")
    before = cpu_s()
    try:
        task = TASKS[side]()
        imported = cpu_s() - before
        answer = measure(task, tiny, files)
    except AbsentError as error:
        print(f"{ABSENT}{error}")
        return 0
    answer["startup_cpu_s"] += imported
    print(MARK + json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
