"""Damage to a trace, drawn from a seed: each mutation takes the bytes of a file and returns other bytes."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable
from typing import Final

_NUMBER: Final = re.compile(rb"(?<=[:,\[])\s*-?\d+(?:\.\d+)?(?=\s*[,}\]])")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_VALUE: Final = re.compile(rb'(?<=:)\s*(?:-?\d+(?:\.\d+)?|"(?:[^"\\]|\\.)*"|\{\}|\[\]|null|true|false)(?=\s*[,}])')
_MOST_MUTATIONS: Final = 4
_TEXT_LIMIT: Final = 4_000_000  # doubling slices ends here

HUGE_NUMBERS: Final = (
    *(
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"-0",
        b"-1",
        b"0",
        b"9223372036854775807",
        b"9223372036854775808",
        b"-9223372036854775809",
    ),
    *(b"18446744073709551615", b"18446744073709551616", b"4294967295", b"1" + b"0" * 400, b"1" * 5000, b"0." + b"3" * 400),
    *(
        b"1.5e3",
        b"1E+3",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"0x10",
        b"00012",
        b"+1",
        b".5",
        b"1.",
        b'"12"',
        b'"-1e9"',
        b"1e",
        b"--1",
    ),
    *(b"1624285295.123456789", b"9007199254740993.001", b"99999999999999999999.999", b"N/A"),
)
HOSTILE_NAMES: Final = (
    *(
        b'"</script><script>alert(1)</script>"',
        b'"<img src=x onerror=alert(1)>"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0000"',
    ),
    *(
        b'"a\nb"',
        b'"a\x00b"',
        b'"\\u202e"',
        b'"\xf0\x9f\x94\xa5"',
        b'"C:\\temp\\new"',
        b'"a "quoted" name"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
    ),
    *(b'"=cmd|calc"', b'"__proto__"', b'"' + b"x" * 100_000 + b'"', b'"' + b"\\\\" * 3000 + b'"', b'""', b'"ProfilerStep#"'),
    *(
        b'"ProfilerStep#99999999999999999999"',
        b'"ProfilerStep#-1"',
        b'"traceEvents"',
        b'"}, {"',
        b'"]}"',
        b'"nan"',
        b'"[memory]"',
    ),
    *(
        b'"kernel"',
        b'"gpu_memcpy"',
        b'"enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"',
        b'"gloo:all_reduce"',
        b'"\\"',
    ),
)
WRONG_TYPES: Final = (
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"text"',
    b"-7",
    b"3.25",
    b"[[[1]]]",
    b'{"a": [1, {"b": null}]}',
    b"",
    b"[1,]",
)
TOKENS: Final = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\x00",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\x1f\x8b",
        b"}, {",
        b"]}",
        b"},",
        b"// no",
    ),
    *(
        b'"traceEvents": [',
        b'"traceEvents": []',
        b'{"ph": "X"}',
        b"{}, ",
        b"null, ",
        b"1, ",
        b'"ph": "X", ',
        b'"ts": 5, ',
        b"\n" * 100,
    ),
)


def flip_bits(text: bytes, draw: random.Random) -> bytes:
    """One to eight bits."""
    changed = bytearray(text)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwrite_bytes(text: bytes, draw: random.Random) -> bytes:
    """A run of random bytes in place of as many."""
    start = draw.randrange(len(text))
    length = min(draw.randint(1, 32), len(text) - start)
    return text[:start] + draw.randbytes(length) + text[start + length :]


def cut_end(text: bytes, draw: random.Random) -> bytes:
    """Everything after a place."""
    return text[: draw.randrange(len(text))]


def cut_start(text: bytes, draw: random.Random) -> bytes:
    """Everything before a place."""
    return text[draw.randrange(len(text)) :]


def delete_slice(text: bytes, draw: random.Random) -> bytes:
    """A slice from the middle."""
    start, end = _slice(text, draw)
    return text[:start] + text[end:]


def duplicate_slice(text: bytes, draw: random.Random) -> bytes:
    """A slice, repeated where it stands or elsewhere."""
    start, end = _slice(text, draw)
    place = draw.choice((end, draw.randrange(len(text))))
    return text[:place] + text[start:end] * draw.randint(1, 3) + text[place:]


def swap_slices(text: bytes, draw: random.Random) -> bytes:
    """Two neighbouring slices change places."""
    first, second, third = sorted(draw.randrange(len(text)) for _ in range(3))
    return text[:first] + text[second:third] + text[first:second] + text[third:]


def insert_token(text: bytes, draw: random.Random) -> bytes:
    """A word of the format where it does not belong."""
    place = draw.randrange(len(text))
    return text[:place] + draw.choice(TOKENS) + text[place:]


def huge_number(text: bytes, draw: random.Random) -> bytes:
    """An odd, huge or malformed number in place of one."""
    return _replace(text, _NUMBER, draw.choice(HUGE_NUMBERS), draw)


def hostile_name(text: bytes, draw: random.Random) -> bytes:
    """A name that breaks naive readers in place of a string, a key included."""
    return _replace(text, _STRING, draw.choice(HOSTILE_NAMES), draw)


def wrong_type(text: bytes, draw: random.Random) -> bytes:
    """A value of another type in place of one."""
    return _replace(text, _VALUE, draw.choice(WRONG_TYPES), draw)


def deep_nesting(text: bytes, draw: random.Random) -> bytes:
    """Brackets within brackets in place of a value, closed or not."""
    depth = draw.choice((20, 500, 1_500, 20_000, 200_000))
    opening, closing = draw.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return _replace(text, _VALUE, opening * depth + b"1" + closing * draw.choice((depth, depth, 0, depth - 1)), draw)


def rename_key(text: bytes, draw: random.Random) -> bytes:
    """One string becomes another string of the file, every time or once."""
    found = list({match[0] for match in _STRING.finditer(text)})
    if not found:
        return text
    found.sort()
    return text.replace(draw.choice(found), draw.choice(found), draw.choice((1, 3, -1)))


def respace(text: bytes, draw: random.Random) -> bytes:
    """White space of another writer: none, or more of it (also inside names)."""
    return text.replace(*draw.choice(((b": ", b":"), (b", ", b","), (b": ", b" :\t"), (b", ", b"\r\n,\r\n"), (b"{", b"{ "))))


MUTATIONS: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    *(flip_bits, overwrite_bytes, cut_end, cut_start, delete_slice, duplicate_slice, swap_slices, insert_token),
    *(huge_number, huge_number, hostile_name, hostile_name, wrong_type, wrong_type, deep_nesting, rename_key, respace),
)


def whole_gzip(text: bytes, draw: random.Random) -> bytes:
    """An intact gzip file of one or several members."""
    cuts = sorted(draw.randrange(len(text) + 1) for _ in range(draw.randint(0, 3)))
    return b"".join(gzip.compress(text[start:end], 1) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))


def damaged_gzip(text: bytes, draw: random.Random) -> bytes:
    """A gzip file with flipped bits, an early end, or something after its end."""
    packed = gzip.compress(text, 1)
    way = draw.randrange(4)
    if way == 0:
        return flip_bits(packed, draw)
    if way == 1:
        return cut_end(packed, draw)
    if way == 2:  # noqa: PLR2004 - the third way
        return packed + draw.choice((b"\x00" * 64, b"garbage", b"\x1f\x8b", packed[:20], packed))
    return delete_slice(packed, draw)


def mutated(text: bytes, draw: random.Random) -> tuple[bytes, tuple[str, ...]]:
    """A damaged copy of a file, and the names of what was done to it, in order.

    Examples
    --------
    >>> mutated(b'{"traceEvents": [1]}', random.Random(7)) == mutated(b'{"traceEvents": [1]}', random.Random(7))
    True
    """
    done = []
    for _ in range(min(_MOST_MUTATIONS, 1 + int(draw.expovariate(1.2)))):
        mutation = draw.choice(MUTATIONS)
        if not text or len(text) > _TEXT_LIMIT:
            break
        text = mutation(text, draw)
        done.append(mutation.__name__)
    if text and (way := draw.choice((None, None, None, whole_gzip, damaged_gzip))):
        text = way(text, draw)
        done.append(way.__name__)
    return text, tuple(done)


def _slice(text: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(text))
    return start, min(len(text), start + 1 + int(draw.expovariate(1 / 400)))


def _replace(text: bytes, pattern: re.Pattern[bytes], by: bytes, draw: random.Random) -> bytes:
    found = [match.span() for match in pattern.finditer(text)]
    if not found:
        return text
    start, end = draw.choice(found)
    return text[:start] + by + text[end:]
