"""Command line that cuts a Kineto trace down to a few steps: ``python -m benchmarks.gpu.trim_trace IN OUT --steps N``.

Every event that stays is copied as its text stands, and so is all that the file says beside its events. Steps are the
"ProfilerStep#" annotations. Of N chosen steps stay:

- host events that start in them, on any thread, instant events ([memory] among them) in them, and events that begin before and
  end after all of them;
- device events that a host event launched which stays (by their correlation), however late the device ran them; those without
  a launch in the file, if they start in the steps;
- ranges on the device's lines (gpu_user_annotation) that overlap a device event which stays;
- flow events whose both ends stay, and all metadata.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 1_000_000
STEP: Final = "ProfilerStep#"

_SPACE: Final = " \t\r\n"
_DECODER: Final = json.JSONDecoder(parse_float=Decimal)
_DEVICE: Final = frozenset({"kernel", "gpu_memcpy", "memcpy", "gpu_memset", "memset", "mtia_ccp_events", "collective_comm"})
_ON_DEVICE_LINE: Final = frozenset({"gpu_user_annotation"})
_FLOW: Final = frozenset("stf")


class TrimError(Exception):
    """A trace that cannot be trimmed."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What was kept.

    Attributes
    ----------
    steps
        Numbers of the steps.
    events, of_events
        Events that stayed, and those there were.
    bytes
        Size of the file written.
    kinds_lost
        Phase and category of events of which none stayed: the steps have none.
    """

    steps: tuple[int, ...]
    events: int
    of_events: int
    bytes: int
    kinds_lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Event:
    text: str
    value: dict[str, Any]
    start: int  # nanoseconds as the file counts them
    end: int

    @property
    def category(self) -> str:
        return str(self.value.get("cat", "")).lower()

    @property
    def phase(self) -> str:
        return str(self.value.get("ph", ""))

    @property
    def correlation(self) -> Any:
        args = self.value.get("args")
        return args.get("correlation") if isinstance(args, dict) else None

    @property
    def is_device(self) -> bool:
        return self.phase == "X" and self.category in _DEVICE


def trim(source: Path, target: Path, *, steps: int, most_bytes: int = MOST_BYTES) -> Trimmed:
    """Write a trace that holds so many steps of another, or fewer where they would not fit.

    Parameters
    ----------
    source, target
        Files, plain or gzip by their names.
    steps
        How many; the first step is left out where there are enough, for its start holds work of before.
    most_bytes
        Of the file to be written.

    Raises
    ------
    TrimError
        If the file is no valid JSON, has no steps, or one step alone is too large.
    """
    content = source.read_bytes()
    text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8", errors="surrogateescape")
    head, events, tail = _parts(text, source.name)
    marks = _steps(events, source.name)
    kinds = Counter(_kind(event) for event in events)
    for count in range(min(steps, len(marks)), 0, -1):
        first = 1 if len(marks) > count else 0
        chosen = marks[first : first + count]
        kept = _kept(events, chosen[0].start, max(mark.end for mark in chosen))
        made = (head + ",\n  ".join(event.text for event in kept) + tail).encode("utf-8", errors="surrogateescape")
        written = gzip.compress(made, 9, mtime=0) if target.suffix == ".gz" else made
        if len(written) <= most_bytes:
            target.write_bytes(written)
            left = kinds.keys() - {_kind(event) for event in kept}
            numbers = tuple(int(mark.value["name"].removeprefix(STEP)) for mark in chosen)
            return Trimmed(numbers, len(kept), len(events), len(written), tuple(sorted(left)))
    message = f"{source.name}: one step alone takes {len(written):,} bytes, more than {most_bytes:,}"
    raise TrimError(message)


def _parts(text: str, name: str) -> tuple[str, list[_Event], str]:
    """What stands before the events, the events, and what stands after them."""
    try:
        start = _list_start(text)
        events, position = [], start
        while text[(position := _after_space(text, position))] != "]":
            if text[position] == ",":
                position = _after_space(text, position + 1)
            value, end = _DECODER.raw_decode(text, position)
            events.append(_event(text[position:end], value))
            position = end
    except (ValueError, IndexError, TypeError) as error:
        message = f"{name} is no trace in valid JSON: {error}"
        raise TrimError(message) from error
    return text[:start], events, text[position:]


def _list_start(text: str) -> int:
    """Where the first event stands: in a bare list, or under "traceEvents"."""
    position = _after_space(text, 0)
    if text[position] == "[":
        return _after_space(text, position + 1)
    position += 1
    while True:
        position = _after_space(text, position)
        if text[position] == ",":
            position = _after_space(text, position + 1)
        key, position = _DECODER.raw_decode(text, position)
        position = _after_space(text, _after_space(text, position) + 1)
        if key == "traceEvents":
            return _after_space(text, position + 1)
        _, position = _DECODER.raw_decode(text, position)


def _after_space(text: str, position: int) -> int:
    while text[position] in _SPACE:
        position += 1
    return position


def _event(text: str, value: Any) -> _Event:
    if not isinstance(value, dict):
        message = f"an event is no object: {text[:60]}"
        raise TypeError(message)
    start = _nanoseconds(value.get("ts", 0))
    return _Event(text, value, start, start + _nanoseconds(value.get("dur", 0)))


def _nanoseconds(value: Any) -> int:
    return int((Decimal(str(value)) * 1000).to_integral_value())


def _steps(events: Sequence[_Event], name: str) -> list[_Event]:
    """Annotations of steps on the host, in order; the copy that the device's line has is none."""
    marks = [
        event
        for event in events
        if event.phase == "X" and str(event.value.get("name")).startswith(STEP) and event.category not in _ON_DEVICE_LINE
    ]
    if not marks:
        message = f"{name} has no {STEP} annotation: call prof.step() once per iteration"
        raise TrimError(message)
    return sorted(marks, key=lambda event: event.start)


