"""Stamps: every way in which a number can be written, to the nanosecond."""

from __future__ import annotations

import tracemalloc
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.read.kineto.stamps import MISSING, nanoseconds


@given(st.lists(st.decimals(min_value=0, max_value=Decimal("8e15"), places=3, allow_nan=False), min_size=1, max_size=20))
def test_three_decimals_are_exact_whatever_the_size(values: list[Decimal]) -> None:
    found = nanoseconds([format(value, "f").encode() for value in values])

    assert found.tolist() == [int(value * 1000) for value in values]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", 0),
        (b"25", 25_000),
        (b"1712195495520883.001", 1_712_195_495_520_883_001),
        (b"1623142623460111", 1_623_142_623_460_111_000),
        (b"1.5", 1_500),
        (b"1.5e3", 1_500_000),
        (b"-2.25", -2_250),
        (b'"7.125"', 7_125),
        (b"0.0005", 0),
        (b"0.0015", 2),
        (b"0.0006", 1),
        (b"99999999999999999999", MISSING),
        (b"9999999999999999.999", MISSING),
        (b"null", MISSING),
        (b"NaN", MISSING),
        (b"", MISSING),
        (b"1.2.3", MISSING),
    ],
)
def test_each_spelling_gives_its_nanoseconds(text: bytes, expected: int) -> None:
    assert nanoseconds([text]).tolist() == [expected]


def test_a_list_of_mixed_spellings_is_read_row_by_row() -> None:
    assert nanoseconds([b"1", b"2.5", b'"3"', b"1e1"]).tolist() == [1_000, 2_500, 3_000, 10_000]
    assert nanoseconds([]).tolist() == []


def test_sixteen_digits_of_a_negative_stamp_do_not_overflow() -> None:
    assert nanoseconds([b"-9999999999999999", b"-123456789012345"]).tolist() == [int(MISSING), -123456789012345000]


def test_one_endless_number_does_not_widen_all_the_others() -> None:
    stamps = [b"1.5"] * 20_000 + [b"9" * 200_000]

    tracemalloc.start()
    found = nanoseconds(stamps)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found[:2].tolist() == [1500, 1500]
    assert found[-1] == MISSING
    assert peak < 50_000_000
