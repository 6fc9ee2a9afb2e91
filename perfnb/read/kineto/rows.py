"""One trace file -> its rows as columns, by the parser that suits its size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perfnb.errors import PerfnbError, TraceFormatError
from perfnb.read.kineto import scanner
from perfnb.read.kineto.columns import (
    COMPLETE,
    HEAD,
    INTEGERS,
    MEMORY,
    TEXTS,
    Batch,
    Int64s,
    Parser,
    TextColumn,
    integer_of,
    settled,
)
from perfnb.read.kineto.events import Cut, TraceFile
from perfnb.read.kineto.scanner import ScanParser
from perfnb.read.kineto.source import text_bytes
from perfnb.read.kineto.stamps import MISSING
from perfnb.read.kineto.structs import StructParser

ParserName = Literal["auto", "msgspec", "numba"]
PARSERS: Final = ("auto", "msgspec", "numba")
_LATEST_NS: Final = 2**62  # 146 years: sums of two such times stay below 2**63; MISSING is past it too
LARGEST_DROPPED_SHARE: Final = 0.01  # a choice: more than that and the file is not what it claims to be


@dataclass(frozen=True, slots=True, eq=False)
class RawTrace:
    """Complete events and memory events of one file as columns, in file order.

    Attributes
    ----------
    path
        The file.
    texts
        Columns category (lower case), name, process, thread, and those of `columns.TEXTS` as JSON or plain text.
    integers
        Columns of `columns.INTEGERS`; `MISSING` where absent.
    start_ns, duration_ns
        Absolute whole nanoseconds (with the file's base time).
    complete, memory
        Positions of the complete events (ph X) and of the memory events.
    keys
        Top-level keys of the file other than the event list.
    counts
        Entries that became no row, by kind.
    entries
        Entries of the event list; complete + memory + counts.
    repairs
        What had to be repaired, and in how many entries.
    cut
        Where the file ends early, None where it does not.
    remark
        Why the fast parser could not be used, where it would have been.
    """

    path: Path
    texts: dict[str, TextColumn]
    integers: dict[str, Int64s]
    start_ns: Int64s
    duration_ns: Int64s
    complete: NDArray[np.intp]
    memory: NDArray[np.intp]
    keys: dict[str, Any]
    counts: Counter[str]
    entries: int
    repairs: Counter[str]
    cut: Cut | None
    remark: str = ""


def read_rows(path: Path, *, python: bool = False, partial: bool = False, parser: ParserName = "auto") -> RawTrace:
    """Rows of one trace file.

    Parameters
    ----------
    path
        A plain or gzip JSON file.
    python
        Whether to keep the rows of Python functions, often nine tenths of a file.
    partial
        Whether a file that is malformed before its end is read up to there.
    parser
        "msgspec", "numba" (the extra `perfnb[fast]`), or "auto": numba for large files where it is installed.

    Returns
    -------
    RawTrace
        One row per event that was kept.

    Raises
    ------
    TraceFormatError
        If the file is no trace, is damaged before its end, or over 1 % of its entries are no events.
    PerfnbError
        If the parser is not known or not installed.
    """
    file = TraceFile(path, partial=partial)
    made, remark = _parser(parser, path, python=python)
    file.read(made)
    columns = made.columns
    batch = columns.joined()
    counts = columns.counts + Counter()
    start = np.where(_is_time(batch.start), batch.start, 0) + _base_ns(file.keys)  # both below 2**62: no overflow
    kept = _is_time(batch.start) & _is_time(start) & ((batch.kind == MEMORY) | (_is_time(batch.duration) & (batch.duration >= 0)))
    has_size = batch.integers[list(INTEGERS).index("allocation")] != MISSING
    counts["events without a readable start or duration"] += int((~kept).sum())
    counts["memory events without a readable size"] += int((kept & (batch.kind == MEMORY) & ~has_size).sum())
    counts["entries that are no events"] += file.dropped
    texts, replaced = _texts(batch, columns.tokens.tokens())
    file.repairs["names with bytes that are no UTF-8"] += replaced
    raw = RawTrace(
        path=path,
        texts=texts,
        integers=dict(zip(INTEGERS, batch.integers, strict=True)),
        start_ns=start,
        duration_ns=batch.duration,
        complete=np.flatnonzero(kept & (batch.kind == COMPLETE)),
        memory=np.flatnonzero(kept & (batch.kind == MEMORY) & has_size),
        keys=file.keys,
        counts=+counts,
        entries=file.entries,
        repairs=+file.repairs,
        cut=file.cut,
        remark=remark,
    )
    _refuse_useless(raw)
    return raw


def _is_time(values: Int64s) -> NDArray[np.bool_]:
    """Whether times are there and small enough to be added up."""
    return (values > -_LATEST_NS) & (values < _LATEST_NS)


def _base_ns(keys: dict[str, Any]) -> int:
    base = integer_of(keys.get("baseTimeNanoseconds"))
    return base if abs(base) < _LATEST_NS else 0


def _parser(name: ParserName, path: Path, *, python: bool) -> tuple[Parser, str]:
    """The parser to use, and why it is not the one for large files where that would have been better."""
    if name not in PARSERS:
        message = f"parser={name!r} is not known: use one of {', '.join(PARSERS)}"
        raise PerfnbError(message)
    if name == "numba":
        return ScanParser(python=python), ""
    if name == "auto" and scanner.pays(text_bytes(path)):
        try:
            return ScanParser(python=python), ""
        except scanner.ScannerError as error:
            return StructParser(python=python), str(error)
    return StructParser(python=python), ""


def _texts(batch: Batch, tokens: Any) -> tuple[dict[str, TextColumn], int]:
    texts: dict[str, TextColumn] = {}
    replaced = 0
    for name, codes in zip((*HEAD, *TEXTS), batch.texts, strict=True):
        texts[name], here = settled(codes, tokens, lower=name == "category", whole=name in HEAD)
        replaced += here if name in HEAD else 0
    return texts, replaced


def _refuse_useless(raw: RawTrace) -> None:
    dropped = raw.counts["entries that are no events"] + raw.counts["events without a readable start or duration"]
    if dropped > LARGEST_DROPPED_SHARE * max(raw.entries, 1):
        message = f"{raw.path.name}: {dropped:,} of {raw.entries:,} entries are no events: this is no usable trace"
        raise TraceFormatError(message)
    if not len(raw.complete):
        message = (
            f"{raw.path.name} ends early at byte {raw.cut.byte:,} (uncompressed), before its first complete event: "
            "record or copy it again"
            if raw.cut
            else f"{raw.path.name} holds no complete event (ph X) that could be used: "
            "record with activities=[ProfilerActivity.CPU, ...]"
        )
        raise TraceFormatError(message)
