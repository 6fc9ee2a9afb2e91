"""Damaged snapshots through the loader of plain pickles: plain data or `UnsafePickle`, nothing run, in little memory and time.

python -m benchmarks.memory.fuzz [--seconds 60 | --mutants 300000] [--seed 1]
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfnb.errors import UnsafePickle
from perfnb.read.memory_snapshot.plain_pickle import load_plain

PLAIN = (dict, list, tuple, str, int, float, bool, type(None))
MOST_GROWTH_BYTES = 200 << 20
MOST_SECONDS = 2.0


@dataclass
class Outcome:
    """What came of the damaged snapshots."""

    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    growth_bytes: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def mutants(self) -> int:
        """Damaged snapshots so far that did what they may."""
        return self.read + self.refused


def seeds() -> list[bytes]:
    """A small snapshot with what snapshots hold, in the two protocols that are about."""
    frames = [{"name": "forward", "filename": "model.py", "line": 3}, {"name": "main", "filename": "train.py", "line": 900}]
    block = {"address": 1 << 46, "size": 512, "requested_size": 3, "state": "active_allocated", "frames": frames}
    segment = {"device": 0, "address": 1 << 46, "total_size": 2 << 20, "stream": 0, "segment_type": "small", "blocks": [block]}
    events = [
        {
            "action": action,
            "addr": 1 << 46,
            "size": 3,
            "stream": 0,
            "time_us": 1_748_732_571_481_678,
            "frames": frames,
            "pool_id": (0, 0),
        }
        for action in ("segment_alloc", "alloc", "free_requested", "free_completed", "alloc")
    ]
    settings = {"max_split_size": -1, "garbage_collection_threshold": 0.0, "expandable_segments": False, "é": None}
    plain = {"segments": [segment], "device_traces": [events, []], "allocator_settings": settings}
    return [pickle.dumps(plain, protocol) for protocol in (2, 4)]


def damaged(seed: bytes, choose: random.Random) -> bytes:
    """Up to four bytes replaced, removed or put in, a piece repeated, or the end cut off."""
    data = bytearray(seed)
    for _ in range(choose.randint(1, 4)):
        place = choose.randrange(len(data)) if data else 0
        kind = choose.choice(("replace", "remove", "insert", "repeat", "cut"))
        if kind == "replace" and data:
            data[place] = choose.randrange(256)
        elif kind == "remove":
            del data[place : place + choose.randint(1, 8)]
        elif kind == "insert":
            data[place:place] = bytes(choose.randrange(256) for _ in range(choose.randint(1, 6)))
        elif kind == "repeat":
            data[place:place] = data[place : place + choose.randint(1, 40)]
        else:
            del data[place:]
    return bytes(data)


def fuzz(seconds: float = math.inf, seed: int = 1, mutants: float = math.inf) -> Outcome:
    """Load damaged snapshots for some time, or so many of them."""
    outcome = Outcome()
    choose = random.Random(seed)
    own = seeds()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        home = Path.cwd()
        os.chdir(folder)
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until and outcome.mutants + len(outcome.failures) < mutants:
                _one(damaged(choose.choice(own), choose), outcome)
            outcome.failures += [f"a file appeared: {path}" for path in Path(folder).iterdir()]
        finally:
            os.chdir(home)
    outcome.growth_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if outcome.growth_bytes > MOST_GROWTH_BYTES:
        outcome.failures.append(f"memory grew by {outcome.growth_bytes:,} bytes")
    return outcome


def _one(data: bytes, outcome: Outcome) -> None:
    began = time.process_time()
    try:
        value = load_plain(data)
    except UnsafePickle:
        outcome.refused += 1
    except Exception as error:  # noqa: BLE001 - any other exception is what is looked for
        outcome.failures.append(f"{type(error).__name__}: {error}: {data!r}")
    else:
        outcome.read += 1
        if not _is_plain(value):
            outcome.failures.append(f"not plain: {data!r}")
    took = time.process_time() - began
    outcome.slowest_s = max(outcome.slowest_s, took)
    if took > MOST_SECONDS:
        outcome.failures.append(f"{took:.1f} s: {data!r}")


def _is_plain(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if type(one) not in PLAIN:
            return False
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
    return True


def main(words: Sequence[str] | None = None) -> int:
    """Fuzz for as long as asked; 1 where something happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="5 by default where no number of mutants is given")
    parser.add_argument("--mutants", type=int)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(words)
    seconds = chosen.seconds or (math.inf if chosen.mutants else 5.0)
    outcome = fuzz(seconds, chosen.seed, chosen.mutants or math.inf)
    sys.stdout.write(
        f"{outcome.mutants:,} damaged snapshots: {outcome.read:,} read as plain data, {outcome.refused:,} refused; slowest "
        f"{outcome.slowest_s:.2f} s, memory grew by {outcome.growth_bytes >> 20} MiB, {len(outcome.failures)} failures\n"
    )
    sys.stdout.writelines(f"{failure}\n" for failure in outcome.failures[:10])
    return int(bool(outcome.failures))


if __name__ == "__main__":
    sys.exit(main())
