"""Plain data of a pickle, which can run nothing: its bytes are checked before the unpickler of the standard library sees them."""

from __future__ import annotations

import gc
import io
import pickle
import time
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from perfnb.read.memory_snapshot.pickle_scan import refuse, unframed
from perfnb.read.memory_snapshot.plain_tree import PlainTree

__all__ = ["Limits", "load_plain"]

_READ_AHEAD: Final = 4096  # bytes the unpickler gets between two looks at the clock
_RAISED: Final = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)
"""What the C unpickler raises for bad input."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pickle may take; an error names the limit that it hit.

    Attributes
    ----------
    file_bytes
        Its size.
    opcodes
        Its instructions: up to 72 bytes of memory each.
    seconds, seconds_per_mib
        CPU time to load it: the first, and the second for each MiB. Dictionary keys that collide would take hours.
    depth
        Containers inside one another.
    nodes
        Values, where what is shared counts each time that it is met.
    """

    file_bytes: int = 512 << 20
    opcodes: int = 32_000_000  # a million events without frames have 20 million
    seconds: float = 1.5
    seconds_per_mib: float = 0.5
    depth: int = 64
    nodes: int = 200_000_000


def load_plain(data: bytes, limits: Limits = Limits(), name: str = "pickle", *, is_walked: bool = True) -> Any:
    """Value of a pickle that holds only dict, list, tuple, str, int, float, bool and None.

    Nothing in the file can run: every instruction is checked against a list of harmless ones before any is executed.

    Parameters
    ----------
    data
        The pickle, protocol 2 to 5.
    limits
        What it may take.
    name
        What to call it in errors.
    is_walked
        Whether the caller may walk all of it: then it is a tree of limited depth and size, shared parts counted each time, whose
        dictionaries have keys of str or int. A reader that takes what it knows from known places needs none of that.

    Returns
    -------
    Any
        The value.

    Raises
    ------
    UnsafePickle
        If it holds, or would do, anything else, or is damaged: says where and what.

    Examples
    --------
    >>> load_plain(pickle.dumps({"segments": [1, (2.5, None)]}, protocol=4))
    {'segments': [1, (2.5, None)]}
    >>> load_plain(pickle.dumps(print, protocol=4), name="x.pickle")
    Traceback (most recent call last):
    perfnb.errors.UnsafePickle: x.pickle: byte 30 is the instruction STACK_GLOBAL, which plain data does not have
    """
    if len(data) > limits.file_bytes:
        refuse(name, f"{len(data):,} bytes are over the limit of {limits.file_bytes:,} bytes")
    pieces = list(unframed(data, limits.opcodes, name))
    seconds = limits.seconds + limits.seconds_per_mib * len(data) / (1 << 20)
    was_collecting = gc.isenabled()
    gc.disable()  # a million new dictionaries would be looked through again and again
    try:
        value = _Locked(_Timed(b"".join(pieces), time.process_time() + seconds)).load()
    except _TooSlowError:
        refuse(name, f"loading takes more than {seconds:.1f} s of CPU time")
    except _RAISED as error:
        refuse(name, f"is damaged: {error}")
    finally:
        if was_collecting:
            gc.enable()
    if is_walked:
        PlainTree(limits.depth, limits.nodes, name).check(value)
    return value


class _TooSlowError(Exception):
    """The time to load is used up."""


class _Timed(io.RawIOBase):
    """Bytes that are handed out a little at a time, until the time is used up."""

    def __init__(self, data: bytes, until: float) -> None:
        super().__init__()
        self._data, self._position, self._until = data, 0, until

    def peek(self, _size: int = 0) -> bytes:
        """Next bytes, which stay."""
        if time.process_time() > self._until:
            raise _TooSlowError
        return self._data[self._position : self._position + _READ_AHEAD]

    def read(self, size: int = -1) -> bytes:
        """Next bytes."""
        start, self._position = self._position, self._position + size
        return self._data[start : self._position]

    def readline(self, _size: int | None = -1, /) -> bytes:
        """Nothing: only instructions that are refused ask for lines."""
        return b""


class _Locked(pickle.Unpickler):
    # a second lock: the scan lets no instruction by that names a class
    def find_class(self, module: str, name: str, /) -> NoReturn:
        """Refuse: plain data names no class."""
        message = f"names {module}.{name}"
        raise pickle.UnpicklingError(message)

    def persistent_load(self, identity: object, /) -> NoReturn:
        """Refuse: plain data has no references to the outside."""
        message = f"refers to {identity!r} outside"
        raise pickle.UnpicklingError(message)
