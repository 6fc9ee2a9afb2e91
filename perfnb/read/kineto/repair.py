"""The slow path: where the next entry of an event list ends, and what mends an entry that is no valid JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import msgspec

_DECODER: Final = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str)
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_FIRST_WINDOW: Final = 1 << 14  # bytes: nearly every entry is shorter
_LONGEST_ENTRY_BYTES: Final = 1 << 26  # a choice: past it no entry is looked for, the text is damaged
_LONGEST_REPAIRED_BYTES: Final = 1 << 18  # a choice: fifty times the longest name that was seen; more is not mended
_MOST_ENDS: Final = 8  # places where a damaged entry may end that are tried
_KEYS: Final = rb"(?:ph|cat|name|pid|tid|ts|dur|args|id|bp|s)"  # of an event, Chrome trace event format
_POSSIBLE_END: Final = re.compile(
    rb"\}(?=[ \t\r\n]*(?:,[ \t\r\n]*\{[ \t\r\n]*\"" + _KEYS + rb"\"[ \t\r\n]*:|\][ \t\r\n]*(?:,[ \t\r\n]*\"|\}|$)))"
)
_ENTRY_INSIDE: Final = re.compile(rb"\}\s*,\s*\{\s*(?:\\?\")" + _KEYS + rb"(?:\\?\")\s*:")  # a text that swallowed an entry
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_UNFINISHED: Final = re.compile(r'[^\]\[{}",]{0,12}\s*')  # what a cut leaves of a number, a literal or an escape
_STRING_OR_BARE: Final = re.compile(
    rb'"(?:[^"\\]|\\.)*"|(?<=[:\[, \t\r\n])(?:-?Infinity|NaN|-?nan|-?inf|N/A)(?=[ \t\r\n]*[,}\]])', re.DOTALL
)
_CONTROL: Final = re.compile(rb"[\x00-\x1f]")
_LONE_BACKSLASH: Final = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)', re.DOTALL)
_DOUBLED: Final = re.compile(rb'\\["\\]|\\u00[01]|\\')  # what stays as it is where lone backslashes are doubled, and those
_HIGH_PAIR: Final = re.compile(
    rb"\\\\|(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_NEXT_KEY: Final = re.compile(rb'"[ \t\r\n]*(?:,[ \t\r\n]*"' + _KEYS + rb'"[ \t\r\n]*:|\}[ \t\r\n]*$)')


TOO_DEEP: Final = "nested too deeply"


class Found(Enum):
    """What stands next in an event list."""

    ENTRY = "an entry"
    END = "the end of the list"
    MORE = "too little text to tell"
    CUT = "the file ends"
    BAD = "no JSON, and nothing that can be repaired"


@dataclass(frozen=True, slots=True)
class NextEntry:
    """What stands next, where it ends, its JSON (repaired where it had to be), what was repaired, what is wrong and where.

    Where the file ends right after a whole event, `text` is that event.
    """

    found: Found
    end: int = 0
    text: bytes = b""
    repairs: tuple[str, ...] = ()
    reason: str = ""
    at: int = 0


def next_entry(text: bytes, start: int, *, complete: bool) -> NextEntry:
    r"""The next entry of an event list.

    Parameters
    ----------
    text
        Part of the file.
    start
        Where an entry begins, or the comma before it, or the bracket after the last one; white space may stand before.
    complete
        Whether the file ends where the text does.

    Examples
    --------
    >>> next_entry(rb',{"name":"C:\Users"},{"ph":"X"}]', 0, complete=True)
    NextEntry(found=<Found.ENTRY: 'an entry'>, end=20, text=b'{"name":"C:\\\\Users"}', repairs=('backslashes',), reason='', at=0)
    """
    begin, comma = _begin(text, start)
    if begin == len(text):
        return NextEntry(Found.CUT if complete else Found.MORE)
    if text[begin] == ord("]"):
        return NextEntry(Found.END, begin + 1, repairs=("a comma after the last event",) if comma else ())
    if len(text) - begin > _LONGEST_ENTRY_BYTES:
        text = text[: begin + _LONGEST_ENTRY_BYTES]
        complete = True
    end, reason, at = _value_end(text, begin)
    if end is not None:
        after = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches the empty text too
        if after == len(text) and not complete:
            return NextEntry(Found.MORE)
        if after == len(text) or text[after] in b",]":
            return _settled(text[begin:end], end)
        reason, at = "Expecting ',' delimiter", after
    found = _damaged(text, begin, reason, at, complete=complete)
    if end is not None and found.found is Found.CUT:  # the last event is whole, what follows it is not
        whole = _settled(text[begin:end], end)
        return replace(found, text=whole.text, repairs=whole.repairs)
    return found


def _begin(text: bytes, start: int) -> tuple[int, bool]:
    begin: int = _SPACE.match(text, start).end()  # type: ignore[union-attr]
    comma = text[begin : begin + 1] == b","
    if comma:
        begin = _SPACE.match(text, begin + 1).end()  # type: ignore[union-attr]
    return begin, comma


def _value_end(text: bytes, begin: int) -> tuple[int | None, str, int]:
    """Where the JSON value ends that begins here, or why it is none, and where; Latin-1 keeps positions."""
    window = _FIRST_WINDOW
    while True:
        piece = text[begin : begin + window].decode("latin-1")
        try:
            _, length = _DECODER.raw_decode(piece)
        except json.JSONDecodeError as error:
            if begin + window >= len(text):
                return None, error.msg, begin + error.pos
        except RecursionError:
            return None, TOO_DEEP, begin
        else:
            if begin + length < min(begin + window, len(text)) or begin + window >= len(text):
                return begin + length, "", begin
        window *= 16


def is_unfinished(text: bytes, at: int, reason: str) -> bool:
    """Whether JSON that stops being JSON at a place only lacks its end, as in a file that was cut off."""
    return reason.startswith("Unterminated string") or (
        len(text) - at < _FIRST_WINDOW and _UNFINISHED.fullmatch(text[at:].decode("latin-1")) is not None
    )


def _settled(entry: bytes, end: int) -> NextEntry:
    if is_json(entry):
        return NextEntry(Found.ENTRY, end, entry)
    mended, repairs = repaired(entry) if len(entry) <= _LONGEST_REPAIRED_BYTES else (None, ())
    if mended is None:
        return NextEntry(Found.BAD, end, reason=TOO_DEEP, at=end - len(entry))
    return NextEntry(Found.ENTRY, end, mended, repairs)


def _damaged(text: bytes, begin: int, reason: str, at: int, *, complete: bool) -> NextEntry:
    """An entry whose end the grammar does not tell: places where it may end are tried."""
    last = min(len(text), begin + _LONGEST_REPAIRED_BYTES)
    tried = 0
    for match in _POSSIBLE_END.finditer(text, begin, last):
        tried += 1
        mended, repairs = repaired(text[begin : match.end()]) if reason != TOO_DEEP else (None, ())
        if mended is not None:
            return NextEntry(Found.ENTRY, match.end(), mended, repairs)
        if tried == _MOST_ENDS:
            break
    if tried < _MOST_ENDS and not complete and last == len(text):
        return NextEntry(Found.MORE)
    is_cut = complete and (is_unfinished(text, at, reason) or (not tried and last == len(text)))
    return NextEntry(Found.CUT if is_cut else Found.BAD, reason=reason, at=at)


def repaired(entry: bytes) -> tuple[bytes | None, tuple[str, ...]]:
    r"""Entry as valid JSON, and what was repaired; None where nothing helps.

    Older versions of Kineto wrote names as they are. Tried in turn: control characters, values that are no JSON and lone
    backslashes; then quotes inside the name, which ends at the last quote before the next key of an event.

    Examples
    --------
    >>> repaired(rb'{"name":"say "hi"","ph":"X","dur":NaN}')
    (b'{"name":"say \\"hi\\"","ph":"X","dur":null}', ('quotes in a name', 'values that are no JSON'))
    """
    mended, repairs = _strings_mended(entry)
    if is_json(mended) and not _swallows(mended):
        return mended, tuple(repairs)
    quoted = _name_mended(entry)
    if quoted is not None:
        mended, repairs = _strings_mended(quoted)
        if is_json(mended) and not _swallows(mended):
            return mended, ("quotes in a name", *repairs)
    return None, ()


def _swallows(entry: bytes) -> bool:
    """Whether a text in an entry holds the border between two entries: then it is no text of one entry."""
    return _ENTRY_INSIDE.search(entry) is not None and any(map(_ENTRY_INSIDE.search, _STRING.findall(entry)))


def is_json(text: bytes) -> bool:
    """Whether a text is one JSON value; bytes that are no UTF-8 do not matter here."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def mended_texts(text: bytes) -> bytes:
    """Text in which control characters, lone backslashes and values that are no JSON are mended."""
    return _strings_mended(text)[0]


