"""Pickles of plain data: what is harmless is read as `pickle.load` reads it, anything else is refused before it runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory.fuzz import fuzz
from perfnb.errors import UnsafePickle
from perfnb.read.memory_snapshot.plain_pickle import Limits, _Locked, load_plain

PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**71), 2**71 - 1),
        st.floats(allow_nan=False),
        st.text(),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(st.one_of(st.text(), st.integers(0, 9)), inner)
    ),
    max_leaves=30,
)
START = b"\x80\x04"


class Runs:
    """Its unpickling would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@given(PLAIN, st.integers(2, 5))
def test_plain_data_comes_back_as_pickle_reads_it(value: Any, protocol: int) -> None:
    assert load_plain(pickle.dumps(value, protocol)) == value


@given(PLAIN)
def test_the_picklers_own_python_code_writes_nothing_else(value: Any) -> None:
    file = io.BytesIO()
    pickle._Pickler(file, 4).dump(value)  # type: ignore[attr-defined] # the slow one has other habits of memo and frames

    assert load_plain(file.getvalue()) == value


def test_what_is_shared_stays_shared() -> None:
    frames = [{"name": "f"}]

    read = load_plain(pickle.dumps([frames, frames], 4))

    assert read[0] is read[1]


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_refused_and_never_made(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"

    with pytest.raises(UnsafePickle):
        load_plain(pickle.dumps({"segments": [Runs(made)]}, protocol))

    assert not made.exists()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("GLOBAL", b"cos\nsystem\n."),
        ("INST", b"(ios\nsystem\n."),
        ("OBJ", b"(o."),
        ("EXT1", b"\x82\x01."),
        ("PERSID", b"Pabc\n."),
        ("BINPERSID", b"NQ."),
        ("STACK_GLOBAL", b"\x8c\x02os\x8c\x06system\x93."),
        ("REDUCE", b"N)R."),
        ("BUILD", b"N}b."),
        ("NEWOBJ", b"N)\x81."),
        ("SHORT_BINBYTES", b"C\x01a."),
        ("BYTEARRAY8", b"\x96" + struct.pack("<Q", 1 << 40) + b"."),
        ("NEXT_BUFFER", b"\x97."),
        ("EMPTY_SET", b"\x8f."),
        ("DUP", b"N2."),
        ("POP", b"NN0."),
        ("INT", b"I1\n."),
        ("LONG4", b"\x8b" + struct.pack("<i", 1 << 30) + b"."),
        ("PROTO", b"N\x80\x04."),
        ("0xfe, no instruction", b"\xfe."),
    ],
)
def test_an_instruction_that_plain_data_does_not_have_is_named(name: str, body: bytes) -> None:
    with pytest.raises(UnsafePickle, match=rf"rank0.pickle: byte \d+ is .*{name}"):
        load_plain(START + body, name="rank0.pickle")


def test_classes_of_the_standard_library_are_refused_too() -> None:
    with pytest.raises(UnsafePickle, match="STACK_GLOBAL"):
        load_plain(pickle.dumps(OrderedDict(a=1), 4))


@pytest.mark.parametrize(
    ("says", "data"),
    [
        ("protocol 2 to 5", b""),
        ("protocol 2 to 5", b"\x80"),
        ("protocol 2 to 5", b"\x80\x06N."),
        ("protocol 2 to 5", b"(lp0\n."),
        ("without the instruction STOP", START + b"N"),
        ("2 bytes follow its end", START + b"N.N."),
        ("past the end", START + b"\x8c\x05abc."),
        ("past the end", START + b"X\xff\xff\xff\x7fabc."),
        ("past the end", START + b"\x8d" + b"\xff" * 8 + b"abc."),
        ("past the end", START + b"\x95" + struct.pack("<Q", 99) + b"N."),
        ("number of 200 bytes", START + b"\x8a\xc8" + b"\x01" * 200 + b"."),
        ("is damaged", START + b"e."),
        ("is damaged", START + b"h\x05."),
        ("is damaged", START + b"}](Nu."),
        ("is damaged", START + b"Nae."),
        ("is damaged", START + b"(]]N\x86s."),
        ("is damaged", START + b"}]Ns."),
        ("is damaged", START + b"\x8c\x02\xff\xfe."),
        ("is damaged", START + b"."),
    ],
)
def test_a_damaged_pickle_says_what_is_wrong(says: str, data: bytes) -> None:
    with pytest.raises(UnsafePickle, match=says):
        load_plain(data)


def test_every_truncation_of_a_snapshot_is_refused() -> None:
    whole = pickle.dumps({"segments": [{"address": 1 << 47, "blocks": [(1, 2.5, "x" * 300)]}], "device_traces": [[]]}, 4)

    for end in range(len(whole)):
        with pytest.raises(UnsafePickle):
            load_plain(whole[:end])


