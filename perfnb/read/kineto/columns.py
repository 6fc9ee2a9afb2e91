"""The columns of one trace file while it is read: what every parser of events has to fill, and how texts are settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.read.kineto.stamps import MISSING, whole_number

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

# Column -> the keys of an event's arguments that may hold it, the first of them that is there.
INTEGERS: Final[dict[str, tuple[str, ...]]] = {
    "correlation": ("correlation",),
    "stream": ("stream",),
    "device": ("device",),
    "bytes": ("bytes",),
    "sequence": ("Sequence number",),
    "waits_on_stream": ("wait_on_stream",),
    "waits_on_correlation": ("wait_on_cuda_event_record_corr_id",),
    "address": ("Addr",),
    "allocation": ("Bytes",),
    "allocated": ("Total Allocated",),
    "reserved": ("Total Reserved",),
    "device_type": ("Device Type",),
    "device_id": ("Device Id",),
    "order": ("Ev Idx",),
}
HEAD: Final = ("category", "name", "process", "thread")
"""Text columns that stand beside the arguments of an event: its keys cat, name, pid and tid."""

TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "shapes": ("Input Dims", "Input dims"),
    "types": ("Input type",),
    "grid": ("grid",),
    "block": ("block",),
    "occupancy": ("est. achieved occupancy %",),
    "collective": ("Collective name",),
    "dtype": ("dtype",),
    "elements_in": ("In msg nelems",),
    "elements_out": ("Out msg nelems",),
    "group_size": ("Group size",),
    "group": ("Process Group Name",),
    "group_id": ("Process Group ID",),
    "members": ("Process Group Ranks",),
    "first_member": ("Global rank start",),
    "member_stride": ("Global rank stride",),
    "call": ("Seq",),
}
COMPLETE, MEMORY = 0, 1
"""Kinds of rows: a complete event (ph X), an instant named [memory]."""

ABSENT: Final = -1
"""Code of a text that an event does not have."""

UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)  # wrong JSON, no UTF-8, endless digits, nesting
MEMORY_NAME: Final = b'"[memory]"'
SKIPPED: Final = frozenset({"python_function", "trace", "gpu_user_annotation", "cuda_profiler_range", "cuda_event"})


def is_skipped(category: str, *, python: bool) -> bool:
    """Whether complete events of a category (in lower case) are counted only.

    Examples
    --------
    >>> (
    ...     is_skipped("python_function", python=False),
    ...     is_skipped("python_function", python=True),
    ...     is_skipped("kernel", python=False),
    ... )
    (True, False, False)
    """
    return (category in SKIPPED and not (python and category == "python_function")) or category.endswith("_counters")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one stretch of the file, in file order.

    Attributes
    ----------
    kind
        `COMPLETE` or `MEMORY`.
    start, duration
        Nanoseconds as written, without the file's base time; `MISSING` where there is no number.
    integers
        One row per column of `INTEGERS`; `MISSING` where absent.
    texts
        One row per column of `HEAD` and `TEXTS`: codes of tokens, `ABSENT` where absent.
    """

    kind: NDArray[np.int8]
    start: Int64s
    duration: Int64s
    integers: Int64s
    texts: Int32s


class Tokens(Protocol):
    """The distinct texts of a file, each as the JSON value that was written, by number."""

    def code(self, token: bytes) -> int:
        """Number of a JSON value; a new one gets the next number, an empty one is `ABSENT`."""

    def codes(self, values: Sequence[bytes]) -> Int32s:
        """Numbers of many values."""

    def tokens(self) -> Sequence[bytes]:
        """Values by number."""


class Stop(Enum):
    """Why a parser stopped in a stretch of text."""

    MORE = "the text ends inside an entry or after one"
    END = "the list ended"
    ODD = "what follows is no entry that it can read by itself"


class Parser(Protocol):
    """Entries of an event list -> rows. All parsers fill the same columns; what one cannot read by itself, none may guess."""

    columns: Columns

    def stretch(self, text: bytes, start: int) -> tuple[int, int, Stop]:
        """Take whole entries from a position on.

        Parameters
        ----------
        text
            Part of the file.
        start
            Where an entry begins, or the comma before it, or the bracket that ends the list; white space may stand before.

        Returns
        -------
        tuple
            Number of entries taken; position just after the last of them (before the comma), after the bracket where the list
            ended, or `start` where nothing was taken; why it stopped there.
        """

    def entry(self, text: bytes) -> bool:
        """Take one JSON value; False where it is no object, so that nothing was taken.

        Raises
        ------
        msgspec.DecodeError, RecursionError
            If the text is no JSON.
        """


