"""Why torch ran out of memory, from the text of its error: a true shortage, holes between blocks, or a limit that was set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from perfnb.errors import OutOfMemoryTextError
from perfnb.read.memory_snapshot.allocator_settings import LARGEST_SMALL, MIB, SEGMENT_STEP, SMALL_SEGMENT, SMALLEST_BLOCK
from perfnb.text import byte_size

Cause = Literal["shortage", "fragmentation", "limit", "unclear", "not told"]

_UNITS: Final = MappingProxyType({"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30})
_SIZE: Final = r"(\d{1,19}(?:\.\d{1,3})?) (bytes|KiB|MiB|GiB)"
# c10/cuda/CUDACachingAllocator.cpp: the older sentence until torch 2.0, the other one since 2.1 ("capacty" in 2.1);
# XPU has the newer one too. Names as in `OutOfMemory`, with the text around the size.
_PARTS: Final = MappingProxyType(
    {
        "wanted_bytes": (r"Tried to allocate {}",),
        "total_bytes": (r"total capaci?ty of {}", r"; {} total capacity"),
        "free_bytes": (r"of which {} is free", r"already allocated; {} free"),
        "allowed_bytes": (r"{} allowed;",),
        "in_use_bytes": (r"this process has {} memory in use",),
        "allocated_bytes": (r"Of the allocated memory {} is allocated", r"; {} already allocated"),
        "private_pools_bytes": (r"with {} allocated in private pools",),
        "reserved_unallocated_bytes": (r"and {} is reserved by (?:PyTorch|XPU) but unallocated",),
        "_reserved_bytes": (r"; {} (?:reserved in total by PyTorch|cached)",),
    }
)
_DEVICE: Final = re.compile(r"\bGPU (\d{1,4})\b")
_OTHERS: Final = re.compile(rf"Process \d{{1,10}} has {_SIZE} memory in use")
_BACKEND: Final = re.compile(r"\b(CUDA|HIP|XPU) out of memory")
_ELSEWHERE: Final = MappingProxyType(
    {
        "MPS backend out of memory": "it is of the MPS backend, whose allocator has other rules",
        "CUDA error: out of memory": "it comes from CUDA itself, outside of torch's caching allocator, and has no numbers",
        "CUBLAS_STATUS_ALLOC_FAILED": "it comes from cuBLAS, outside of torch's caching allocator, and has no numbers",
        "DefaultCPUAllocator": "it is of the host's memory, which has no caching allocator",
    }
)
_LONGEST: Final = 1_000_000
"""Characters of a log that are looked at, from its end."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The numbers of an out-of-memory error and what they say; None where one is not told.

    Attributes
    ----------
    wanted_bytes
        What was asked for: in a message the segment that would hold it, in a snapshot the request, rounded.
    device
        Number of the device.
    total_bytes, free_bytes
        The device's memory, and what it had free.
    allowed_bytes
        What a memory fraction allows.
    in_use_bytes
        What this process has in use, torch or not.
    other_bytes
        What each other process has in use.
    allocated_bytes, private_pools_bytes
        What torch had handed out, and how much of it to CUDA graphs.
    reserved_unallocated_bytes
        What torch held and had not handed out. Whole segments of that were given back before the error: these are holes.
    half_widths
        By name: half of the last digit that the message shows.
    is_segment
        Whether `wanted_bytes` is the segment's size.
    """

    wanted_bytes: int | None = None
    device: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    allowed_bytes: int | None = None
    in_use_bytes: int | None = None
    other_bytes: tuple[int, ...] = ()
    allocated_bytes: int | None = None
    private_pools_bytes: int | None = None
    reserved_unallocated_bytes: int | None = None
    half_widths: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    is_segment: bool = False

    @property
    def request_bytes(self) -> tuple[float, float]:
        """Least and most that was asked for."""
        wanted = self.wanted_bytes or 0
        half = self.half_widths.get("wanted_bytes", 0.0)
        if not self.is_segment:
            return wanted, wanted
        if abs(wanted - SMALL_SEGMENT) <= half:
            return SMALLEST_BLOCK, LARGEST_SMALL
        if abs(wanted - 20 * MIB) <= half:  # for blocks of 1 to 10 MiB, and of 18 to 20
            return LARGEST_SMALL + SMALLEST_BLOCK, 20 * MIB
        return max(wanted - half - SEGMENT_STEP, 0.0) + SMALLEST_BLOCK, wanted + half

    @property
    def device_room_bytes(self) -> tuple[float, float] | None:
        """Least and most that the allocator could still get: what the device has free, or less where a fraction is set."""
        if self.free_bytes is None:
            return None
        low, high = self._range("free_bytes")
        if self.allowed_bytes is None or self.allocated_bytes is None or self.reserved_unallocated_bytes is None:
            return low, high
        names = ("allowed_bytes", "allocated_bytes", "reserved_unallocated_bytes")
        allowed, allocated, unallocated = (self._range(name) for name in names)
        least = allowed[0] - allocated[1] - unallocated[1]
        return min(low, max(least, 0.0)), min(high, max(allowed[1] - allocated[0] - unallocated[0], 0.0))

    @property
    def shortage_bytes(self) -> tuple[float, float] | None:
        """Least and most that was missing in all: request less holes less room; below 0 where there was enough in pieces."""
        room = self.device_room_bytes
        if room is None or self.reserved_unallocated_bytes is None or self.wanted_bytes is None:
            return None
        holes = self._range("reserved_unallocated_bytes")
        least, most = self.request_bytes
        return least - holes[1] - room[1], most - holes[0] - room[0]

    @property
    def cause(self) -> Cause:
        """`shortage`; `fragmentation`: enough in all, not in one piece; `limit`: the device had room for it."""
        shortage = self.shortage_bytes
        if shortage is None or self.free_bytes is None:
            return "not told"
        if self._range("free_bytes")[0] >= (self.wanted_bytes or 0) + self.half_widths.get("wanted_bytes", 0.0):
            return "limit"
        if shortage[0] > 0:
            return "shortage"
        return "fragmentation" if shortage[1] <= 0 else "unclear"

    @property
    def outside_bytes(self) -> int | None:
        """Device memory that is neither free nor torch's own: contexts, libraries, other processes."""
        told = (self.total_bytes, self.free_bytes, self.allocated_bytes, self.reserved_unallocated_bytes)
        if any(one is None for one in told):
            return None
        total, free, allocated, unallocated = (one or 0 for one in told)
        return max(total - free - allocated - unallocated, 0)

    @property
    def verdict(self) -> str:
        """What happened, in a sentence with its numbers."""
        if self.wanted_bytes is None:
            return "how much was wanted is not told"
        wanted = f"{_shown(self.wanted_bytes)} {'as a segment ' if self.is_segment else ''}wanted"
        shortage = self.shortage_bytes
        if shortage is None or self.device_room_bytes is None:
            return (
                f"whether memory was short or in pieces cannot be told: {wanted}, and the message or snapshot lacks what was free"
            )
        holes = f"{_shown(self.reserved_unallocated_bytes or 0)} held by torch in holes"
        free = f"{_shown(self.free_bytes or 0)} free on the device"
        numbers = f"{wanted}, {free}, {holes}"
        if self.allowed_bytes is not None:
            numbers += f", {_shown(self.allowed_bytes)} allowed by the memory fraction"
        if self.cause == "limit":
            why = (
                "the memory fraction" if self.allowed_bytes is not None else "a memory fraction, or a limit of driver or system,"
            )
            return f"{why} was the limit, not the device: {numbers}"
        if self.cause == "shortage":
            return f"a true shortage of {_between(shortage)}: {numbers}"
        if self.cause == "fragmentation":
            spare = _between((-shortage[1], -shortage[0]))
            return f"fragmentation: enough memory in all, with {spare} to spare, but not in one piece: {numbers}"
        return (
            f"a shortage of up to {_shown(shortage[1])} or fragmentation: the numbers do not tell which, "
            f"as the request was between {_shown(self.request_bytes[0])} and {_shown(self.request_bytes[1])}: {numbers}"
        )

    def _range(self, name: str) -> tuple[float, float]:
        value, half = float(getattr(self, name)), self.half_widths.get(name, 0.0)
        return max(value - half, 0.0), value + half


