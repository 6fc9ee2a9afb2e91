"""A slow reader of traces, written from the format alone: what the tables of every file are compared with."""

from __future__ import annotations

import gc
import gzip
import json
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

DEVICE = {"kernel", "gpu_memcpy", "memcpy", "gpu_memset", "memset", "mtia_ccp_events", "collective_comm"}
_TEXT_OF = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=float).encode
LEFT_OUT = {"python_function", "trace", "gpu_user_annotation", "cuda_profiler_range", "cuda_event"}


@contextmanager
def nothing_to_collect() -> Generator[None]:
    """No search for cycles while millions of objects are made that have none: it would take as long as the reading."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def document(path: Path) -> dict[str, Any]:
    """The whole file as Python values, numbers with a point as exact decimals."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    value = json.loads(content, parse_float=Decimal)
    return value if isinstance(value, dict) else {"traceEvents": value}


def rows(path: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[tuple[Any, ...]], Counter[str]]:
    """Host rows, device rows, memory rows, each sorted, and how many events became no row."""
    read = document(path)
    base = int(read.get("baseTimeNanoseconds", 0))
    host: list[tuple[Any, ...]] = []
    device: list[tuple[Any, ...]] = []
    memory: list[tuple[Any, ...]] = []
    left_out: Counter[str] = Counter()
    for place, event in enumerate(read["traceEvents"]):
        args = event.get("args") or {}
        category = str(event.get("cat", "")).lower()
        if event.get("ph") != "X":
            if event.get("name") == "[memory]":
                on_host = args.get("Device Type") == 0
                at = base + _nanoseconds(event["ts"])
                values = (args.get("Addr"), args["Bytes"], args.get("Total Allocated"), args.get("Total Reserved"))
                memory.append((at, args.get("Ev Idx", -1), place, None if on_host else args.get("Device Id"), *values))
            else:
                left_out[f"ph {event.get('ph')}"] += 1
            continue
        if category in LEFT_OUT or category.endswith("_counters"):
            left_out[category] += 1
            continue
        start, duration = base + _nanoseconds(event["ts"]), _nanoseconds(event["dur"])
        head = (start, -duration, place, str(event["name"]), _whole(args.get("stream")), _whole(args.get("correlation")))
        if category in DEVICE:
            number = args.get("device")
            number = event.get("pid") if number is None else number
            occupancy = args.get("est. achieved occupancy %")
            share = None if occupancy is None else float(occupancy) / 100
            device.append((*head, _whole(number), args.get("bytes"), _json(args.get("grid")), _json(args.get("block")), share))
        else:
            thread = (str(event.get("pid", "")), str(event.get("tid", "")))
            waits = (_whole(args.get("wait_on_stream")), _whole(args.get("wait_on_cuda_event_record_corr_id")))
            shapes = (_json(args.get("Input Dims", args.get("Input dims"))), _json(args.get("Input type")))
            host.append((*head, *thread, _whole(args.get("Sequence number")), *shapes, *waits))
    return sorted(host, key=_order), sorted(device, key=_order), sorted(memory, key=_order), left_out


def _order(row: tuple[Any, ...]) -> tuple[int, int, int]:
    return row[:3]


def _nanoseconds(value: object) -> int:
    exact = value if isinstance(value, Decimal) else Decimal(str(value))
    return int((exact * 1000).to_integral_value())


def _whole(value: object) -> int | None:
    if value is None:
        return None
    try:
        return int(str(value), 0)
    except ValueError:
        return None


def _json(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return _TEXT_OF(value)
