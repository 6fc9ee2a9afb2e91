"""Blocks of a document: each reads the same as HTML, as Markdown and as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from urllib.parse import quote

from markupsafe import Markup

from perfnb import text

Sign = Literal["!", "?", "ok", "x", ""]
"""Found, cannot judge, looked and nothing above the limit, failed; nothing for what judges nothing."""

GUTTER: Final = 8
"""Width of the words at the left ("seen", "change") in plain text, in characters."""

# Literal colours that keep 3:1 and better on white and on JupyterLab's dark #111111; text itself inherits its colour.
SIGN_COLOURS: Final[Mapping[Sign, str]] = {"!": "#D55E00", "?": "#8A8A8A", "ok": "#009E73", "x": "#D55E00", "": "#0072B2"}
LINE: Final = "rgba(128,128,128,0.35)"
_MUTED: Final = "opacity:0.75"
_CELL: Final = f"padding:3px 12px 3px 0;border:none;border-bottom:1px solid {LINE};vertical-align:top;"
_CAPTION: Final = "caption-side:top;text-align:left;padding:0 0 4px 0;font-weight:600;color:inherit"
_NUMBER: Final = "font-variant-numeric:tabular-nums;white-space:nowrap"
_TABLE: Final = "border-collapse:collapse;border:none;margin:0;width:auto;font-size:13px;color:inherit;background:transparent"
_MONO: Final = "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px"
_DIFF_MARKS: Final = {"-": ("del", "rgba(213,94,0,0.20)"), "+": ("ins", "rgba(0,158,115,0.20)")}


class Block(Protocol):
    """A piece of a document in its three faces."""

    def html(self) -> Markup:
        """HTML that survives JupyterLab's sanitizer: tables, literal inline styles, data URIs."""
        ...

    def markdown(self) -> str:
        """The same as Markdown."""
        ...

    def plain(self) -> str:
        """The same as plain text."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline: a sign with its words, and an aside at its end; `label` stands in the gutter of plain text."""

    sign: Sign
    sentence: str
    aside: str = ""
    label: str = "perfnb"

    def html(self) -> Markup:
        """See `Block`."""
        sign = Markup('<span style="{}">[{}]</span> ').format(_MONO, self.sign) if self.sign else Markup("")
        aside = Markup(' <span style="font-weight:400;font-size:12px;{}">{}</span>').format(_MUTED, text.html(self.aside))
        return Markup(
            '<div style="border-left:4px solid {};padding:2px 0 2px 10px;margin:0 0 8px 0;font-size:15px;font-weight:600;'
            'line-height:1.4">{}{}{}</div>'
        ).format(SIGN_COLOURS[self.sign], sign, text.html(self.sentence), aside if self.aside else Markup(""))

    def markdown(self) -> str:
        """See `Block`."""
        aside = f" ({text.markdown(self.aside)})" if self.aside else ""
        sign = f"\\[{self.sign}\\] " if self.sign else ""
        return f"**{sign}{text.markdown(self.sentence)}**{aside}"

    def plain(self) -> str:
        """See `Block`."""
        aside = f"    {text.clean(self.aside)}" if self.aside else ""
        sign = f"[{self.sign}] " if self.sign else ""
        return f"{self.label:<{GUTTER}}{sign}{text.clean(self.sentence)}{aside}"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text with a word in the gutter that says what it is about."""

    label: str
    sentence: str

    def html(self) -> Markup:
        """See `Block`."""
        if not self.label:
            return Markup('<div style="padding:1px 0">{}</div>').format(text.html(self.sentence))
        return Markup(
            '<table style="{}"><tbody><tr><th scope="row" style="padding:1px 12px 1px 0;border:none;text-align:left;'
            'vertical-align:top;font-weight:400;min-width:64px;width:64px;{}">{}</th><td style="padding:1px 0;border:none;'
            'text-align:left;white-space:normal">{}</td></tr></tbody></table>'
        ).format(_TABLE, _MUTED, text.html(self.label), text.html(self.sentence))

    def markdown(self) -> str:
        """See `Block`."""
        return f"- {text.markdown(self.label)}: {text.markdown(self.sentence)}" if self.label else text.markdown(self.sentence)

    def plain(self) -> str:
        """See `Block`."""
        return f"{text.clean(self.label):<{GUTTER}}{text.clean(self.sentence)}"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    sentences: tuple[str, ...]

    def html(self) -> Markup:
        """See `Block`."""
        rows = Markup("").join(Markup("<li>{}</li>").format(text.html(sentence)) for sentence in self.sentences)
        return Markup('<ul style="margin:2px 0 4px 0;padding-left:20px">{}</ul>').format(rows)

    def markdown(self) -> str:
        """See `Block`."""
        return "\n".join(f"- {text.markdown(sentence)}" for sentence in self.sentences)

    def plain(self) -> str:
        """See `Block`."""
        return "\n".join(f"- {text.clean(sentence)}" for sentence in self.sentences)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts: columns in `right` are numbers, `bars` gives each row a share and a colour; no caption in a section."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    bars: tuple[tuple[float, str], ...] = ()

    def html(self) -> Markup:
        """See `Block`."""
        header = Markup("").join(
            Markup('<th scope="col" style="{}text-align:{};font-weight:600;white-space:nowrap;{}">{}</th>').format(
                _CELL, "right" if index in self.right else "left", _MUTED, text.html(title)
            )
            for index, title in enumerate(self.header)
        )
        caption = (
            Markup('<caption style="{}">{}</caption>').format(_CAPTION, text.html(self.caption)) if self.caption else Markup("")
        )
        bars = Markup('<th scope="col" style="{}width:180px"></th>').format(_CELL) if self.bars else Markup("")
        rows = Markup("").join(self._html_row(row, index) for index, row in enumerate(self.rows))
        return Markup('<table style="{};margin:6px 0">{}<thead><tr>{}{}</tr></thead><tbody>{}</tbody></table>').format(
            _TABLE, caption, header, bars, rows
        )

    def _html_row(self, row: tuple[str, ...], number: int) -> Markup:
        cells = Markup("").join(
            Markup('<{0} style="{1}text-align:{2};{3}">{4}</{5}>').format(
                Markup('th scope="row"') if index == 0 else Markup("td"),
                _CELL,
                "right" if index in self.right else "left",
                "font-weight:400" if index == 0 else _NUMBER if index in self.right else "",
                text.html(cell),
                Markup("th") if index == 0 else Markup("td"),
            )
            for index, cell in enumerate(row)
        )
        bar = Markup("")
        if self.bars:
            share, colour = self.bars[number]
            bar = Markup('<td style="{}width:180px">{}</td>').format(_CELL, bar_html(share, colour))
        return Markup("<tr>{}{}</tr>").format(cells, bar)

    def markdown(self) -> str:
        """See `Block`."""
        rule = "|".join("---:" if index in self.right else "---" for index in range(len(self.header)))
        rows = ["| " + " | ".join(text.markdown(cell) for cell in row) + " |" for row in (self.header, *self.rows)]
        caption = [f"{text.markdown(self.caption)}:", ""] if self.caption else []
        return "\n".join([*caption, rows[0], f"|{rule}|", *rows[1:]])

    def plain(self) -> str:
        """See `Block`."""
        table = [tuple(text.clean(cell) for cell in row) for row in (self.header, *self.rows)]
        widths = [max(len(row[index]) for row in table) for index in range(len(self.header))]
        lines = [
            "  ".join(
                cell.rjust(widths[index]) if index in self.right else cell.ljust(widths[index]) for index, cell in enumerate(row)
            ).rstrip()
            for row in table
        ]
        return "\n".join([*([f"{text.clean(self.caption)}:"] if self.caption else []), *(f"  {line}" for line in lines)])


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart as SVG with its text alternative; in Markdown and plain text the table beside it says the same."""

    svg: str
    alternative: str

    def html(self) -> Markup:
        """See `Block`."""
        # percent-encoded, nothing is left in it that could end the attribute; with ' for " it is a third shorter
        svg = self.svg if "'" in self.svg else self.svg.replace('"', "'")
        address = Markup(quote(svg, safe=" =:/'(),;+*@!$?~"))  # noqa: S704 - quote leaves no markup
        return Markup(
            '<div style="margin:6px 0"><img alt="{}" src="data:image/svg+xml,{}" style="max-width:100%;height:auto;'
            'background:#ffffff;color:#1a1a1a;border-radius:4px"></div>'
        ).format(text.html(self.alternative), address)

    def markdown(self) -> str:
        """See `Block`."""
        return ""

    def plain(self) -> str:
        """See `Block`."""
        return ""


