"""Every instruction of a pickle looked at before any is run: harmless ones only, and none that asks for too much."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from typing import Final, NoReturn

from perfnb.errors import UnsafePickle

_REFUSED, _MEMOIZE, _SHORT_PUT, _LONG_PUT, _FRAME, _TEXT_1, _TEXT_4, _TEXT_8, _LONG, _TUPLE, _PROTOCOL, _STOP = range(-12, 0)
_ARGUMENT: Final = [_REFUSED] * 256
"""By opcode: bytes of its argument, or one of the kinds above (pickletools.opcodes is the list of all)."""
for _opcodes, _kind in {
    pickle.EMPTY_DICT + pickle.EMPTY_LIST + pickle.EMPTY_TUPLE + pickle.MARK + pickle.NONE + pickle.NEWTRUE: 0,
    pickle.NEWFALSE + pickle.APPEND + pickle.APPENDS + pickle.SETITEM + pickle.SETITEMS: 0,
    pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3: _TUPLE,
    pickle.BININT1 + pickle.BINGET: 1,
    pickle.BININT2: 2,
    pickle.BININT + pickle.LONG_BINGET: 4,
    pickle.BINFLOAT: 8,
    pickle.MEMOIZE: _MEMOIZE,
    pickle.BINPUT: _SHORT_PUT,
    pickle.LONG_BINPUT: _LONG_PUT,
    pickle.FRAME: _FRAME,
    pickle.SHORT_BINUNICODE: _TEXT_1,
    pickle.BINUNICODE: _TEXT_4,
    pickle.BINUNICODE8: _TEXT_8,
    pickle.LONG1: _LONG,
    pickle.PROTO: _PROTOCOL,
    pickle.STOP: _STOP,
}.items():
    for _opcode in _opcodes:
        _ARGUMENT[_opcode] = _kind

_WIDTH: Final = {_TEXT_1: 1, _TEXT_4: 4, _TEXT_8: 8, _SHORT_PUT: 1, _LONG_PUT: 4, _LONG: 1, _FRAME: 8}
"""Bytes of the number that follows."""
_MOST_TUPLES: Final = 4000
"""With so few, keys that collide cost a quarter of a second at most until the clock is looked at again."""
_MOST_IN_BATCH: Final = 10_000
_MARK, _SETITEMS = pickle.MARK[0], pickle.SETITEMS[0]
_TAKE_MARK: Final = frozenset(pickle.SETITEMS + pickle.APPENDS + pickle.TUPLE)
_COUNTED: Final = (_MEMOIZE, _TUPLE)
_PUTS: Final = (_SHORT_PUT, _LONG_PUT)
_PROTOCOLS: Final = range(2, 6)
_WIDEST_LONG: Final = 9  # bytes: an address of 64 bits and its sign
_WIDEST_LONG_SIZE: Final = bytes((_WIDEST_LONG,))


def unframed(data: bytes, most: int, name: str) -> Iterator[bytes]:
    """Pieces of a pickle without its frames, every instruction of it checked.

    A frame only says how much to read at once; without it the unpickler comes back often enough to be stopped.

    Parameters
    ----------
    data
        The pickle.
    most
        Most instructions.
    name
        What to call it in errors.

    Yields
    ------
    bytes
        What stands between two frames.

    Raises
    ------
    UnsafePickle
        If there is an instruction that plain data does not have, or the pickle is damaged.
    """
    end, position, start, writes, tuples = len(data), _after_protocol(data, name), 0, 0, 0
    arguments = _ARGUMENT
    for _ in range(most):
        if position >= end:
            refuse(name, "ends without the instruction STOP: it is cut short, or no pickle")
        kind = arguments[data[position]]
        if kind >= 0:
            position += kind + 1
        elif kind == _LONG and b"" < data[position + 1 : position + 2] <= _WIDEST_LONG_SIZE:  # first, as most addresses are
            position += 2 + data[position + 1]
        elif kind in _COUNTED:
            position += 1
            writes += kind == _MEMOIZE
            tuples += kind == _TUPLE
        elif kind == _STOP:
            _check_end(data, position, tuples, name)
            yield data[start:]
            return
        elif kind not in _WIDTH:
            refuse(name, f"byte {position} is {_named(data[position])}, which plain data does not have")
        else:
            after = position + 1 + _WIDTH[kind]
            number = int.from_bytes(data[position + 1 : after], "little")
            if problem := _problem(kind, number, writes, end - after):
                refuse(name, f"byte {position} {problem}")
            if kind in _PUTS:
                writes += 1
            elif kind == _FRAME:
                yield data[start:position]
                start = after
            else:
                after += number
            position = after
    refuse(name, f"has more than {most:,} instructions, the limit")


def _check_end(data: bytes, position: int, tuples: int, name: str) -> None:
    if position + 1 != len(data):
        refuse(name, f"{len(data) - position - 1:,} bytes follow its end at byte {position}")
    if tuples > _MOST_TUPLES:
        _check_batches(data, name)


def _check_batches(data: bytes, name: str) -> None:
    """Refuse to fill a dictionary with very many keys in one instruction, which nothing could stop.

    Tuples can be made to collide: 60,000 of them as keys took a minute in one instruction. Picklers write 1,000 at a time.
    """
    position, arguments = 2, _ARGUMENT
    levels: list[int] = []  # of each mark: instructions of the level around it so far
    own = 0
    while True:
        opcode = data[position]
        kind = arguments[opcode]
        own += 1
        if opcode == _MARK:
            levels.append(own)
            own = 0
        elif opcode in _TAKE_MARK and levels:
            if opcode == _SETITEMS and own > _MOST_IN_BATCH:
                refuse(name, f"byte {position} fills a dictionary with more than {_MOST_IN_BATCH:,} instructions at once")
            own = levels.pop()
        if kind >= 0:
            position += kind + 1
        elif kind in _WIDTH:
            after = position + 1 + _WIDTH[kind]
            has_content = kind not in _PUTS and kind != _FRAME
            position = after + (int.from_bytes(data[position + 1 : after], "little") if has_content else 0)
        elif kind == _STOP:
            return
        else:
            position += 1


def refuse(name: str, what: str) -> NoReturn:
    """Raise the error that says what a pickle is."""
    message = f"{name}: {what}"
    raise UnsafePickle(message)


def _after_protocol(data: bytes, name: str) -> int:
    if data[:1] != pickle.PROTO or len(data) < 2 or data[1] not in _PROTOCOLS:  # noqa: PLR2004 - the instruction and its argument
        refuse(name, "is no pickle of protocol 2 to 5")
    return 2


def _problem(kind: int, number: int, writes: int, left: int) -> str:
    """What is wrong with the number of an instruction; empty where nothing is."""
    if kind in _PUTS:  # the unpickler makes a table of that many entries: 9 bytes took 1 GiB
        return f"writes memo entry {number:,} after only {writes:,}" if number > writes else ""
    if kind == _LONG and number > _WIDEST_LONG:
        return f"begins a number of {number} bytes, more than {_WIDEST_LONG}"
    return "begins what goes past the end: the file is cut short" if number > left else ""


def _named(opcode: int) -> str:
    names = {known.code: known.name for known in pickletools.opcodes}
    return f"the instruction {names[chr(opcode)]}" if chr(opcode) in names else f"{opcode:#04x}, no instruction"
