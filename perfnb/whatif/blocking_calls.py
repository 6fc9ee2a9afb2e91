"""Host calls that hold their thread: for device work to end, or for the loader to bring a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import matching
from perfnb.intervals import union
from perfnb.read.kineto.classify import LOADER_PATTERN

Floats = NDArray[np.float64]

SYNC_PATTERN: Final = r"^(?:cuda|hip)\w*Synchronize"
_WHOLE_DEVICE: Final = "DeviceSynchronize"
_STILL_RUNNING_US: Final = 5.0  # work that outlives a call by more was not what the call waited for


@dataclass(frozen=True, slots=True)
class Block:
    """A host call that waits.

    Attributes
    ----------
    kind
        sync: until work of its streams ends; copy: until its own copy is done; loader: until the next batch is there.
    name
        Of the call.
    start_us, end_us
        As recorded.
    least_us
        Time that the call takes when there is nothing to wait for.
    tail_us
        Time from the end of the awaited work to the call's end.
    streams
        Streams whose last op launched before the call is awaited.
    """

    kind: Literal["sync", "copy", "loader"]
    name: str
    start_us: float
    end_us: float
    least_us: float = 0.0
    tail_us: float = 0.0
    streams: tuple[int, ...] = ()


def blocking_copies(ops: pd.DataFrame) -> tuple[list[Block], NDArray[np.bool_]]:
    """Copies that hold the host, and which ops are copies out of pageable memory.

    A copy from pageable memory lets the stream drain, is staged, then sent (CUDA runtime API, "API synchronization
    behavior"); one to the host that ends within its call has been waited for.
    """
    name, call_end = ops["name"], ops["call_end_us"].to_numpy()
    start, end = ops["start_us"].to_numpy(), ops["end_us"].to_numpy()
    copies = (ops["kind"].eq("copy") & ops["launched"] & ~ops["in_graph"]).to_numpy()
    pageable = copies & matching(name, "HtoD")
    pageable &= matching(name, "Pageable") | (call_end > start)
    to_host = copies & matching(name, "DtoH") & (call_end >= end)
    launch, stream = ops["launch_us"].to_numpy(), ops["stream"].to_numpy()
    blocks = [
        Block(
            kind="copy",
            name=str(name.iloc[row]),
            start_us=float(launch[row]),
            end_us=float(call_end[row]),
            tail_us=float(call_end[row] - end[row]),
            streams=(int(stream[row]),),  # its own op is the last one of the stream then
        )
        for row in np.flatnonzero(pageable | to_host)
    ]
    return blocks, pageable


def synchronizations(calls: pd.DataFrame, host: pd.DataFrame, ops: pd.DataFrame, earlier_end_us: Floats) -> list[Block]:
    """Calls that wait for streams, a device or an event.

    Parameters
    ----------
    calls
        Runtime calls of the rank.
    host
        All its host rows: records of category synchronization name the stream of a call.
    ops
        Device ops in the order of their launches.
    earlier_end_us
        Per stream, the end of the work that was launched before.
    """
    rows = calls[matching(calls["name"], SYNC_PATTERN)]
    records = host[host["category"].eq("synchronization") & host["stream"].notna() & host["correlation"].notna()]
    recorded = dict(zip(records["correlation"], records["stream"], strict=True))
    lanes = [_Lane(ops, stream, earlier_end_us[stream]) for stream in range(len(earlier_end_us))]
    numbers = ops.drop_duplicates("stream").set_index("stream")["stream_number"].to_dict()
    blocks = []
    for name, start, length, stream, correlation in zip(
        rows["name"], rows["start_us"], rows["duration_us"], rows["stream"], rows["correlation"], strict=True
    ):
        known = recorded.get(correlation, pd.NA) if stream is pd.NA else stream
        if known is pd.NA or _WHOLE_DEVICE in str(name):
            awaited = list(range(len(lanes)))
        else:
            awaited = [lane for lane in range(len(lanes)) if numbers.get(lane) == known]
        ends = {lane: lanes[lane].end_of_work_launched_before(start) for lane in awaited}
        ends = {lane: end for lane, end in ends.items() if end <= start + length + _STILL_RUNNING_US}
        last = max(ends.values(), default=-np.inf)
        tail = float(start + length - last) if last > start else 0.0
        least = max(tail, 0.0) if last > start else float(length)
        blocks.append(Block("sync", str(name), float(start), float(start + length), least, tail, tuple(ends)))
    return blocks


def loader_waits(host: pd.DataFrame, low: float, high: float) -> list[Block]:
    """Waits for the DataLoader that start in [low, high); nested rows count once."""
    rows = host[matching(host["name"], LOADER_PATTERN)]
    spans = union(rows["start_us"], rows["start_us"] + rows["duration_us"])
    return [
        Block("loader", "DataLoader", float(start), float(end))
        for start, end in zip(spans.start, spans.end, strict=True)
        if low <= start < high
    ]


def in_turn(blocks: list[Block]) -> tuple[Block, ...]:
    """The blocks by start, without those that lie inside another."""
    kept: list[Block] = []
    for block in sorted(blocks, key=lambda block: (block.start_us, -block.end_us)):
        if not kept or block.start_us >= kept[-1].end_us:
            kept.append(block)
    return tuple(kept)


class _Lane:
    """The ops of one stream by launch."""

    def __init__(self, ops: pd.DataFrame, stream: int, earlier_end_us: float) -> None:
        own = ops[ops["stream"] == stream]
        self.launch_us, self.end_us, self.earlier_end_us = own["launch_us"].to_numpy(), own["end_us"].to_numpy(), earlier_end_us

    def end_of_work_launched_before(self, time_us: float) -> float:
        index = int(np.searchsorted(self.launch_us, time_us, side="left"))
        return float(self.end_us[index - 1]) if index else float(self.earlier_end_us)
