"""Checks of speed: CPU time of what a notebook waits for, with limits that a slow laptop keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import perfnb
from perfnb.config.json_file import read_config
from perfnb.validate.check import NotAsExpected, Planned
from perfnb.validate.samples import run_of_sample, sample

GROUP: Final = "speed (CPU time)"

SLOWEST_READING_PER_S: Final = 20_000.0
LONGEST_DIAGNOSIS_S: Final = 15.0
LONGEST_PREVIEW_S: Final = 0.5
"""Choices: about ten times what a machine of 2024 takes, so that only an installation that is broken fails."""

_TRIES: Final = 5
_SLOW: Final = "an interpreter under a debugger or coverage is as slow; else compare the versions of pandas and numpy"


def planned() -> list[Planned]:
    """The checks."""
    return [
        Planned(GROUP, "reading a trace", _reading),
        Planned(GROUP, "diagnosing", _diagnosing),
        Planned(GROUP, "predicting, as a slider does", _predicting),
    ]


def _reading() -> str:
    folder = sample("slow_loader")
    seconds, run = _taken(lambda: perfnb.read_trace(folder))
    rate = (len(run.host_ops) + len(run.device_ops)) / seconds
    if rate < SLOWEST_READING_PER_S:
        found = f"{rate:,.0f} events per second, {SLOWEST_READING_PER_S:,.0f} are the least"
        raise NotAsExpected(found, f"pip install 'perfnb[fast]'; {_SLOW}")
    return f"{rate:,.0f} events per second"


def _diagnosing() -> str:
    seconds, _ = _taken(lambda: perfnb.diagnose(run_of_sample("slow_loader")))
    return _within(seconds, LONGEST_DIAGNOSIS_S)


def _predicting() -> str:
    run, config = run_of_sample("slow_loader"), read_config(sample("slow_loader") / "config.json")
    times = [_taken(lambda: perfnb.predict(run, {"num_workers": 4}, config, draws=10))[0] for _ in range(_TRIES)]
    return _within(sorted(times)[_TRIES // 2], LONGEST_PREVIEW_S)


def _taken(look: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    value = look()
    return max(time.process_time() - begin, 1e-6), value


def _within(seconds: float, limit: float) -> str:
    if seconds > limit:
        found = f"{seconds:.2f} s, {limit:g} s are the most"
        raise NotAsExpected(found, _SLOW)
    return f"{seconds * 1000:.0f} ms"
