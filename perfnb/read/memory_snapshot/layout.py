"""What a snapshot holds, in columns: the segments at its end with their blocks, the events of each device, the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from perfnb.errors import SnapshotFormatError
from perfnb.read.memory_snapshot.frames import Stacks

RECORD_HINT: Final = "call torch.cuda.memory._record_memory_history() before the training and _dump_snapshot() after it"
MOST_ROWS: Final = 20_000_000
"""Events, and blocks: a file may name the same list of events again and again."""

_LARGEST: Final = 1 << 62  # sizes are rounded up, and have to stay whole numbers of 64 bits
_ACTIONS: Final = (
    "alloc",
    "free_requested",
    "free_completed",
    "segment_alloc",
    "segment_free",
    "segment_map",
    "segment_unmap",
    "oom",
)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a segment: `active` until its memory can be used again; the size that was asked for is None in old snapshots."""

    address: int
    size: int
    requested: int | None
    is_active: bool
    is_allocated: bool
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Memory that the allocator has from the device; `pool` is small, large or private:id with its size class in `is_small`."""

    address: int
    size: int
    stream: int
    is_small: bool
    is_expandable: bool
    pool: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of one device in the order in which they happened.

    Attributes
    ----------
    action, address, size, stream, time_us, pool
        By event; address is -1 for an out-of-memory event, time_us and pool are None where the snapshot has none.
    stack
        Its stack as text, None without frames.
    device_free
        Of an out-of-memory event, by its place: what the device had free, None where that is not told.
    """

    action: list[str]
    address: list[int]
    size: list[int]
    stream: list[int]
    time_us: list[int | float | None]
    pool: list[str | None]
    stack: list[str | None]
    device_free: Mapping[int, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A snapshot as it was read.

    Attributes
    ----------
    segments
        By device.
    events
        By device.
    settings
        What `allocator_settings` says.
    unknown
        What the reader does not know: name to how often.
    """

    segments: Mapping[int, Sequence[Segment]]
    events: Mapping[int, Events]
    settings: Mapping[str, Any]
    unknown: Mapping[str, int] = field(default_factory=dict)


def layout_of(plain: Any, name: str) -> Layout:
    """Columns of a snapshot's plain data, in torch's form or in ours without frames.

    Raises
    ------
    SnapshotFormatError
        If it is none, or a number in it cannot be an address or a size.
    """
    if not isinstance(plain, dict):
        _wrong(name, f"holds a {type(plain).__name__}, no snapshot: {RECORD_HINT}")
    for key in ("segments", "device_traces"):
        if key not in plain and not (key == "device_traces" and "events" in plain):
            found = ", ".join(sorted(str(other)[:40] for other in plain)[:10]) or "nothing"
            _wrong(name, f"no {key!r} (found: {found}): {RECORD_HINT}")
    stacks = Stacks()
    unknown: dict[str, int] = {}
    segments: dict[int, list[Segment]] = {}
    left = MOST_ROWS
    for row in _rows(plain["segments"], "segments", name):
        segment, device = _segment(row, name, stacks)
        left -= len(segment.blocks)
        if left < 0:
            _wrong(name, f"has more than {MOST_ROWS:,} blocks, the limit")
        segments.setdefault(device, []).append(segment)
    for own in segments.values():
        own.sort(key=lambda segment: segment.address)
    traces = _traces(plain, name)
    if sum(map(len, traces)) > MOST_ROWS:
        _wrong(name, f"has more than {MOST_ROWS:,} events, the limit")
    events = {device: _events(trace, name, stacks, unknown) for device, trace in enumerate(traces) if len(trace)}
    if stacks.left_out:
        unknown["stacks over the limit"] = stacks.left_out
    settings = plain.get("allocator_settings")
    return Layout(segments, events, settings if isinstance(settings, dict) else {}, unknown)


def _traces(plain: Mapping[str, Any], name: str) -> list[list[Any]]:
    """Events of each device as dictionaries; ours are rows under `event_columns`."""
    if "device_traces" in plain:
        return [_rows(trace, "a device's trace", name) for trace in _rows(plain["device_traces"], "device_traces", name)]
    columns = _rows(plain.get("event_columns"), "event_columns", name)
    if not all(isinstance(column, str) for column in columns):
        _wrong(name, "event_columns are no names")
    found = []
    for trace in _rows(plain["events"], "events", name):
        rows = _rows(trace, "a device's events", name)
        if any(type(row) is not list or len(row) != len(columns) for row in rows):
            _wrong(name, f"an event is no list of {len(columns)} values")
        found.append([dict(zip(columns, row, strict=True)) for row in rows])
    return found


def _segment(row: Any, name: str, stacks: Stacks) -> tuple[Segment, int]:
    if not isinstance(row, dict):
        _wrong(name, "a segment is no dictionary")
    address, size = _number(row, "address", name), _number(row, "total_size", name)
    is_small = row.get("segment_type") == "small"
    device = row.get("device", 0)
    blocks, at = [], address
    for told in _rows(row.get("blocks"), "a segment's blocks", name):
        block = _block(told, at, name, stacks)
        if block.address != at or block.address + block.size > address + size:
            _wrong(name, f"the blocks of the segment at {address:#x} do not follow one another")
        at += block.size
        blocks.append(block)
    pool = pool_name(row.get("segment_pool_id"), is_small=is_small)
    stream = _integer(row.get("stream", 0), "stream", name)
    where = device if isinstance(device, int) and 0 <= device < 1 << 16 else 0
    return Segment(address, size, stream, is_small, bool(row.get("is_expandable")), pool, tuple(blocks)), where


def _block(told: Any, at: int, name: str, stacks: Stacks) -> Block:
    if type(told) is list and len(told) == 4:  # noqa: PLR2004 - address, size, requested size, state: our own form
        told = dict(zip(("address", "size", "requested_size", "state"), told, strict=True))
    if not isinstance(told, dict):
        _wrong(name, "a block is no dictionary")
    state = told.get("state")
    requested = told.get("requested_size")
    return Block(
        _number(told, "address", name) if told.get("address") is not None else at,
        _number(told, "size", name),
        _number(told, "requested_size", name) if requested is not None else None,
        state != "inactive",
        state == "active_allocated",
        stacks.text(told.get("frames")),
    )


def _events(trace: list[Any], name: str, stacks: Stacks, unknown: dict[str, int]) -> Events:
    if set(map(type, trace)) - {dict}:
        _wrong(name, "an event is no dictionary")
    actions = [event.get("action") for event in trace]
    kinds = {action: 0 for action in actions if isinstance(action, str)}
    if len(kinds) < len(set(map(str, actions))) or any(kind not in _ACTIONS for kind in kinds):
        for action in actions:
            if action not in _ACTIONS and action != "snapshot":
                unknown[f"action {str(action)[:40]}"] = unknown.get(f"action {str(action)[:40]}", 0) + 1
        trace = [event for event in trace if event.get("action") in _ACTIONS]
        actions = [event["action"] for event in trace]
    sizes = _column(trace, lambda event: event.get("size", -1), "size", name)
    addresses = _column(trace, lambda event: event.get("addr"), "addr", name, missing=-1)
    for action, address in zip(actions, addresses, strict=True):
        if address < 0 and action != "oom":
            _wrong(name, f"an event {action} has no 'addr'")
    return Events(
        actions,
        addresses,
        sizes,
        _column(trace, lambda event: event.get("stream", 0), "stream", name, least=-_LARGEST),
        [_time(event.get("time_us")) for event in trace],
        [_pool(event.get("pool_id")) for event in trace],
        [stacks.text(event.get("frames")) for event in trace],
        {place: _free(trace[place]) for place, action in enumerate(actions) if action == "oom"},
    )


def _free(event: Mapping[str, Any]) -> int | None:
    value = event.get("device_free")
    return value if type(value) is int and 0 <= value < _LARGEST else None


def _column(
    trace: list[Any], value: Callable[[Any], Any], key: str, name: str, *, missing: int | None = None, least: int = 0
) -> list[int]:
    values = [value(event) for event in trace]
    kinds = set(map(type, values))
    if missing is not None and type(None) in kinds:
        values = [missing if one is None else one for one in values]
        kinds.discard(type(None))
        least = min(least, missing)
    if kinds - {int}:
        _wrong(name, f"an event's {key!r} is no whole number")
    if values and not (least <= min(values) and max(values) < _LARGEST):
        _wrong(name, f"an event's {key!r} is outside of 0 to 2**62")
    return values


def _time(value: Any) -> int | float | None:
    return value if type(value) in (int, float) and abs(value) < _LARGEST else None


def pool_name(identity: Any, *, is_small: bool) -> str:
    """`small` or `large`; `private:` and the number of a pool that a CUDA graph or the user made."""
    return _pool(identity) or ("small" if is_small else "large")


def _pool(identity: Any) -> str | None:
    """Name of a private pool; None of the allocator's own, whose id is (0, 0)."""
    if isinstance(identity, tuple | list) and len(identity) == 2:  # noqa: PLR2004 - a pair of numbers
        first, second = identity
        if type(first) is int and type(second) is int and (first or second) and max(abs(first), abs(second)) < _LARGEST:
            return f"private:{first}.{second}"
    return None


def _rows(value: Any, what: str, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        _wrong(name, f"{what} is no list")
    return value if isinstance(value, list) else list(value)


def _number(row: Mapping[str, Any], key: str, name: str) -> int:
    value = _integer(row.get(key), key, name)
    if not 0 <= value < _LARGEST:
        _wrong(name, f"{key!r} is outside of 0 to 2**62")
    return value


def _integer(value: Any, key: str, name: str) -> int:
    if type(value) is not int or abs(value) > _LARGEST:
        _wrong(name, f"{key!r} is no whole number below 2**62")
    return int(value)


def _wrong(name: str, what: str) -> NoReturn:
    message = f"{name}: {what}"
    raise SnapshotFormatError(message)
