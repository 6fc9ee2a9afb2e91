"""Bytes and numbers at an address, compiled by numba without its reference counts. Only what `scanner` loads imports it.

numba counts references of every array that a function touches by atomic instructions: with arrays the scanner took three times as
long (measured). So compiled code gets addresses. The functions here are the only ones that read or write memory; uncompiled, they
take arrays in place of addresses, so that the rest can be tested as plain Python too.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

WIDTH: Final = 16
"""Bytes that `clear_bytes` looks at."""

WORD: Final = 8
"""Bytes that `word` reads."""

_QUOTE, _BACKSLASH, _SPACE = b'"\\ '
_BYTE, _CODE, _NUMBER = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR: Final = ir.VectorType(_BYTE, WIDTH)


def clear_bytes(text: Any, i: int) -> int:
    """How many of the next `WIDTH` bytes stand before a quote, a backslash or a control character."""
    for k in range(WIDTH):
        if text[i + k] < _SPACE or text[i + k] == _QUOTE or text[i + k] == _BACKSLASH:
            return k
    return WIDTH


def byte(text: Any, i: int) -> int:
    """Read a byte; at the end of a text the zero byte after it."""
    return int(text[i])


def word(text: Any, i: int) -> Any:
    """Read the next eight bytes as one number."""
    return np.frombuffer(text[i : i + 8].tobytes(), dtype=np.uint64)[0]


def number(array: Any, i: int) -> int:
    """Read an int64."""
    return int(array[i])


def put_number(array: Any, i: int, value: int) -> None:
    """Write an int64."""
    array[i] = value


def put_code(array: Any, i: int, value: int) -> None:
    """Write an int32."""
    array[i] = value


def put_byte(array: Any, i: int, value: int) -> None:
    """Write a byte."""
    array[i] = value


def _pointer(builder: Any, address: Any, i: Any, kind: Any, size: int) -> Any:
    """Pointer to the item `i` of those of `size` bytes at an address."""
    return builder.inttoptr(builder.add(address, builder.mul(i, ir.Constant(_NUMBER, size))), kind.as_pointer())


def _compile_read(function: Any, kind: Any, size: int, result: Any, after: Any = None) -> None:
    """Say what a function that reads is in compiled code: a load, and what `after` does with it."""

    @intrinsic
    def read(typing: Any, address: Any, i: Any) -> Any:  # noqa: ARG001 - numba's signature
        def generate(_: Any, builder: Any, __: Any, values: Any) -> Any:
            address, i = values
            loaded = builder.load(_pointer(builder, address, i, kind, size), align=1)
            return after(builder, loaded) if after else loaded

        return result(types.int64, types.int64), generate

    overload(function)(lambda text, i: lambda text, i: read(text, i))  # noqa: ARG005, PLW0108 - numba asks for both signatures


def _compile_write(function: Any, kind: Any) -> None:
    """Say what a function that writes is in compiled code: a store."""

    @intrinsic
    def write(typing: Any, address: Any, i: Any, value: Any) -> Any:  # noqa: ARG001 - numba's signature
        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            address, i, value = values
            narrow = builder.trunc(value, kind) if kind.width < _NUMBER.width else value
            builder.store(narrow, _pointer(builder, address, i, kind, kind.width // 8), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    overload(function)(lambda array, i, value: lambda array, i, value: write(array, i, value))  # noqa: ARG005, PLW0108 - as above


def _first_set(builder: Any, read: Any) -> Any:
    """Number of the first byte of a vector that ends a stretch of plain text."""
    found = builder.icmp_unsigned("<", read, ir.Constant(_VECTOR, [_SPACE] * WIDTH))
    for value in (_QUOTE, _BACKSLASH):
        found = builder.or_(found, builder.icmp_unsigned("==", read, ir.Constant(_VECTOR, [value] * WIDTH)))
    bits = builder.zext(builder.bitcast(found, ir.IntType(WIDTH)), _NUMBER)
    return builder.cttz(builder.or_(bits, ir.Constant(_NUMBER, 1 << WIDTH)), ir.Constant(ir.IntType(1), 1))


_compile_read(clear_bytes, _VECTOR, 1, types.int64, _first_set)
_compile_read(byte, _BYTE, 1, types.int64, lambda builder, read: builder.zext(read, _NUMBER))
_compile_read(word, _NUMBER, 1, types.uint64)
_compile_read(number, _NUMBER, 8, types.int64)
_compile_write(put_byte, _BYTE)
_compile_write(put_code, _CODE)
_compile_write(put_number, _NUMBER)