def _strings_mended(entry: bytes) -> tuple[bytes, list[str]]:
    repairs: dict[str, None] = {}

    def mend(match: re.Match[bytes]) -> bytes:
        token = match.group()
        if not token.startswith(b'"'):
            repairs["values that are no JSON"] = None
            return b"null"
        inner = token[1:-1]
        if _CONTROL.search(inner):
            repairs["control characters"] = None
            inner = _CONTROL.sub(lambda each: b"\\u%04x" % each.group()[0], inner)
        if any(each.group(1) for each in _LONE_BACKSLASH.finditer(inner)):
            repairs["backslashes"] = None
            inner = _DOUBLED.sub(lambda each: each.group() if len(each.group()) > 1 else b"\\\\", inner)
        if any(each.group(2) for each in _HIGH_PAIR.finditer(inner)):
            repairs["halves of surrogate pairs"] = None
            inner = _HIGH_PAIR.sub(lambda each: b"\\ufffd" if each.group(2) else each.group(), inner)
        return b'"' + inner + b'"'

    return _STRING_OR_BARE.sub(mend, entry), list(repairs)


def _name_mended(entry: bytes) -> bytes | None:
    """Entry with the quotes inside its name escaped."""
    opening = re.search(rb'"name"[ \t\r\n]*:[ \t\r\n]*"', entry)
    if opening is None:
        return None
    closing = next(_NEXT_KEY.finditer(entry, opening.end()), None)
    if closing is None:
        return None
    name = entry[opening.end() : closing.start()]
    escaped = re.sub(rb'\\\\|\\"|(")', lambda each: b'\\"' if each.group(1) else each.group(), name)
    if (len(escaped) - len(escaped.rstrip(b"\\"))) % 2:
        escaped += b"\\"  # a name that ends in a lone backslash
    return entry[: opening.end()] + escaped + entry[closing.start() :]