class TokenDict:
    """Tokens in a Python dictionary."""

    def __init__(self) -> None:
        self._codes: dict[bytes, int] = {b"": ABSENT}

    def code(self, token: bytes) -> int:
        """Number of a JSON value; a new one gets the next number, an empty one is `ABSENT`."""
        return self._codes.setdefault(token, len(self._codes) - 1)

    def codes(self, values: Sequence[bytes]) -> Int32s:
        """Numbers of many values."""
        found = list(map(self._codes.get, values))
        if None in found:
            found = list(map(self.code, values))
        return np.array(found, dtype=np.int32)

    def tokens(self) -> Sequence[bytes]:
        """Values by number."""
        return list(self._codes)[1:]


@dataclass(frozen=True, slots=True, eq=False)
class TextColumn:
    """A text per row: codes into `distinct` (sorted, distinct), `ABSENT` where there is none."""

    codes: Int32s
    distinct: NDArray[np.object_]

    def where(self, rows: Int64s | NDArray[np.intp]) -> TextColumn:
        """The given rows, in that order."""
        return TextColumn(self.codes[rows], self.distinct)

    def categorical(self) -> pd.Categorical:
        """As pandas' categorical with only the values that occur."""
        used = np.flatnonzero(np.bincount(self.codes[self.codes >= 0], minlength=len(self.distinct)))
        place = np.full(len(self.distinct) + 1, ABSENT, dtype=np.int32)  # the last entry is that of ABSENT
        place[used] = np.arange(len(used), dtype=np.int32)
        return pd.Categorical.from_codes(place[self.codes], categories=pd.Index(self.distinct[used], dtype="str"))


@dataclass
class Columns:
    """What the parsers of one file have found so far.

    Attributes
    ----------
    tokens
        Texts of the file.
    batches
        Rows, in file order.
    counts
        Entries that became no row, by kind.
    """

    tokens: Tokens
    batches: list[Batch] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def joined(self) -> Batch:
        """All rows as one batch; the batches are let go, so that no row is held twice for long."""
        if len(self.batches) == 1:
            return self.batches[0]
        if not self.batches:
            texts, integers = len(HEAD) + len(TEXTS), len(INTEGERS)
            nothing = np.empty(0, dtype=np.int64)
            return Batch(
                nothing.astype(np.int8),
                nothing,
                nothing,
                nothing.reshape(integers, 0),
                nothing.reshape(texts, 0).astype(np.int32),
            )
        whole = Batch(
            np.concatenate([each.kind for each in self.batches]),
            np.concatenate([each.start for each in self.batches]),
            np.concatenate([each.duration for each in self.batches]),
            np.concatenate([each.integers for each in self.batches], axis=1),
            np.concatenate([each.texts for each in self.batches], axis=1),
        )
        self.batches[:] = [whole]
        return whole


def settled(codes: Int32s, tokens: Sequence[bytes], *, lower: bool = False, whole: bool = False) -> tuple[TextColumn, int]:
    """Text of each row, from the JSON values that were written, and how many of them held bytes that are no UTF-8.

    Parameters
    ----------
    codes
        Token of each row.
    tokens
        JSON values by number.
    lower
        Texts in lower case.
    whole
        Every row has a text: what is absent or null becomes "".
    """
    numbers = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=1))
    replaced = 0
    texts: list[str | None] = []
    for number in numbers.tolist():
        value, is_replaced = value_of(tokens[number])
        replaced += is_replaced
        text = _text(value)
        texts.append(text.lower() if lower and text is not None else text)
    if whole:
        texts = ["" if text is None else text for text in texts]
    values = sorted({text for text in texts if text is not None} | ({""} if whole else set()))
    place = {text: code for code, text in enumerate(values)}
    absent = place[""] if whole else ABSENT
    of_token = np.full(len(tokens) + 1, absent, dtype=np.int32)  # the last entry is that of ABSENT
    of_token[numbers] = [ABSENT if text is None else place[text] for text in texts]
    return TextColumn(of_token[codes], np.array(values, dtype=object)), replaced


def value_of(token: bytes) -> tuple[Any, bool]:
    """Value of a JSON token, None where it is none, and whether bytes that are no UTF-8 were replaced."""
    try:
        return msgspec.json.decode(token), False
    except UNREADABLE:  # of bytes that are no UTF-8 msgspec raises another one from 0.23 on
        replaced = token.decode("utf-8", "replace").encode()
    try:
        return (msgspec.json.decode(replaced) if replaced != token else None), replaced != token
    except UNREADABLE:
        return None, replaced != token


def integer_of(value: object) -> int:
    """Whole number of an argument, also where it is quoted or in hexadecimal; `MISSING` where it is none."""
    if type(value) is not int and type(value) is not str:
        return int(MISSING)
    return whole_number(value)


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, (list, dict)) else str(value)
