"""The arguments of events: which columns each group of rows reads from them, and how, by msgspec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from perfnb.read.kineto.columns import ABSENT, HEAD, INTEGERS, TEXTS, UNREADABLE, Batch, Int64s, Tokens, integer_of, value_of
from perfnb.read.kineto.stamps import MISSING

_RAW: Final = msgspec.Raw(b"")


def _arguments(name: str, integers: Iterable[str], texts: Iterable[str]) -> type[msgspec.Struct]:
    """Struct with one field for each key of the given columns, named as the key."""
    columns: list[tuple[str, Any, Any]] = [(key, Any, MISSING) for column in integers for key in INTEGERS[column]]
    columns += [(key, msgspec.Raw, _RAW) for column in texts for key in TEXTS[column]]
    fields = [
        (f"f{number}", kind, msgspec.field(name=key, default=default)) for number, (key, kind, default) in enumerate(columns)
    ]
    return msgspec.defstruct(name, fields, gc=False)


_FIRST_COLLECTIVE: Final = len(HEAD) + list(TEXTS).index("collective")
_COLLECTIVE: Final = tuple(TEXTS)[tuple(TEXTS).index("collective") :]
_HOST: Final = (("correlation", "stream", "sequence", "waits_on_stream", "waits_on_correlation"), ("shapes", "types"))
_DEVICE: Final = (("correlation", "stream", "device", "bytes"), ("grid", "block", "occupancy"))
_MEMORY: Final = (("address", "allocation", "allocated", "reserved", "device_type", "device_id", "order"), ())
DEVICE_CATEGORIES: Final = frozenset(
    {"kernel", "gpu_memcpy", "memcpy", "gpu_memset", "memset", "mtia_ccp_events", "collective_comm"}
)


class Group:
    """Rows of one kind that share the columns to be read from their arguments."""

    def __init__(self, name: str, integers: Sequence[str], texts: Sequence[str]) -> None:
        struct = _arguments(name, integers, texts)
        self._decode_all: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[struct]).decode  # type: ignore[valid-type]  # made above
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(struct).decode
        self._decode_keys: Callable[[bytes], Any] = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
        keys = iter(struct.__struct_fields__)
        self.integers = [(list(INTEGERS).index(column), [next(keys) for _ in INTEGERS[column]]) for column in integers]
        self.texts = [(len(HEAD) + list(TEXTS).index(column), [next(keys) for _ in TEXTS[column]]) for column in texts]
        self.collective = np.array([row for row, _ in self.texts if row >= _FIRST_COLLECTIVE], dtype=np.intp)

    def fill(self, batch: Batch, index: NDArray[np.intp], arguments: Sequence[bytes], tokens: Tokens) -> None:
        """Write the columns of the given rows; those of a collective only where there is its name."""
        values = self._values(arguments)
        for row, keys in self.integers:
            batch.integers[row, index] = _integers(list(map(attrgetter(keys[0]), values)))
        for row, keys in self.texts:
            found = list(map(attrgetter(keys[0]), values))
            for other in keys[1:]:
                found = [each or getattr(value, other) for each, value in zip(found, values, strict=True)]
            batch.texts[row, index] = tokens.codes(list(map(bytes, found)))
        if len(self.collective):
            unnamed = index[batch.texts[self.collective[0], index] == ABSENT]
            batch.texts[self.collective[:, np.newaxis], unnamed] = ABSENT

    def _values(self, arguments: Sequence[bytes]) -> list[Any]:
        try:
            return self._decode_all(b"[" + b",".join([each or b"{}" for each in arguments]) + b"]")
        except UNREADABLE:
            return [self._value(each) for each in arguments]

    def _value(self, text: bytes) -> Any:
        """Arguments of one event in which a value is out of its type's range: that value counts as absent."""
        try:
            return self._decode(text or b"{}")
        except UNREADABLE:
            pass
        return self._decode(_without_bad_values(text))


def _without_bad_values(text: bytes) -> bytes:
    try:
        values = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        replaced = text.decode("utf-8", "replace").encode()
        return _without_bad_values(replaced) if replaced != text else b"{}"  # arguments that are no object
    readable = {key: value_of(bytes(raw))[0] for key, raw in values.items()}
    return msgspec.json.encode({key: value for key, value in readable.items() if value is not None})


COLUMNS_OF: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "host": _HOST,
    "host with a collective": (_HOST[0], (*_HOST[1], *_COLLECTIVE)),
    "device": _DEVICE,
    "device with a collective": (_DEVICE[0], (*_DEVICE[1], *_COLLECTIVE)),
    "memory": _MEMORY,
}
"""Groups of rows -> the columns of `INTEGERS` and of `TEXTS` that are read from their arguments."""

GROUPS: Final = tuple(Group(name, *columns) for name, columns in COLUMNS_OF.items())
HOST_ROWS, DEVICE_ROWS, MEMORY_ROWS = 0, 2, 4
"""Positions in `GROUPS`; the one after a group of host or device rows is the same with a collective."""

_LARGEST: Final = -MISSING


def _integers(values: list[object]) -> Int64s:
    if set(map(type, values)) == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    return np.fromiter(
        (value if type(value) is int and -_LARGEST < value < _LARGEST else integer_of(value) for value in values),
        np.int64,
        len(values),
    )
