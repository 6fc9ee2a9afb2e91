"""Documents: three faces, each complete alone, in which no text acts as markup."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markupsafe import Markup

from perfnb.blocks import Block, bar_html
from perfnb.document import Diff, Items, Line, Picture, Section, Table, Verdict, bundle

WORD = "word"
HOSTILE = "<b onclick=x>`|[a](http://outside.example)</script>"


def blocks(word: str) -> list[Block]:
    """One of each kind of block, with a word in every place."""
    return [
        Verdict("!", word, word),
        Line(word, word),
        Items((word, word)),
        Table(word, (word, word), ((word, word),), frozenset({1}), ((0.5, "#009E73"),)),
        Picture("<svg/>", word),
        Diff((f"- {word}", f"+ {word}", f" {word}")),
        Section(word, (Line("", word),)),
    ]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def tags(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Tags of a page with the names of their attributes."""
    parser = _Tags()
    parser.feed(html)
    return parser.found


@pytest.mark.parametrize("number", range(7))
def test_no_tag_and_no_attribute_of_a_text_survives(number: int) -> None:
    assert tags(bundle([blocks(HOSTILE)[number]]).html) == tags(bundle([blocks(WORD)[number]]).html)


def test_no_link_and_no_tag_of_a_text_survives_in_markdown() -> None:
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(bundle(blocks(HOSTILE)).markdown)

    assert "<a " not in rendered
    assert "<b " not in rendered
    assert "<script" not in rendered


def test_every_face_holds_every_text() -> None:
    shown = bundle(
        [
            Verdict("ok", "all is well"),
            Line("seen", "rank 0"),
            Table("Parts", ("part", "time"), (("data", "45 ms"),)),
            Items(("a note",)),
        ]
    )

    for face in (shown.html, shown.markdown, shown.plain):
        assert all(words in face for words in ("all is well", "rank 0", "Parts", "data", "45 ms", "a note"))


def test_plain_text_is_aligned_below_its_gutter() -> None:
    assert bundle([Verdict("!", "found"), Line("seen", "rank 0"), Diff(("- a", "+ b"))]).plain == (
        "perfnb  [!] found\nseen    rank 0\n        - a\n        + b"
    )


def test_a_table_aligns_numbers_to_the_right() -> None:
    table = Table("Parts", ("part", "time"), (("data", "45 ms"), ("forward", "5 ms")), frozenset({1}))

    assert table.plain() == "Parts:\n  part      time\n  data     45 ms\n  forward   5 ms"
    assert table.markdown() == "Parts:\n\n| part | time |\n|---|---:|\n| data | 45 ms |\n| forward | 5 ms |"


def test_html_uses_only_what_an_untrusted_notebook_keeps() -> None:
    shown = bundle(blocks(WORD)).html

    kept = {
        *("div", "span", "table", "thead", "tbody", "tr", "th", "td", "caption"),
        *("ul", "li", "img", "pre", "ins", "del", "details", "summary"),
    }
    assert {tag for tag, _ in tags(shown)} <= kept
    assert not {name for _, names in tags(shown) for name in names} - {"style", "scope", "alt", "src", "open"}
    assert "var(" not in shown


@pytest.mark.parametrize("svg", ['<svg width="5"/>', '<svg width="5"><text>it\'s "<&></text></svg>', "<svg>#%?</svg>"])
def test_a_picture_is_the_svg_that_was_given(svg: str) -> None:
    html = Picture(svg, "a picture").html()

    address = html.partition('src="data:image/svg+xml,')[2].partition('"')[0]
    assert unquote(address) in (svg, svg.replace('"', "'"))
    assert not set('<>"') & set(address)


def test_a_bar_never_leaves_its_cell() -> None:
    assert "width:100.0%" in bar_html(7.0, "#000000")
    assert "width:0.0%" in bar_html(-1.0, "#000000")


def test_an_unfolded_section_stands_open() -> None:
    assert tags(Section("a", (), folded=False).html())[0] == ("details", ("open", "style"))
    assert tags(Section("a", ()).html())[0] == ("details", ("style",))


def test_a_bundle_is_what_jupyter_asks_for() -> None:
    shown = bundle([Line("", "text")])

    assert list(shown._repr_mimebundle_()) == ["text/html", "text/markdown", "text/plain"]
    assert isinstance(shown.html, Markup)
    assert str(shown) == "        text"
