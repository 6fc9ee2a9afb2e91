"""A document as a value: blocks one after the other, and the three faces that they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from perfnb import text
from perfnb.blocks import GUTTER, LINE, Block, Diff, Items, Line, Picture, Table, Verdict

__all__ = [
    "Block",
    "Bundle",
    "Code",
    "Diff",
    "Heading",
    "Items",
    "Line",
    "Picture",
    "Section",
    "Table",
    "Verdict",
    "bundle",
    "joined_html",
    "joined_markdown",
    "joined_plain",
]


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading; `folded` ones can be opened in HTML and stand in full elsewhere."""

    heading: str
    blocks: tuple[Block, ...]
    folded: bool = True

    def html(self) -> Markup:
        """See `Block`."""
        return Markup(
            '<details{} style="margin:4px 0"><summary style="cursor:pointer">{}</summary>'
            '<div style="padding:2px 0 2px 14px">{}</div></details>'
        ).format("" if self.folded else " open", text.html(self.heading), joined_html(self.blocks))

    def markdown(self) -> str:
        """See `Block`."""
        return f"**{text.markdown(self.heading)}**\n\n{joined_markdown(self.blocks)}"

    def plain(self) -> str:
        """See `Block`."""
        return f"{text.clean(self.heading)}\n{joined_plain(self.blocks)}"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a long document; what follows it is its chapter."""

    title: str

    def html(self) -> Markup:
        """See `Block`."""
        return Markup('<h2 style="font-size:17px;font-weight:600;margin:22px 0 6px 0">{}</h2>').format(text.html(self.title))

    def markdown(self) -> str:
        """See `Block`."""
        return f"\n## {text.markdown(self.title)}\n"

    def plain(self) -> str:
        """See `Block`."""
        title = text.clean(self.title)
        return f"\n{title}\n{'-' * len(title)}"


@dataclass(frozen=True, slots=True)
class Code:
    """Code to paste, each line of which stands as it is."""

    source: str

    def html(self) -> Markup:
        """See `Block`."""
        lines = Markup("\n").join(text.html(line) for line in self.source.splitlines())
        return Markup(
            '<pre style="margin:2px 0;padding:6px 8px;border:1px solid {};border-radius:4px;color:inherit;font-size:12px;'
            "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace\">{}</pre>"
        ).format(LINE, lines)

    def markdown(self) -> str:
        """See `Block`."""
        lines = [text.clean(line).replace("```", "'''") for line in self.source.splitlines()]
        return "\n".join(["```python", *lines, "```"])

    def plain(self) -> str:
        """See `Block`."""
        return "\n".join(f"{'':<{GUTTER}}{text.clean(line)}" for line in self.source.splitlines())


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a notebook is given to show: HTML, Markdown and plain text, each complete alone."""

    html: Markup
    markdown: str
    plain: str

    def mimebundle(self) -> dict[str, str]:
        """The faces by MIME type."""
        return {"text/html": str(self.html), "text/markdown": self.markdown, "text/plain": self.plain}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002 - what IPython passes
        return self.mimebundle()

    def __str__(self) -> str:
        """The plain text."""
        return self.plain


def bundle(blocks: Sequence[Block]) -> Bundle:
    """The three faces of a document.

    Examples
    --------
    >>> print(bundle([Verdict("ok", "Nothing above the floor"), Line("seen", "rank 0")]))
    perfnb  [ok] Nothing above the floor
    seen    rank 0
    """
    page = Markup('<div style="line-height:1.5;font-size:13px;max-width:960px;padding:4px 0;color:inherit">{}</div>')
    return Bundle(page.format(joined_html(blocks)), joined_markdown(blocks), joined_plain(blocks))


def joined_html(blocks: Sequence[Block]) -> Markup:
    """HTML of the blocks, one after the other."""
    return Markup("").join(block.html() for block in blocks)


def joined_markdown(blocks: Sequence[Block]) -> str:
    """Markdown of the blocks; lines that follow one another form one list."""
    faces = [(block.markdown(), isinstance(block, Line) and bool(block.label)) for block in blocks]
    pieces = [piece for piece in faces if piece[0]]
    lines = [
        face if index == 0 or (is_line and pieces[index - 1][1]) else f"\n{face}" for index, (face, is_line) in enumerate(pieces)
    ]
    return "\n".join(lines)


def joined_plain(blocks: Sequence[Block]) -> str:
    """Plain text of the blocks, one below the other."""
    return "\n".join(face for face in (block.plain() for block in blocks) if face)
