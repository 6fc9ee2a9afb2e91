"""A memory snapshot without a GPU: a real training on the CPU whose blocks go through perfnb's simulated caching allocator.

    python -m benchmarks.memory.record_snapshot FILE.json.gz [--capacity-mib 48] [--lengths 64,96,...]

The operators, their order, sizes, lifetimes, times and Python stacks are those of the training, which really runs. The addresses,
segments and the out-of-memory error are what torch's rules would have made of them on a device of that capacity: no GPU is
involved, and it is no evidence for those rules.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import sys
import time
import traceback
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.memory.dry_run_families import Decoder, next_word
from perfnb.errors import NoRoomError
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.whatif.allocator_blocks import Block
from perfnb.whatif.caching_allocator import CachingAllocator

MIB: Final = 1 << 20
_MOST_FRAMES: Final = 8
_LEFT_OUT: Final = ("/_pytree.py", "/eval_frame.py", "/_compile.py", "/runpy.py", "<frozen runpy>")
_OWN: Final = ("see", "__torch_dispatch__", "_stack")
"""Frames of the recorder itself, and of what torch puts round it."""


class OutOfSimulatedMemoryError(Exception):
    """The simulated device is full: as in torch the training ends, and a snapshot is taken at that moment."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        super().__init__()
        self.snapshot = snapshot


class Recorder:
    """Allocations and frees of a training, with what the simulated allocator made of them.

    Parameters
    ----------
    capacity
        Bytes that the device gives.
    """

    def __init__(self, capacity: int) -> None:
        self.allocator = CachingAllocator(AllocatorSettings(), capacity)
        self.events: list[dict[str, Any]] = []
        self.segments: dict[int, int] = {}
        self.live: dict[int, tuple[Any, int, int, int]] = {}
        self._count, self._capacity, self._looked = 0, capacity, (0, 0)
        self._stacks: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def see(self, tensor: torch.Tensor) -> None:
        """A tensor came out of an operator: a new storage is a request."""
        storage = tensor.untyped_storage()
        key, size = id(storage), int(storage.nbytes())
        if key in self.live or size == 0:
            return
        number, self._count = self._count, self._count + 1
        try:
            address = self.allocator.malloc(number, size)
        except NoRoomError as error:
            self._look_at_segments()
            free = self._capacity - error.reserved
            self._event("oom", free, error.wanted, frames=self._stack(), device_free=free)
            raise OutOfSimulatedMemoryError(self.snapshot()) from None
        self._look_at_segments()
        self._event("alloc", address, size, frames=self._stack())
        self.live[key] = (weakref.ref(storage, lambda _: self._gone(key)), number, address, size)

    def _gone(self, key: int) -> None:
        _, number, address, size = self.live.pop(key)
        for action in ("free_requested", "free_completed"):
            self._event(action, address, size)
        self.allocator.free(number)

    def _look_at_segments(self) -> None:
        """Segments that were given back, then those that were made, since the last look."""
        now = (self.allocator.device_allocs, self.allocator.device_frees)
        if now == self._looked:
            return
        self._looked = now
        segments = {chain[0].address: sum(one.size for one in chain) for chain in _chains(self.allocator)}
        for address in [one for one in self.segments if one not in segments]:
            self._event("segment_free", address, self.segments.pop(address))
        for address, size in segments.items():
            if address not in self.segments:
                self.segments[address] = size
                self._event("segment_alloc", address, size)

    def _event(self, action: str, address: int, size: int, **more: Any) -> None:
        named = {"action": action, "addr": address, "size": size, "stream": 0, "time_us": time.time_ns() // 1000, **more}
        self.events.append(named)

    def _stack(self) -> list[dict[str, Any]]:
        seen = traceback.extract_stack()
        frames = [one for one in seen if not one.filename.endswith(_LEFT_OUT) and one.name not in _OWN]
        key = tuple((one.filename, one.lineno, one.name) for one in reversed(frames[-_MOST_FRAMES:]))
        return self._stacks.setdefault(
            key, [{"filename": _without_folder(file), "line": line or 0, "name": name} for file, line, name in key]
        )

    def snapshot(self) -> dict[str, Any]:
        """State and events in torch's own layout."""
        return {
            "segments": [
                {
                    "device": 0,
                    "address": chain[0].address,
                    "total_size": sum(one.size for one in chain),
                    "stream": 0,
                    "segment_type": "small" if chain[0].pool.kind.is_small else "large",
                    "segment_pool_id": [0, 0],
                    "is_expandable": False,
                    "blocks": [_told(one) for one in chain],
                }
                for chain in _chains(self.allocator)
            ],
            "device_traces": [list(self.events)],
            "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": "", "max_split_size": -1, "expandable_segments": False},
        }


def _chains(allocator: CachingAllocator) -> list[list[Block]]:
    """The blocks of each segment, by address."""
    chains: list[list[Block]] = []
    for block in allocator.blocks():
        if block.previous is None:
            chains.append([])
        chains[-1].append(block)
    return chains


def _told(block: Block) -> dict[str, Any]:
    state = "active_allocated" if block.in_use else "inactive"
    return {
        "address": block.address,
        "size": block.size,
        "requested_size": block.requested if block.in_use else 0,
        "state": state,
    }


def _without_folder(file: str) -> str:
    """The last three parts of a file's name: no folder of a machine."""
    return "/".join(Path(file).parts[-3:])


def recorded(capacity: int, lengths: Sequence[int], *, batch_size: int = 8, width: int = 128, depth: int = 4) -> dict[str, Any]:
    """Snapshot of a language model's training on batches of these lengths, up to the end or to the out-of-memory error."""
    torch.manual_seed(0)
    recorder = Recorder(capacity)
    was_collecting = gc.isenabled()
    gc.disable()  # else storages would be freed at chance moments
    try:
        with _seeing(recorder):
            _train(lengths, batch_size, width, depth)
            return recorder.snapshot()
    except OutOfSimulatedMemoryError as error:
        return error.snapshot
    finally:
        recorder.live.clear()
        if was_collecting:
            gc.enable()


def _train(lengths: Sequence[int], batch_size: int, width: int, depth: int) -> None:
    model = Decoder(is_fused=False, width=width, depth=depth, words=2000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    for length in lengths:
        batch = torch.randint(0, 2000, (batch_size, length))
        loss = next_word(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        del loss, batch


def _seeing(recorder: Recorder) -> Any:
    class Seeing(TorchDispatchMode):  # type: ignore[misc] # torch is not followed, see pyproject.toml
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            results = operator(*args, **(kwargs or {}))
            for one in tree_leaves(results):
                if isinstance(one, torch.Tensor):
                    recorder.see(one)
            return results

    return Seeing()


def main(words: Sequence[str] | None = None) -> int:
    """Train, and write the snapshot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.record_snapshot", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="name of the snapshot, ending in .json.gz")
    parser.add_argument("--capacity-mib", type=int, default=160)
    parser.add_argument("--lengths", default="64,96,80,128,72,112,160,88,144,192,224,256", help="of the batches, one a step")
    chosen = parser.parse_args(words)
    made = recorded(chosen.capacity_mib * MIB, [int(one) for one in chosen.lengths.split(",")])
    chosen.file.write_bytes(gzip.compress(json.dumps(made, separators=(",", ":")).encode(), 9, mtime=0))
    events = made["device_traces"][0]
    print(f"{chosen.file.name}: {len(events):,} events, {chosen.file.stat().st_size:,} bytes, ends with {events[-1]['action']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
