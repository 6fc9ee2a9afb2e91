"""Synthetic traces of any size: the events of a real one repeated in time, with their own steps, correlations and stamps."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isal import igzip

_LIST: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_NUMBER: Final = re.compile(rb'("ts": ?|"correlation": ?|"External id": ?|ProfilerStep#)(\d+)')
_LEVEL: Final = 2  # of isal: what fast writers use
_COMPLETE: Final = b'"ph": "X"'
_DISTRIBUTED: Final = "distributedInfo"


@dataclass(frozen=True, slots=True)
class Source:
    """Text of a real trace in three parts, and by how much each repetition is shifted.

    Attributes
    ----------
    head, events, tail
        Up to and with the list's bracket, its entries, and from its closing bracket on.
    shifts
        Beginning of a number in the text -> what one repetition adds to it.
    """

    head: bytes
    events: bytes
    tail: bytes
    shifts: dict[bytes, int]

    @property
    def complete_events(self) -> int:
        """Events with a start and an end in one repetition."""
        return self.events.count(_COMPLETE)

    def repetition(self, number: int) -> bytes:
        """Entries of one repetition."""
        if not number:
            return self.events

        def moved(match: re.Match[bytes]) -> bytes:
            return match[1] + str(int(match[2]) + number * self.shifts[match[1].replace(b" ", b"")]).encode()

        return _NUMBER.sub(moved, self.events)


def source(path: Path) -> Source:
    """The parts of a trace as Kineto writes it.

    Raises
    ------
    ValueError
        If the file is no JSON object with an event list.
    """
    text = path.read_bytes()
    text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
    start = _LIST.search(text)
    if start is None:
        message = f"{path.name} has no list traceEvents"
        raise ValueError(message)
    decoded: dict[str, Any] = json.loads(text)
    end = _end_of_list(text, start.end())
    stamped = [event for event in decoded["traceEvents"] if event.get("ph") == "X" and "ts" in event]
    first = min(float(event["ts"]) for event in stamped)
    last = max(float(event["ts"]) + float(event.get("dur", 0)) for event in stamped)
    largest: dict[bytes, int] = {}
    for match in _NUMBER.finditer(text, start.end(), end):
        key = match[1].replace(b" ", b"")
        largest[key] = max(largest.get(key, 0), int(match[2]))
    shifts = {key: value + 1 for key, value in largest.items()}
    shifts[b'"ts":'] = int(last - first) + 1000  # a millisecond between repetitions
    return Source(text[: start.end()], text[start.end() : end].rstrip(), text[end:], shifts)


def write(origin: Source, path: Path, repetitions: int) -> int:
    """Write a trace of several repetitions, gzipped; returns its size before compression."""
    size = 0
    with igzip.open(path, "wb", compresslevel=_LEVEL) as file:  # type: ignore[no-untyped-call]  # isal ships no signature
        parts = [origin.head]
        for number in range(repetitions):
            parts += [b"," if number else b"", origin.repetition(number)]
            size += sum(map(len, parts))
            file.write(b"".join(parts))
            parts = []
        file.write(origin.tail)
    return size + len(origin.tail)


def write_rank(origin: Source, path: Path, repetitions: int, rank: int, world_size: int) -> int:
    """Write a trace that says which rank of how many it is; returns its size before compression."""
    keys: dict[str, Any] = json.loads(origin.head + origin.tail)
    keys.pop("traceEvents", None)
    stated = keys.get(_DISTRIBUTED)
    keys[_DISTRIBUTED] = (stated if isinstance(stated, dict) else {}) | {"rank": rank, "world_size": world_size}
    head = json.dumps(keys)[:-1].encode() + b', "traceEvents": ['
    return write(Source(head, origin.events, b"]}", origin.shifts), path, repetitions)


def write_tiny(path: Path) -> None:
    """Write a trace of six events that every side can read: what a side does once is done on it."""
    events = []
    for step in range(2):
        at = 1_000_000 + 1000 * step
        call: dict[str, object] = {"correlation": step + 1, "External id": step + 1}
        events += [
            _event(f"ProfilerStep#{step}", "user_annotation", at, 900, {}),
            _event("aten::add", "cpu_op", at + 10, 100, {"External id": step + 1}),
            _event("cudaLaunchKernel", "cuda_runtime", at + 20, 10, call),
            _event("add_kernel", "kernel", at + 40, 50, {"device": 0, "stream": 7, **call}, process=0, thread=7),
        ]
    path.write_bytes(gzip.compress(json.dumps({"schemaVersion": 1, "traceEvents": events}).encode()))


def _event(
    name: str, category: str, start: int, duration: int, arguments: dict[str, object], *, process: int = 1, thread: int = 1
) -> dict[str, object]:
    event = {"ph": "X", "cat": category, "name": name, "pid": process, "tid": thread, "ts": start, "dur": duration}
    return event | {"args": arguments}


def _end_of_list(text: bytes, start: int) -> int:
    """Position of the bracket that closes the event list."""
    end = text.rfind(b"]")
    while end >= start:
        try:
            json.loads(text[:start] + text[end:])  # what stands around the list, then the list itself
            json.loads(b"[" + text[start:end] + b"]")
        except ValueError:
            end = text.rfind(b"]", start, end)
        else:
            return end
    message = "the event list does not end"
    raise ValueError(message)
