"""What reading and replaying large recordings costs: CPU time and memory.

    python -m benchmarks.memory.speed [--events 1000000]

A snapshot of so many events with stacks is made by the simulated allocator (it is no recording, but costs what one would) and
written as torch writes it; then, in a fresh process, it is read and its peak attributed. One what-if is timed on 100,000 events.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from perfnb.read.memory_snapshot import read_memory_snapshot
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.whatif.allocator_events import AllocatorEvents, allocator_events
from perfnb.whatif.allocator_replay import replay_events
from perfnb.whatif.caching_allocator import CachingAllocator

MOST_SECONDS: Final = 10.0
MOST_BYTES: Final = 2_000_000_000
MOST_WHAT_IF_SECONDS: Final = 1.0
_SIZES: Final = (512, 4096, 70_000, 700_000, 1_200_000, 3_000_000, 12_000_000, 33_000_000)
_LIVE: Final = 400
_STACKS: Final = 300
_EVENTS_OF_WHAT_IF: Final = 100_000


def made(events: int, seed: int = 0) -> dict[str, Any]:
    """A snapshot of about so many events: 400 blocks live at a time, sizes of a training, 300 stacks of 20 frames."""
    choose = random.Random(seed)
    allocator = CachingAllocator(AllocatorSettings())
    allocator.grown = []
    frames = [[{"name": f"f{i}", "filename": f"model_{i % 40}.py", "line": i + j} for j in range(20)] for i in range(_STACKS)]
    trace: list[dict[str, Any]] = []
    live: list[tuple[int, int, int]] = []

    def event(action: str, address: int, size: int, **more: Any) -> None:
        trace.append({"action": action, "addr": address, "size": size, "stream": 0, "time_us": len(trace), **more})

    number = 0
    while len(trace) < events or live:
        if len(live) >= _LIVE or (live and len(trace) >= events):
            key, address, size = live.pop(choose.randrange(len(live)))
            event("free_requested", address, size)
            event("free_completed", address, size)
            allocator.free(key)
            continue
        size = choose.choice(_SIZES)
        address = allocator.malloc(number, size)
        for at, whole in allocator.grown:
            event("segment_alloc", at, whole)
        allocator.grown.clear()
        event("alloc", address, size, frames=frames[number % _STACKS])
        live.append((number, address, size))
        number += 1
    segments = [
        {
            "device": 0,
            "address": block.address,
            "total_size": block.size,
            "stream": 0,
            "segment_type": "small" if block.pool.kind.is_small else "large",
            "blocks": [{"address": block.address, "size": block.size, "requested_size": 0, "state": "inactive"}],
        }
        for block in allocator.blocks()
    ]
    return {"segments": segments, "device_traces": [trace], "allocator_settings": {"max_split_size": -1}}


def analysed(path: Path) -> tuple[float, int, int]:
    """CPU seconds of reading a snapshot and attributing its peak, peak memory of this process, and rows."""
    from perfnb.memory_ledger import HeldBlocks, memory_by, memory_peak  # noqa: PLC0415 - its import is not what is timed

    began = time.process_time()
    run = read_memory_snapshot(path)
    held = memory_peak(run)
    if not isinstance(held, HeldBlocks):
        raise SystemExit(held.reason)
    memory_by(held, "category"), memory_by(held, "stack")
    took = time.process_time() - began
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, len(run.allocations)


def what_if(path: Path) -> tuple[float, int]:
    """CPU seconds of one replay with other settings, and its events."""
    events = allocator_events(read_memory_snapshot(path))
    if not isinstance(events, AllocatorEvents):
        raise SystemExit(events.reason)
    began = time.process_time()
    replay_events(events, AllocatorSettings(expandable_segments=True))
    return time.process_time() - began, len(events)


def main(words: Sequence[str] | None = None) -> int:
    """Print both costs; 1 where one is over its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--analyse", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.analyse is not None:
        print(*analysed(chosen.analyse))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.pickle", Path(folder) / "small.pickle"
        large.write_bytes(pickle.dumps(made(chosen.events), 4))
        small.write_bytes(pickle.dumps(made(min(_EVENTS_OF_WHAT_IF, chosen.events)), 4))
        size = large.stat().st_size
        command = [sys.executable, "-m", "benchmarks.memory.speed", "--analyse", str(large)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603 - this program
        seconds, memory, rows = float(told[0]), int(told[1]), int(told[2])
        replay, replayed = what_if(small)
    print(
        f"{rows:,} events ({size >> 20} MiB): read and attributed in {seconds:.1f} CPU s (limit {MOST_SECONDS:.0f}), "
        f"{memory / 1e9:.2f} GB at most (limit {MOST_BYTES / 1e9:.0f})\n"
        f"one what-if on {replayed:,} requests and frees of {min(_EVENTS_OF_WHAT_IF, chosen.events):,} events: "
        f"{replay:.2f} CPU s (limit {MOST_WHAT_IF_SECONDS:.0f})"
    )
    return int(seconds > MOST_SECONDS or memory > MOST_BYTES or replay > MOST_WHAT_IF_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
