"""Profiler recordings: records one, takes out what names the machine, and reads the cause's share back from it."""

import gzip
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, schedule

from benchmarks.samples.ranks import this_rank
from benchmarks.samples.training import prepare, training_steps
from benchmarks.samples.workloads import Config

WAIT_STEPS, WARMUP_STEPS = 2, 3
STEPS_LEFT_OVER = 8  # the epoch goes on after the last recorded step, so that loader workers do not run dry in it

Event = dict[str, Any]
Span = tuple[float, float]


def record_trace(config: Config, active_steps: int) -> str:
    """Text of a Chrome trace of real training, without host name and machine paths.

    Parameters
    ----------
    config
        Configuration of the run.
    active_steps
        Steps in the trace; 5 run before them, unrecorded.

    Returns
    -------
    str
        The JSON that torch.profiler exports; apart from its name and the host's, untouched.
    """
    setup = prepare(config, WAIT_STEPS + WARMUP_STEPS + active_steps + STEPS_LEFT_OVER)
    with (
        tempfile.TemporaryDirectory() as folder,
        profile(
            activities=[ProfilerActivity.CPU],
            schedule=schedule(wait=WAIT_STEPS, warmup=WARMUP_STEPS, active=active_steps, repeat=1),
        ) as profiler,
    ):
        for step in training_steps(setup):
            profiler.step()
            if step + 1 == WAIT_STEPS + WARMUP_STEPS + active_steps:
                break
        profiler.stop()
        path = Path(folder) / f"rank{this_rank()}.pt.trace.json"
        profiler.export_chrome_trace(str(path))
        return clean(path.read_text())


def clean(text: str) -> str:
    """The same trace with its name cut to the file's name and the host's name left empty."""
    text = re.sub(r'("traceName": ")[^"]*?([^"/]*")', r"\1\2", text)
    return re.sub(r'("host_name": ")[^"]*"', r'\1"', text)


def write_trace(text: str, path: Path) -> None:
    """Write a trace compressed, with the same bytes for the same text."""
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def profiled_step_us(text: str) -> list[float]:
    """Duration of each recorded step."""
    return [float(step["dur"]) for step in _steps(_events(text))]


def profiled_share(texts: list[str], detector: str | None) -> float:
    """Share of the recorded steps that the cause takes, as the profile shows it.

    Parameters
    ----------
    texts
        Traces of all ranks.
    detector
        Which cause to look for; for None the loader and everything after the optimizer count together.

    Returns
    -------
    float
        Summed over steps.
    """
    ranks = [_events(text) for text in texts]
    total_us = sum(profiled_step_us(texts[0]))
    if detector == "slow_rank":
        work_us = [_work_us(events) for events in ranks]
        behind_us: list[float] = [max(step) - sum(step) / len(step) for step in zip(*work_us, strict=True)]
        return sum(behind_us) / total_us
    loader_us = sum(_loader_us(ranks[0]))
    logging_us = sum(_after_optimizer_us(ranks[0]))
    lost_us = {"data_stall": loader_us, "python_overhead": logging_us, None: loader_us + logging_us}[detector]
    return float(lost_us / total_us)


def _events(text: str) -> list[Event]:
    return [event for event in json.loads(text)["traceEvents"] if event.get("ph") == "X"]


def _steps(events: list[Event]) -> list[Event]:
    steps = [event for event in events if event["name"].startswith("ProfilerStep#")]
    return sorted(steps, key=lambda event: float(event["ts"]))


def _loader_us(events: list[Event]) -> list[float]:
    waits = [event for event in events if event["name"].startswith("enumerate(DataLoader)")]
    return [sum(wait["dur"] for wait in waits if _within(wait, step)) for step in _steps(events)]


def _after_optimizer_us(events: list[Event]) -> list[float]:
    updates = [event for event in events if event["name"].startswith("Optimizer.step#")]
    ends = [(step, max(_span(update)[1] for update in updates if _within(update, step))) for step in _steps(events)]
    return [_span(step)[1] - end for step, end in ends]


def _work_us(events: list[Event]) -> list[float]:
    """Each step without the time in which a collective runs and the training thread runs no operator."""
    works: list[float] = []
    for step in _steps(events):
        inside = [event for event in events if _within(event, step)]
        exchange = [_span(event) for event in inside if event["name"].startswith("gloo:")]
        compute = [_span(event) for event in inside if event["cat"] == "cpu_op" and event["tid"] == step["tid"]]
        waiting_us = _union_us(exchange + compute) - _union_us(compute)
        works.append(float(step["dur"]) - waiting_us)
    return works


def _span(event: Event) -> Span:
    start_us = float(event["ts"])
    return start_us, start_us + float(event["dur"])


def _within(event: Event, step: Event) -> bool:
    start, end = _span(step)
    return bool(start <= event["ts"] < end) and event is not step


def _union_us(spans: list[Span]) -> float:
    total_us, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total_us += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total_us