@dataclass(frozen=True, slots=True)
class Diff:
    """Lines of a unified diff; an empty one says so."""

    lines: tuple[str, ...]

    def html(self) -> Markup:
        """See `Block`."""
        if not self.lines:
            return Markup('<div style="{}">no change</div>').format(_MUTED)
        rows = Markup("\n").join(self._html_line(line) for line in self.lines)
        return Markup(
            '<pre style="margin:2px 0;padding:6px 8px;border:1px solid {};border-radius:4px;color:inherit;{}">{}</pre>'
        ).format(LINE, _MONO, rows)

    def _html_line(self, line: str) -> Markup:
        is_header = line.startswith(("--- ", "+++ ", "@@"))
        tag, colour = _DIFF_MARKS.get("" if is_header else line[:1], ("span", "transparent"))
        muted = ";opacity:0.75" if is_header else ""
        return Markup('<{0} style="text-decoration:none;color:inherit;background:{1}{2}">{3}</{0}>').format(
            Markup(tag),  # noqa: S704 - one of the three names written above
            colour,
            muted,
            text.html(line),
        )

    def markdown(self) -> str:
        """See `Block`."""
        lines = [text.clean(line).replace("```", "'''") for line in self.lines]
        return "\n".join(["```diff", *lines, "```"]) if lines else "no change"

    def plain(self) -> str:
        """See `Block`."""
        return "\n".join(f"{'':<{GUTTER}}{text.clean(line)}" for line in self.lines) or f"{'':<{GUTTER}}no change"


def bar_html(share: float, colour: str) -> Markup:
    """A bar as long as a share of its cell, outlined so that pale colours keep an edge."""
    width = max(0.0, min(1.0, share)) * 100.0
    return Markup(
        '<div style="background-color:{};width:{:.1f}%;min-width:2px;height:12px;border:1px solid #1a1a1a;box-sizing:border-box;'
        'border-radius:2px;margin-top:3px"></div>'
    ).format(colour, width)