def test_a_memo_entry_far_ahead_is_refused_for_it_would_take_gigabytes() -> None:
    bomb = START + b"Nr\xff\xff\xff\x07."

    with pytest.raises(UnsafePickle, match="writes memo entry 134,217,727 after only 0"):
        load_plain(bomb)


def test_shared_lists_that_grow_exponentially_are_refused() -> None:
    value: list[Any] = [0]
    for _ in range(40):
        value = [value, value]

    with pytest.raises(UnsafePickle, match="200,000,000 values, the limit; what is shared counts each time"):
        load_plain(pickle.dumps(value, 4))


def test_long_shared_lists_are_refused_in_time() -> None:
    inner: list[Any] = [1] * 100_000 + [[]]
    for _ in range(2):
        inner = [inner] * 100_000
    began = time.process_time()

    with pytest.raises(UnsafePickle, match="values, the limit"):
        load_plain(pickle.dumps(inner, 4))

    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "body",
    [
        b"]\x94h\x00a.",  # a list in itself
        b"}\x94\x8c\x01ah\x00s.",  # a dictionary in itself
        b"]\x94]\x94h\x00aa.",  # two lists in each other
    ],
)
def test_a_value_that_holds_itself_is_refused(body: bytes) -> None:
    with pytest.raises(UnsafePickle, match="holds itself"):
        load_plain(START + body)


def test_the_depth_is_limited_without_recursion() -> None:
    for levels, is_fine in ((64, True), (65, False), (300_000, False)):
        data = START + b"]" * levels + b"a" * (levels - 1) + b"."
        if is_fine:
            load_plain(data)
        else:
            with pytest.raises(UnsafePickle, match="over 64 levels deep"):
                load_plain(data)


@pytest.mark.parametrize("body", [b"}NNs.", b"}\x88K\x01s.", b"}K\x01\x85Ns.", b"}G?\xf0\x00\x00\x00\x00\x00\x00Ns."])
def test_keys_are_text_or_whole_numbers(body: bytes) -> None:
    with pytest.raises(UnsafePickle, match="a key that is neither text nor a whole number"):
        load_plain(START + body)


def test_keys_that_collide_on_purpose_run_into_the_limit_of_time() -> None:
    # the hash of a tuple of whole numbers is known (CPython, Objects/tupleobject.c: xxHash), so pairs of one hash can be made
    prime_1, prime_2, prime_5, mask = 11400714785074694791, 14029467366897019727, 2870177450012600261, (1 << 64) - 1
    inverse = pow(prime_2, -1, 1 << 64)
    pairs = []
    first = 0
    while len(pairs) < 60_000:
        first += 1
        lane = (prime_5 + first * prime_2) & mask
        lane = ((lane << 31 | lane >> 33) & mask) * prime_1 & mask
        second = (0x1234_5678_9ABC - lane) * inverse & mask
        if second < (1 << 61) - 1:
            pairs.append((first, second))
    assert len({hash(pair) for pair in pairs[:100]}) == 1
    # as a dictionary it would take minutes to make here, so the instructions are written out
    numbers = [b"\x8a\x08" + struct.pack("<q", one) for pair in pairs for one in pair]
    keys = b"".join(a + b + b"\x86N" for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    data = START + b"}(" + keys + b"u."
    one_by_one = START + b"}" + b"".join(a + b + b"\x86Ns" for a, b in zip(numbers[::2], numbers[1::2], strict=True)) + b"."

    for attack in (one_by_one, START + b"\x95" + struct.pack("<Q", len(one_by_one) - 2) + one_by_one[2:], data):
        began = time.process_time()
        with pytest.raises(UnsafePickle):
            load_plain(attack, Limits(seconds=0.2, seconds_per_mib=0.0))
        assert time.process_time() - began < 2


def test_the_limits_are_named() -> None:
    data = pickle.dumps(list(range(1000)), 4)

    with pytest.raises(UnsafePickle, match="bytes are over the limit of 100 bytes"):
        load_plain(data, Limits(file_bytes=100))
    with pytest.raises(UnsafePickle, match="more than 500 instructions"):
        load_plain(data, Limits(opcodes=500))


def test_damaged_snapshots_end_in_plain_data_or_in_a_refusal() -> None:
    outcome = fuzz(seconds=3)

    assert outcome.failures == []
    assert outcome.read > 0
    assert outcome.refused > 100


def test_the_unpickler_behind_the_scan_names_no_class_either() -> None:
    for data in (b"cos\nsystem\n.", b"\x80\x04NQ."):
        with pytest.raises(pickle.UnpicklingError):
            _Locked(io.BytesIO(data)).load()