def out_of_memory(text: str) -> OutOfMemory:
    """Numbers of the last out-of-memory error in a text, such as a traceback or a log; `.verdict` says what they mean.

    Parameters
    ----------
    text
        Text that holds torch's message, of CUDA, HIP (ROCm) or XPU; torch 1.13 and newer.

    Returns
    -------
    OutOfMemory
        The numbers.

    Raises
    ------
    OutOfMemoryTextError
        If there is no such message, or one of something else than the caching allocator.

    Examples
    --------
    >>> error = out_of_memory(
    ...     "CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacity of 6.00 GiB of which 0 bytes is free. "
    ...     "Of the allocated memory 2.93 GiB is allocated by PyTorch, and 2.30 GiB is reserved by PyTorch but unallocated."
    ... )
    >>> error.cause
    'fragmentation'
    """
    text = text[-_LONGEST:]
    starts = [match.start() for match in _BACKEND.finditer(text)] or [
        match.start() for match in re.finditer("Tried to alloc", text)
    ]
    if not starts:
        raise OutOfMemoryTextError(_absent(text))
    message = re.sub(r"\s+", " ", text[starts[-1] : starts[-1] + 4000])  # terminals and logs wrap it
    found: dict[str, float] = {}
    half_widths: dict[str, float] = {}
    for name, forms in _PARTS.items():
        for form in forms:
            match = re.search(form.format(_SIZE), message)
            if match:
                found[name], half_widths[name] = _size(*match.groups()[:2])
                break
    if "wanted_bytes" not in found:
        raise OutOfMemoryTextError(_absent(text))
    if "_reserved_bytes" in found and "allocated_bytes" in found:
        found["reserved_unallocated_bytes"] = max(found["_reserved_bytes"] - found["allocated_bytes"], 0)
        half_widths["reserved_unallocated_bytes"] = half_widths["_reserved_bytes"] + half_widths["allocated_bytes"]
    found.pop("_reserved_bytes", None)
    half_widths.pop("_reserved_bytes", None)
    device = _DEVICE.search(message)
    return OutOfMemory(
        **{name: int(value) for name, value in found.items()},
        device=int(device.group(1)) if device else None,
        other_bytes=tuple(int(_size(*match.groups())[0]) for match in _OTHERS.finditer(message)),
        half_widths=MappingProxyType(half_widths),
        is_segment=True,
    )


def _size(number: str, unit: str) -> tuple[float, float]:
    """Bytes and half of the last digit shown; whole bytes are exact."""
    scale = _UNITS[unit]
    digits = len(number.partition(".")[2])
    return round(float(number) * scale), 0.0 if unit == "bytes" else 0.5 * scale / 10**digits


def _absent(text: str) -> str:
    for sign, what in _ELSEWHERE.items():
        if sign in text:
            return f"no message of torch's caching allocator: {what}"
    return "no 'CUDA out of memory. Tried to allocate ...' in the text: paste the whole message of torch.OutOfMemoryError"


def _shown(size: float) -> str:
    return byte_size(size)


def _between(size: tuple[float, float]) -> str:
    low, high = max(size[0], 0.0), size[1]
    return _shown(high) if _shown(low) == _shown(high) else f"{_shown(low)} to {_shown(high)}"
