"""One trace file while it is read: where its event list begins and ends, the keys around it, and what to do with damage."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perfnb.errors import EXPORT_HINT, NotATraceError, TraceFormatError
from perfnb.read.kineto.columns import Parser, Stop
from perfnb.read.kineto.repair import TOO_DEEP, Found, NextEntry, is_unfinished, mended_texts, next_entry
from perfnb.read.kineto.source import Pieces, what_it_is

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LONGEST_INTEGER: Final = 400  # digits: past it a number is no number of a trace, and Python refuses from 4,300 on
_DECODER: Final = json.JSONDecoder(strict=False, parse_int=lambda text: int(text) if len(text) < _LONGEST_INTEGER else text)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SHOWN_BYTES: Final = 60
_OTHERS: Final = (  # keys of other files that profilers write -> what they are
    (frozenset({"schema", "nodes"}), "a PyTorch execution trace (the graph, without times on the device)"),
    (frozenset({"rocprofiler-sdk-tool"}), "an output of rocprofv3"),
)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a file ends early: byte of the text, number of the event, and whether the event list was whole."""

    byte: int
    event: int
    list_is_whole: bool
    reason: str = ""


@dataclass
class TraceFile:
    """One file while it is read.

    Attributes
    ----------
    path
        The file.
    partial
        Whether a file that is malformed before its end is read up to there.
    keys
        Top-level keys of the file other than the event list.
    entries
        Entries of the list that were read, those that are no events included.
    dropped
        Entries that are JSON, but no event.
    repairs
        What had to be repaired, and in how many entries.
    cut
        Where the file ends early, None where it does not.
    """

    path: Path
    partial: bool = False
    keys: dict[str, Any] = field(default_factory=dict)
    entries: int = 0
    dropped: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    cut: Cut | None = None
    _offset: int = 0  # of the text at hand in the whole text

    def read(self, parser: Parser) -> None:
        """Take all entries of the file into a parser, in file order.

        Raises
        ------
        NotATraceError
            If the file is no trace; says what it seems to be.
        TraceFormatError
            If the file is malformed before its end; names the byte and the event.
        """
        pieces = Pieces(self.path)
        stream = iter(pieces)
        text, bare = self._until_list(stream, pieces)
        rest = self._list(text, stream, pieces, parser)
        if rest is not None:
            self._tail(rest + b"".join(stream), pieces, bare=bare)
        if self.entries == self.dropped and self.dropped:
            raise NotATraceError(self.path.name, f"a list of {self.dropped:,} entries, none of them an event")
        if not self.entries and self.cut is None:
            message = f"{self.path.name} holds an empty event list: nothing was recorded; {EXPORT_HINT}"
            raise TraceFormatError(message)

    def _list(self, text: bytes, stream: Iterator[bytes], pieces: Pieces, parser: Parser) -> bytes | None:
        """Take the entries; the text after the list, or None where it does not end."""
        position, complete = 0, False
        while True:
            taken, position, stop = parser.stretch(text, position)
            self.entries += taken
            if stop is Stop.END:
                break
            found = next_entry(text, position, complete=complete) if stop is Stop.ODD or complete else NextEntry(Found.MORE)
            if found.found is Found.MORE:
                piece = next(stream, b"")
                self._offset += position
                text, position, complete = text[position:] + piece, 0, not piece
            elif found.found is Found.ENTRY:
                self._take(found, parser)
                position = found.end
            elif found.found is Found.END:
                self.repairs.update(found.repairs)
                position = found.end
                break
            elif found.found is Found.CUT and not pieces.damage:
                if found.text:
                    self._take(found, parser)
                self.cut = Cut(self._offset + len(text), self.entries + 1, list_is_whole=False)
                return None
            else:
                self._stop(text, found.at or position, pieces.damage or found.reason)
                return None
        self._offset += position
        return text[position:]

    def _take(self, found: NextEntry, parser: Parser) -> None:
        self.entries += 1
        if parser.entry(found.text):
            self.repairs.update(found.repairs)
        else:
            self.dropped += 1

    def _stop(self, text: bytes, position: int, reason: str) -> None:
        """Give up at a place before the end of the file: an error, or what was read so far where that was asked for."""
        if self.partial:
            self.cut = Cut(self._offset + position, self.entries + 1, list_is_whole=False, reason=reason)
            return
        around = text[max(position - _SHOWN_BYTES // 2, 0) : position + _SHOWN_BYTES // 2].decode("utf-8", "replace")
        message = (
            f"{self.path.name} is malformed in event {self.entries + 1:,}, {self._offset + position:,} bytes into the text "
            f"(uncompressed), near {around!r}: {reason}; record or copy it again, or pass partial=True to read it up to there"
        )
        raise TraceFormatError(message)

    def _until_list(self, stream: Iterator[bytes], pieces: Pieces) -> tuple[bytes, bool]:
        """Text from the first event on, and whether the file is a bare list."""
        text, tried = b"", 0
        for piece in stream:
            text = (text + piece).removeprefix(_BYTE_ORDER_MARK)
            start = text.lstrip()
            if not start:
                continue
            if (other := what_it_is(start)) is not None:
                message = f"{self.path.name} is no profiler trace but {other}; {EXPORT_HINT}"
                raise TraceFormatError(message)
            if start.startswith(b"["):
                self._offset = len(text) - len(start) + 1
                return start[1:], True
            if tried and len(text) < 2 * tried:
                continue  # a long value before the list: decode it again only when twice as much is there
            tried = len(text)
            if (begin := self._head(text)) is not None:
                self._offset = begin
                return text[begin:], False
        if text and (begin := self._head(text)) is not None:
            self._offset = begin
            return text[begin:], False
        raise self._no_list(text, pieces)

    def _head(self, text: bytes) -> int | None:
        """Position of the first event, after the keys before it; None where the list has not begun yet."""
        decoded = text.decode("latin-1")  # keeps positions; keys and values are decoded again as UTF-8
        self.keys, end, _ = _members(decoded, decoded.index("{") + 1, until="traceEvents")
        if end is None:
            return None
        at = _SPACE.match(decoded, end).end()  # type: ignore[union-attr]  # it matches the empty text too
        return at + 1 if decoded[at : at + 1] == "[" else None

    def _no_list(self, text: bytes, pieces: Pieces) -> TraceFormatError:
        size = f"of {len(text):,} bytes"
        if pieces.cut_off or pieces.damage:
            why = pieces.damage or "cut off"
            return TraceFormatError(f"{self.path.name}: its gzip stream is damaged before the first event ({why}, {size} read)")
        if not text.strip():
            return TraceFormatError(f"{self.path.name} holds nothing but white space ({size}): {EXPORT_HINT}")
        decoded = text.decode("latin-1")
        keys, _, position = _members(decoded, decoded.index("{") + 1)
        if decoded[position : position + 1] != "}":
            return TraceFormatError(
                f"{self.path.name} is no valid JSON, or ends early: "
                f"{decoded[position : position + _SHOWN_BYTES]!r} at byte {position:,} ({size}) before any event"
            )
        for known, what in _OTHERS:
            if known <= keys.keys():
                return NotATraceError(self.path.name, what)
        return NotATraceError(self.path.name, f"JSON with {', '.join(list(keys)[:6]) or 'no key'} and no list traceEvents")

    def _tail(self, text: bytes, pieces: Pieces, *, bare: bool) -> None:
        """The keys after the list; where they are cut off, those before the cut."""
        position = 0
        if not bare:
            keys, _, position = _members(text.decode("latin-1"), 0)
            if text[position : position + 1] != b"}" and (mended := mended_texts(text)) != text:
                keys, _, end = _members(mended.decode("latin-1"), 0)
                if mended[end : end + 1] == b"}":
                    text, position = mended, end
                    self.repairs["texts beside the events"] += 1
            if "traceEvents" in keys:
                self._stop(text, position, "a second list traceEvents")
                return
            self.keys |= keys
            if text[position : position + 1] != b"}":
                self._cut_or_stop(text, position, pieces)
                return
            position += 1
        if pieces.damage:
            self._stop(text, position, pieces.damage)
        elif text[position:].strip(b" \t\r\n\0"):
            self._stop(text, position, "nothing may follow the trace")

    def _cut_or_stop(self, text: bytes, position: int, pieces: Pieces) -> None:
        if pieces.damage:
            self._stop(text, position, pieces.damage)
            return
        reason, at = _why(text[position:].decode("latin-1"))
        if is_unfinished(text, position + at, reason):
            self.cut = Cut(self._offset + len(text), self.entries, list_is_whole=True)
        else:
            self._stop(text, position + at, reason)


def _why(text: str) -> tuple[str, int]:
    """Why a key and its value are no JSON, and where."""
    try:
        json.JSONDecoder(strict=False).decode("{" + text.rstrip() + "}")
    except json.JSONDecodeError as error:
        return error.msg, min(error.pos - 1, len(text))
    except (RecursionError, ValueError):
        return TOO_DEEP, 0
    return "Expecting ',' delimiter", len(text)


def _members(text: str, start: int, until: str | None = None) -> tuple[dict[str, Any], int | None, int]:
    """Keys and values of an object from inside it on.

    Parameters
    ----------
    text
        JSON decoded as Latin-1.
    start
        After the opening brace, or after a value.
    until
        Stop before the value of this key.

    Returns
    -------
    tuple
        Members that are whole; position of the value of `until`, None where it was not met; where decoding stopped.
    """
    members: dict[str, Any] = {}
    position = start
    while True:
        begin = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if text[begin : begin + 1] == ",":
            begin = _SPACE.match(text, begin + 1).end()  # type: ignore[union-attr]
        position = begin
        try:
            key, end = _DECODER.raw_decode(text, begin)
            end = _SPACE.match(text, end).end()  # type: ignore[union-attr]
            if type(key) is not str or text[end : end + 1] != ":":
                return members, None, position
            end = _SPACE.match(text, end + 1).end()  # type: ignore[union-attr]
            if key == until:
                return members, end, end
            begin = end
            value, end = _DECODER.raw_decode(text, begin)
            members[_utf8(key)] = value if text[begin:end].isascii() else _DECODER.decode(_utf8(text[begin:end]))
        except (json.JSONDecodeError, RecursionError):
            return members, None, position
        position = end


def _utf8(text: str) -> str:
    """Text that was decoded as Latin-1, decoded as UTF-8; bytes that are none are replaced."""
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text  # it was written with escapes
