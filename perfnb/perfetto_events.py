"""The events of a Perfetto file: the rows of a run, and tracks of what perfnb found in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, groupby
from typing import Any, Final, cast

import msgspec
import pandas as pd

from perfnb.analyses.idle_gaps import idle_gaps
from perfnb.diagnose import diagnose
from perfnb.errors import NoStepsError
from perfnb.ledger import step_ledger
from perfnb.run import Run

_HOST_CATEGORIES: Final = {  # ours -> Kineto's, so that the file reads back as the trace that it came from
    "operator": "cpu_op",
    "annotation": "user_annotation",
    "runtime": "cuda_runtime",
    "synchronization": "cuda_sync",
    "python": "python_function",
}
_DEVICE_CATEGORIES: Final = {"compute": "kernel", "communication": "kernel", "copy": "gpu_memcpy", "memset": "gpu_memset"}
_OURS: Final = "perfnb"
_PROCESSES_PER_RANK: Final = 1000  # numbers that the processes and devices of one rank may take
_OUR_PROCESS, _FIRST_DEVICE, _FIRST_HOST = 0, 1, 500  # by number within a rank
_LONGEST_NUMBER: Final = 16  # digits of a thread's number that JSON readers keep exactly


def trace_text(run: Run) -> Iterator[bytes]:
    """The trace, event by event: what is written one after the other is the file."""
    info = {"distributedInfo": {"rank": run.ranks[0], "world_size": run.world_size}} if len(run.ranks) == 1 else {}
    yield msgspec.json.encode({"schemaVersion": 1, "displayTimeUnit": "ms", **info})[:-1] + b',"traceEvents":[\n'
    first = True
    for part in (_names(run), _host(run), _device(run), _steps(run), _idle(run), _ledger(run), _findings(run)):
        for event in part:
            yield event if first else b",\n" + event
            first = False
    yield b"\n]}\n"


def _names(run: Run) -> Iterator[bytes]:
    """What each process and thread is called."""
    for rank, process, number in _host_processes(run).itertuples(index=False):
        yield _named("process_name", _process(rank, _FIRST_HOST + number), 0, f"rank {rank}: host process {process}")
    threads = run.host_ops[["rank", "process", "thread"]].drop_duplicates().merge(_host_processes(run), on=["rank", "process"])
    numbers = _thread_numbers(run)
    for rank, _, thread, number in threads.itertuples(index=False):
        yield _named("thread_name", _process(rank, _FIRST_HOST + number), numbers[str(thread)], f"thread {thread}")
    for rank, device, number in _devices(run).itertuples(index=False):
        shown = "unknown device" if device is pd.NA else f"device {device}"
        yield _named("process_name", _device_process(rank, device, number), 0, f"rank {rank}: {shown}")
    for rank in run.ranks:
        yield _named("process_name", _process(rank, _OUR_PROCESS), 0, f"rank {rank}: perfnb")


def _host(run: Run) -> Iterator[bytes]:
    host = run.host_ops.merge(_host_processes(run), how="left", on=["rank", "process"])
    threads = host["thread"].astype("object").map(_thread_numbers(run))
    names, categories = _encoded(host["name"]), _encoded(host["category"], _HOST_CATEGORIES)
    arguments = zip(host["correlation"], host["stream"], host["sequence"], strict=True)
    times = zip(host["start_us"], host["duration_us"], strict=True)
    rows = zip(host["rank"], host["number"], threads, names, categories, times, arguments, strict=True)
    for rank, process, thread, name, category, (start, duration), (correlation, stream, sequence) in rows:
        known = {"correlation": correlation, "stream": stream, "Sequence number": sequence}
        yield _slice(name, category, _process(rank, _FIRST_HOST + process), thread, start, duration, known)


def _device(run: Run) -> Iterator[bytes]:
    ops = run.device_ops
    names, categories = _encoded(ops["name"]), _encoded(ops["kind"], _DEVICE_CATEGORIES)
    times = zip(ops["start_us"], ops["duration_us"], strict=True)
    processes = {(row[0], row[1]): _device_process(*row) for row in _devices(run).itertuples(index=False)}
    rows = zip(ops["rank"], ops["device"], ops["stream"], names, categories, times, ops["correlation"], ops["bytes"], strict=True)
    for rank, device, stream, name, category, (start, duration), correlation, size in rows:
        process = processes[rank, device]
        thread = 0 if pd.isna(stream) else int(stream)
        known = {"device": device, "stream": stream, "correlation": correlation, "bytes": size}
        yield _slice(name, category, process, thread, start, duration, known)


def _steps(run: Run) -> Iterator[bytes]:
    numbers = count()
    for rank, step, start, duration in run.steps[["rank", "step", "start_us", "duration_us"]].itertuples(index=False):
        yield from _span("steps", f"step {step}", rank, next(numbers), start, duration, {})


def _idle(run: Run) -> Iterator[bytes]:
    """Each gap as a slice named by the cause that takes most of it, with all its causes."""
    gaps = idle_gaps(run)
    if gaps.empty:
        return
    numbers = count()
    columns = ["rank", "device", "gap", "start_us", "duration_us", "cause", "time_us"]
    rows = gaps[columns].astype({"cause": "object"}).itertuples(index=False)
    for (rank, device, _, start, duration), own in groupby(rows, key=lambda row: row[:5]):
        causes = {f"{row[5]}_us": row[6] for row in own}
        main = max(causes, key=lambda cause: causes[cause]).removesuffix("_us")
        yield from _span(f"idle, device {device}", f"idle: {main}", rank, next(numbers), start, duration, causes)


def _ledger(run: Run) -> Iterator[bytes]:
    """The parts of each step as one counter that holds from its start to its end."""
    try:
        ledger = step_ledger(run)
    except NoStepsError:
        return
    averaged = ledger.groupby(["rank", "step", "part"], sort=False)["time_us"].mean()  # over the devices of one rank
    for rank, step, start, duration in run.steps[["rank", "step", "start_us", "duration_us"]].itertuples(index=False):
        parts = averaged.loc[rank, step] if (rank, step) in averaged.index else pd.Series(dtype="float64")
        for time, values in ((start, parts), (start + duration, parts * 0)):
            process = _process(rank, _OUR_PROCESS)
            yield _event("C", _json("ledger (us per step)"), process, 0, time, f',"args":{_json(values.to_dict())}')


def _findings(run: Run) -> Iterator[bytes]:
    """Each finding as a slice from the first to the last step that it was measured on."""
    numbers = count()
    for finding in diagnose(run).found:
        own = run.steps[run.steps["rank"].isin(finding.ranks) & run.steps["step"].isin(finding.steps)]
        known = {
            "severity_share": finding.severity,
            "low_share": finding.low,
            "high_share": finding.high,
            "lost_us_per_step": finding.lost_us,
            "confidence": f"{finding.confidence:.2f} ({finding.record})",
            "summary": finding.summary,
        }
        for rank, steps in own.groupby("rank"):
            start = float(steps["start_us"].min())
            end = float((steps["start_us"] + steps["duration_us"]).max())
            name = finding.detector.replace("_", " ")
            yield from _span("findings", name, cast("int", rank), next(numbers), start, end - start, known)


def _slice(
    name: str, category: str, process: int | str, thread: int, start: float, duration: float, known: dict[str, Any]
) -> bytes:
    arguments = _json({key: int(value) for key, value in known.items() if value is not pd.NA})
    return _event("X", name, process, thread, start, f',"dur":{duration:.3f},"cat":{category},"args":{arguments}')


def _span(track: str, name: str, rank: int, number: int, start: float, duration: float, known: dict[str, Any]) -> Iterator[bytes]:
    """A slice of one of our tracks; slices of a track that overlap stand below one another."""
    process = _process(rank, _OUR_PROCESS)
    common = f',"cat":{_json(f"{_OURS} {track}")},"id":{number}'
    yield _event("b", _json(name), process, 0, start, f'{common},"args":{_json(known)}')
    yield _event("e", _json(name), process, 0, start + duration, common)


def _event(phase: str, name: str, process: int | str, thread: int, start: float, rest: str) -> bytes:
    """One event; times have three decimals, so that no nanosecond is lost."""
    return f'{{"ph":"{phase}","name":{name},"pid":{process},"tid":{thread},"ts":{start:.3f}{rest}}}'.encode()


def _named(what: str, process: int | str, thread: int, name: str) -> bytes:
    return _event("M", _json(what), process, thread, 0.0, f',"args":{_json({"name": name})}')


def _encoded(column: pd.Series, other: dict[str, str] | None = None) -> list[str]:
    """JSON text of each row, made once per distinct text."""
    texts = column.astype("category")
    encoded = [_json((other or {}).get(text, text)) for text in texts.cat.categories]
    return [encoded[code] for code in texts.cat.codes]


def _json(value: Any) -> str:
    """JSON that no name can leave: also `</script>` is written with an escape."""
    return msgspec.json.encode(value).decode().replace("</", "<\\/")


def _process(rank: int, number: int) -> int:
    return int(rank) * _PROCESSES_PER_RANK + int(number)


def _device_process(rank: int, device: Any, number: int) -> str:
    """Process of a device as JSON: a number, or words where the device is not known, so that none is made up on reading."""
    return _json(f"unknown device of rank {rank}") if device is pd.NA else str(_process(rank, _FIRST_DEVICE + number))


def _devices(run: Run) -> pd.DataFrame:
    """Number of each device within its rank."""
    devices = run.device_ops[["rank", "device"]].drop_duplicates().sort_values(["rank", "device"], ignore_index=True)
    return devices.assign(number=devices.groupby("rank").cumcount())


def _host_processes(run: Run) -> pd.DataFrame:
    """Number of each host process within its rank."""
    processes = run.host_ops[["rank", "process"]].drop_duplicates().sort_values(["rank", "process"], ignore_index=True)
    return processes.assign(number=processes.groupby("rank").cumcount())


def _thread_numbers(run: Run) -> dict[str, int]:
    """Number of each thread: its own where it is one, so that it is found again."""
    names = [str(name) for name in run.host_ops["thread"].astype("category").cat.categories]
    own = {name: int(name) for name in names if name.isdecimal() and len(name) < _LONGEST_NUMBER}
    free = count(max(own.values(), default=0) + 1)  # no number that another thread has
    return {name: own[name] if name in own else next(free) for name in names}
