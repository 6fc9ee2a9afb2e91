"""The event list of one trace file, decoded in chunks, with the keys that stand before and after it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from perfnb.errors import EXPORT_HINT, NotATraceError, TraceFormatError
from perfnb.read.kineto.source import pieces, what_it_is

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LIST_START: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_LIST_END: Final = re.compile(rb"[\[}]\s*(\])\s*(?:,|\}|$)")
_ANY_LIST_END: Final = re.compile(rb"(\])\s*(?:,|\}|$)")  # where the last entry is no event
_TRIES: Final = 16  # candidates for a boundary; the first nearly always is one
_LONGEST_EVENT_BYTES: Final = 256 << 20  # past this, text in which no event ends is damaged


class Arguments(msgspec.Struct, rename=None):
    """The arguments of an event that any table needs; `Any`, since older writers quote numbers."""

    correlation: Any = None
    stream: Any = None
    device: Any = None
    bytes: Any = None
    sequence: Any = msgspec.field(name="Sequence number", default=None)
    collective: Any = msgspec.field(name="Collective name", default=None)
    dtype: Any = None
    elements_in: Any = msgspec.field(name="In msg nelems", default=None)
    elements_out: Any = msgspec.field(name="Out msg nelems", default=None)
    group_size: Any = msgspec.field(name="Group size", default=None)
    group: Any = msgspec.field(name="Process Group Name", default=None)
    call: Any = msgspec.field(name="Seq", default=None)
    shapes: Any = msgspec.field(name="Input Dims", default=None)
    types: Any = msgspec.field(name="Input type", default=None)


class Event(msgspec.Struct):
    """One entry of the event list; stamps stay text, so that no digit is lost to float64."""

    ph: Any = None
    cat: Any = None
    name: Any = None
    pid: Any = None
    tid: Any = None
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    args: Arguments | None = None


@dataclass
class TraceFile:
    """One file while it is read.

    Attributes
    ----------
    keys
        Top-level keys of the file other than the event list; complete once `events` is exhausted.
    dropped
        Entries that are valid JSON, but no event.
    replaced
        Whether bytes that are no UTF-8 were replaced in names.
    """

    path: Path
    keys: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0
    replaced: bool = False
    _count: int = 0
    _offset: int = 0

    def events(self) -> Iterator[list[Event]]:
        """Events of the file in chunks, in file order.

        Raises
        ------
        NotATraceError
            If the file is no trace; says what it seems to be.
        TraceFormatError
            If the file is damaged or ends early; names the byte and the event.
        """
        stream = pieces(self.path)
        rest, bare = self._until_list(stream)
        ended: int | None = None
        for piece in stream:
            rest += piece
            if (whole := self._whole_events(rest)) is not None:
                chunk, cut = whole
                self._offset += cut
                rest = rest[cut:]
                yield chunk
            elif (found := self._end_of_list(rest)) is not None:
                chunk, ended = found
                rest = rest[ended:] + b"".join(stream)
                yield chunk
                break
            elif len(rest) > _LONGEST_EVENT_BYTES:
                raise self._malformed(rest)
        if ended is None:
            found = self._end_of_list(rest)
            if found is None:
                raise self._malformed(rest)
            chunk, ended = found
            rest = rest[ended:]
            yield chunk
        if not bare:
            self._tail(rest)
        if not self._count and self.dropped:
            raise NotATraceError(self.path.name, f"a list of {self.dropped:,} entries, none of them an event")
        if not self._count:
            message = f"{self.path.name} holds an empty event list: nothing was recorded; {EXPORT_HINT}"
            raise TraceFormatError(message)

    def _until_list(self, stream: Iterator[bytes]) -> tuple[bytes, bool]:
        """Content from the first event on, and whether the file is a bare list."""
        text = b""
        for piece in stream:
            text += piece
            if text.startswith(_BYTE_ORDER_MARK):
                text = text[len(_BYTE_ORDER_MARK) :]
            text = text.lstrip()
            if (other := what_it_is(text)) is not None:
                message = f"{self.path.name} is no profiler trace but {other}; {EXPORT_HINT}"
                raise TraceFormatError(message)
            if text.startswith(b"["):
                return text[1:], True
            for match in _LIST_START.finditer(text):
                try:
                    self.keys = _any_json(text[: match.end() - 1] + b"null}")
                except msgspec.DecodeError:
                    continue  # the words stand inside a string
                self.keys.pop("traceEvents", None)
                self._offset = match.end()
                return text[match.end() :], False
        raise self._no_list(text)

    def _no_list(self, text: bytes) -> TraceFormatError:
        try:
            keys = _any_json(text)
        except msgspec.DecodeError as error:
            return TraceFormatError(f"{self.path.name} is no valid JSON: {error} (of {len(text):,} bytes)")
        shown = ", ".join(list(keys)[:6]) if isinstance(keys, dict) else type(keys).__name__
        return NotATraceError(self.path.name, f"JSON with {shown or 'no key'} and no list traceEvents")

    def _decoded(self, content: bytes) -> list[Event]:
        text = b"[" + content + b"]"
        try:
            events = _DECODE(text)
        except msgspec.ValidationError:
            events = self._one_by_one(text)
        except UnicodeDecodeError:
            self.replaced = True
            return self._decoded(content.decode("utf-8", "replace").encode())
        except RecursionError:
            message = f"{self.path.name} is nested too deeply near event {self._count:,}: this is no usable trace"
            raise TraceFormatError(message) from None
        self._count += len(events)
        return events

    def _one_by_one(self, text: bytes) -> list[Event]:
        """Events of a chunk in which an entry has an unexpected shape; those entries are dropped and counted."""
        events: list[Event] = []
        for raw in _DECODE_RAW(text):
            try:
                events.append(_DECODE_ONE(raw))
            except (msgspec.ValidationError, UnicodeDecodeError):
                self.dropped += 1
        return events

    def _whole_events(self, text: bytes) -> tuple[list[Event], int] | None:
        """The events before the last place where one event follows another, and the position of that next event."""
        position = len(text)
        for _ in range(_TRIES):
            position = text.rfind(b"{", 0, position)
            if position <= 0:
                return None
            before = text[max(0, position - 64) : position].rstrip()
            if before.endswith(b",") and before[:-1].rstrip().endswith(b"}"):
                try:
                    return self._decoded(text[: text.rindex(b"}", 0, position) + 1]), position
                except msgspec.DecodeError:
                    continue  # inside an event's arguments, or after the end of the list
        return None

    def _end_of_list(self, text: bytes) -> tuple[list[Event], int] | None:
        """The events up to the end of the list, and the position after its bracket."""
        if text.lstrip().startswith(b"]"):
            return [], text.index(b"]") + 1
        likely = [match.start(1) for match in _LIST_END.finditer(text)][::-1][:_TRIES]
        for position in likely + [match.start(1) for match in _ANY_LIST_END.finditer(text)][::-1][:_TRIES]:
            try:
                return self._decoded(text[:position]), position + 1
            except msgspec.DecodeError:
                continue
        return None

    def _tail(self, text: bytes) -> None:
        after = text.lstrip()
        after = after[1:] if after.startswith(b",") else after
        try:
            self.keys |= _any_json(b"{" + after)
        except msgspec.DecodeError:
            message = f"{self.path.name} ends early: the event list is complete, what follows is not; record or copy it again"
            raise TraceFormatError(message) from None

    def _malformed(self, text: bytes) -> TraceFormatError:
        """Where the JSON breaks: found by decoding whole events until one fails."""
        position, count = 0, self._count
        for match in re.finditer(rb"\}\s*,\s*(?=\{)", text):
            try:
                _DECODE_RAW(b"[" + text[position : match.start() + 1] + b"]")
            except msgspec.DecodeError:
                break
            position, count = match.end(), count + 1
        around = text[position : position + 60].decode("utf-8", "replace")
        return TraceFormatError(
            f"{self.path.name} ends early or is malformed in event {count + 1:,}, "
            f"{self._offset + position:,} bytes into the text (uncompressed), near {around!r}: "
            "the file was cut off or edited; record or copy it again"
        )


def _any_json(text: bytes) -> Any:
    """A whole document; bytes that are no UTF-8 are replaced.

    Raises
    ------
    msgspec.DecodeError
        If it is no JSON, or nested too deeply to be the head of a trace.
    """
    try:
        return msgspec.json.decode(text)
    except UnicodeDecodeError:
        return msgspec.json.decode(text.decode("utf-8", "replace").encode())
    except RecursionError:
        message = "nested too deeply"
        raise msgspec.DecodeError(message) from None


_DECODE: Final[Callable[[bytes], list[Event]]] = msgspec.json.Decoder(list[Event]).decode
_DECODE_RAW: Final[Callable[[bytes], list[msgspec.Raw]]] = msgspec.json.Decoder(list[msgspec.Raw]).decode
_DECODE_ONE: Final[Callable[[bytes], Event]] = msgspec.json.Decoder(Event).decode
