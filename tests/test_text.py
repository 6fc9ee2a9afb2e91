"""Texts: nothing hostile survives, and numbers read as people say them."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markupsafe import Markup

from perfnb import text

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "[link](javascript:alert(1))",
    "![picture](http://outside.example/a.png)",
    "<http://outside.example>",
    "http://outside.example/a?b=c",
    "www.outside.example",
    "person@outside.example",
    "`code` ``more`` ```",
    "a | b | c",
    "**bold** _slanted_ ~~gone~~",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "===",
    "$\\alpha$ \\(x\\)",
    "&lt;b&gt; &#60;i&#62;",
    "{{ expression }}",
)


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("\x00\x1f\x7f\x9f", "\\x00\\x1f\\x7f\\x9f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\ufffe\uffff\ufdd0", "\\ufffe\\uffff\\ufdd0"),
        ("\U0001fffe", "\\U0001fffe"),
        ("a\tb\r\nc\u2028d", "a b  c d"),
        ("héllo Ω 漢字 😀", "héllo Ω 漢字 😀"),
    ],
)
def test_characters_that_hide_or_reorder_are_written_out(given_text: str, shown: str) -> None:
    assert text.clean(given_text) == shown


@given(st.text())
def test_clean_text_holds_nothing_that_aborts_vl_convert(anything: str) -> None:
    cleaned = text.clean(anything)

    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in cleaned)
    assert text.clean(cleaned) == cleaned


def test_a_long_name_loses_its_middle() -> None:
    shown = text.name("a" * 100 + "b" * 100)

    assert len(shown) == text.NAME_LIMIT
    assert shown.startswith("a" * 40)
    assert shown.endswith("b" * 39)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_tag_survives_as_html(hostile: str) -> None:
    escaped = text.html(hostile)

    assert isinstance(escaped, Markup)
    assert not re.search(r"[<>]", escaped)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["{}", "- {}", "before {} after", "| head |\n|---|\n| {} |"])
def test_no_markup_survives_as_markdown(hostile: str, place: str) -> None:
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(place.format(text.markdown(hostile)))
    benign = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(place.format("word"))

    tags = [tag for tag in re.findall(r"</?(\w+)", rendered) if tag != "code"]

    assert tags == re.findall(r"</?(\w+)", benign)


@pytest.mark.parametrize("address", ["http://outside.example/a", "www.outside.example", "person@outside.example"])
def test_an_address_becomes_code_in_markdown_so_that_it_is_no_link(address: str) -> None:
    assert text.markdown(f"see {address} there") == f"see `{address}` there"


def test_ten_thousand_random_names_are_clean() -> None:
    source = random.Random(7)
    names = ("".join(chr(source.randrange(0x110000)) for _ in range(12)) for _ in range(10_000))

    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for each in names for character in text.name(each))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.58, "58 %"), (0.0612, "6.1 %"), (1.0, "100 %"), (0.0004, "<0.1 %"), (0.0, "0 %"), (-0.2, "-20 %"), (float("nan"), "-")],
)
def test_shares_read_in_percent(value: float, shown: str) -> None:
    assert text.share(value) == shown


@pytest.mark.parametrize(
    ("value_us", "shown"),
    [(0.25, "0.250 us"), (412.4, "412 us"), (999.9, "1.00 ms"), (71_000, "71.0 ms"), (2.5e6, "2.50 s"), (3.6e9, "3600 s")],
)
def test_times_have_the_unit_that_suits_them(value_us: float, shown: str) -> None:
    assert text.duration(value_us) == shown


def test_an_interval_has_one_unit_and_one_number_of_digits() -> None:
    assert text.duration_range(950, 1_040) == "0.95-1.04 ms"
    assert text.duration_range(-2_000, 4_000) == "-2.00 to 4.00 ms"
    assert text.duration_estimate(58_000, 49_000, 69_000) == "58.0 ms (49.0-69.0)"


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("lost_us", 41_200.0, "41.2 ms"),
        ("bytes", 2**20, "1.00 MiB"),
        ("busy_share", 0.5, "50 %"),
        ("step", 7, "7"),
        ("count", 12_345, "12,345"),
        ("ratio", 0.123456, "0.1235"),
        ("is_edge", True, "yes"),
        ("ranks", (0, 1, 2, 5), "0-2, 5"),
        ("name", "a\nb", "a b"),
        ("lost_us", None, "-"),
    ],
)
def test_a_cell_reads_in_the_unit_of_its_column(column: str, value: object, shown: str) -> None:
    assert text.quantity(column, value) == shown