def _kind(event: _Event) -> str:
    return f"{event.phase} {event.category or event.value.get('name', '')}"


def _kept(events: Sequence[_Event], low: int, high: int) -> list[_Event]:
    """Events of the steps between two moments, in the order of the file."""
    launchers = {
        event.correlation
        for event in events
        if event.phase == "X" and not event.is_device and event.category not in _ON_DEVICE_LINE and event.correlation is not None
    }
    in_time = [low <= event.start < high or (event.start < low and event.end > high) for event in events]
    stays = [False] * len(events)
    own: set[Any] = set()
    for number, event in enumerate(events):
        if event.is_device or event.category in _ON_DEVICE_LINE or event.phase in _FLOW:
            continue
        stays[number] = event.phase == "M" or in_time[number]
        if stays[number] and event.phase == "X" and event.correlation is not None:
            own.add(event.correlation)
    for number, event in enumerate(events):
        if event.is_device:
            stays[number] = event.correlation in own if event.correlation in launchers else in_time[number]
    busy = [event for number, event in enumerate(events) if stays[number] and event.is_device]
    first, last = min((event.start for event in busy), default=0), max((event.end for event in busy), default=-1)
    for number, event in enumerate(events):
        if event.category in _ON_DEVICE_LINE and event.phase == "X":
            stays[number] = event.start < last and event.end > first
    for number in _whole_flows(events, stays):
        stays[number] = True
    return [event for event, stay in zip(events, stays, strict=True) if stay]


def _whole_flows(events: Sequence[_Event], stays: Sequence[bool]) -> Iterator[int]:
    """Numbers of flow events whose start and end both lie on events that stay."""
    lines: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for number, event in enumerate(events):
        if stays[number] and event.phase == "X":
            lines.setdefault(_line(event), []).append((event.start, event.end))
    moments = {line: {moment for span in spans for moment in span} for line, spans in lines.items()}
    reach = {line: (min(spans)[0], max(end for _, end in spans)) for line, spans in lines.items()}
    flows: dict[tuple[Any, Any], list[int]] = {}
    for number, event in enumerate(events):
        if event.phase in _FLOW:
            flows.setdefault((event.value.get("id"), event.category), []).append(number)
    for numbers in flows.values():
        phases = {events[number].phase for number in numbers}
        if {"s", "f"} <= phases and all(_lies_on(events[number], moments, reach) for number in numbers):
            yield from numbers


def _lies_on(event: _Event, moments: dict[tuple[str, str], set[int]], reach: dict[tuple[str, str], tuple[int, int]]) -> bool:
    """Kineto puts the end of a flow at the start of its event; other writers somewhere inside."""
    line = _line(event)
    if line not in reach:
        return False
    low, high = reach[line]
    return event.start in moments[line] or low <= event.start <= high


def _line(event: _Event) -> tuple[str, str]:
    return str(event.value.get("pid")), str(event.value.get("tid"))


def main(words: Sequence[str] | None = None) -> int:
    """Trim a file and say what stayed; 1 where that is not possible."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.trim_trace", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, required=True, help="how many steps stay, or fewer where they do not fit")
    parser.add_argument("--most-bytes", type=int, default=MOST_BYTES, help="size of OUT at most")
    chosen = parser.parse_args(words)
    if chosen.steps < 1:
        parser.error("--steps: at least 1")
    try:
        made = trim(chosen.source, chosen.target, steps=chosen.steps, most_bytes=chosen.most_bytes)
    except (TrimError, OSError) as error:
        print(f"not trimmed: {error}", file=sys.stderr)
        return 1
    print(f"steps {', '.join(map(str, made.steps))}: {made.events:,} of {made.of_events:,} events, {made.bytes:,} bytes")
    if made.kinds_lost:
        print(f"not in these steps: {'; '.join(made.kinds_lost)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
