"""Hostile names made safe to show: on one line, without characters that act, in HTML, Markdown and plain text."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from markupsafe import Markup, escape

NAME_LIMIT: Final = 80
"""Longest name on screen, in characters; the whole name stands in the evidence."""

_ESCAPES: Final = (("x", 2), ("u", 4), ("U", 8))
_ADDRESS_IN_TEXT: Final = re.compile(r"\S*(?:://|www\.|\w@\w)\S*", re.IGNORECASE)
_MARKDOWN_SIGNS: Final = re.compile(r"[\\`*\[\]<|#!~$&{}]|(?<![^\W_])_|_(?![^\W_])")
_MARKDOWN_START: Final = re.compile(r"^(\s*\d*)([.)](?=\s|$)|[-+=>])")


def clean(text: object, limit: int | None = None) -> str:
    r"""Text on one line without characters that hide, reorder or break what is shown; they appear as escapes.

    Control characters, surrogates and non-characters make vl-convert abort the whole process, bidirectional ones turn a
    line around: each is written out. A text longer than `limit` loses its middle.

    Examples
    --------
    >>> clean("a\x1b[31m\tb\nc")
    'a\\x1b[31m b c'
    >>> clean("abcdefghij", limit=6)
    'abc…ij'
    """
    whole = str(text)
    if not whole.isprintable():
        whole = "".join(_visible(character) for character in whole)
    if limit is None or len(whole) <= limit:
        return whole
    tail = (limit - 1) // 2
    return f"{whole[: limit - 1 - tail]}…{whole[len(whole) - tail :]}"


def name(text: object) -> str:
    """A name from a trace or config, clean and at most `NAME_LIMIT` long."""
    return clean(text, NAME_LIMIT)


def html(text: object, limit: int | None = None) -> Markup:
    """Text as HTML in which none of its characters acts as markup.

    Examples
    --------
    >>> html("<b>&</b>")
    Markup('&lt;b&gt;&amp;&lt;/b&gt;')
    """
    return escape(clean(text, limit))


def markdown(text: object, limit: int | None = None) -> str:
    r"""Text as Markdown in which none of its characters acts as markup; addresses become code, so that none is a link.

    Examples
    --------
    >>> markdown("*a* <b> data_stall | http://x.org/?a")
    '\\*a\\* \\<b> data_stall \\| `http://x.org/?a`'
    """
    whole = clean(text, limit)
    pieces: list[str] = []
    position = 0
    for match in _ADDRESS_IN_TEXT.finditer(whole):
        pieces += [_escaped(whole[position : match.start()]), code(match.group())]
        position = match.end()
    return _MARKDOWN_START.sub(r"\1\\\2", "".join([*pieces, _escaped(whole[position:])]))


def code(text: object, limit: int | None = None) -> str:
    """Text as a Markdown code span; backticks and pipes, which would end the span or a table's cell, are replaced.

    Examples
    --------
    >>> code("a`b|c")
    "`a'b¦c`"
    """
    return f"`{clean(text, limit).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    number = ord(character)
    if character in "\t\n\r" or category in ("Zs", "Zl", "Zp"):
        return " "
    # the non-characters of Unicode 15, section 23.7: U+FDD0 to U+FDEF, and the last two of each plane
    if category in ("Cc", "Cf", "Cs") or 0xFDD0 <= number <= 0xFDEF or number & 0xFFFE == 0xFFFE:  # noqa: PLR2004 - see above
        digits = f"{number:02x}"
        kind, width = next((kind, width) for kind, width in _ESCAPES if len(digits) <= width)
        return f"\\{kind}{digits:0>{width}}"
    return character


def _escaped(text: str) -> str:
    return _MARKDOWN_SIGNS.sub(lambda match: "\\" + match.group(), text)
