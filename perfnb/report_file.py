"""report(run, config, path): one file that says all of a run and survives the notebook: HTML, Markdown or JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from perfnb import json_output, text
from perfnb.document import Block, Bundle, Picture, Section, joined_html, joined_markdown
from perfnb.errors import PerfnbError
from perfnb.findings import Diagnosis
from perfnb.fix import Suggestion
from perfnb.report import page
from perfnb.report_blocks import Amount, report_blocks
from perfnb.report_content import Reported, reported
from perfnb.report_json import report_json
from perfnb.run import Run
from perfnb.whole_file import write_whole

LARGEST_PAGE_BYTES: Final = 300_000
"""A page is to be mailed and pasted into a ticket: where it would be larger, evidence is left out before anything else."""

_AMOUNTS: Final = (Amount(), Amount(20), Amount(8), Amount(3), Amount(0), Amount(0, is_drawn=False))

_BODY: Final = Markup('<div style="line-height:1.5;font-size:13px">{}</div>')


class ReportError(PerfnbError):
    """A report cannot be written: says why and what to do."""


@dataclass(frozen=True, slots=True)
class LinkedPicture:
    """A chart that lies in a file beside the Markdown that shows it."""

    picture: Picture
    file: str

    def html(self) -> Markup:
        """See `Block`."""
        return self.picture.html()

    def markdown(self) -> str:
        """See `Block`."""
        return f"![{text.markdown(self.picture.alternative)}]({quote(self.file)})\n"

    def plain(self) -> str:
        """See `Block`."""
        return ""


def report(
    run: Run,
    config: Any = None,
    path: str | os.PathLike[str] = "perfnb_report.html",
    *,
    diagnosis: Diagnosis | None = None,
    suggestions: Sequence[Suggestion] | None = None,
) -> Path:
    """The file that a report of a run was written to; a progress bar on a terminal shows how far it is.

    Verdict, findings with their evidence, changes with their diffs and predictions, the training itself, what was checked and is
    not limiting, what was not measured, the environment and the cost of watching. Values of the config whose names say that they
    are secrets are left out.

    Parameters
    ----------
    run
        The run.
    config
        The training's config, any home of one as in `perfnb.as_config`; the run's own by default.
    path
        Where to write. Its ending says what: .html is one file without script that needs no network, at most 300 kB; .md is
        Markdown with its charts as SVG files beside it; .json holds everything in numbers (`schema` is its version). A file that
        is there is replaced as one.
    diagnosis, suggestions
        `diagnose(run)` and `suggest(run, config)`, if they were made already.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ReportError
        If the path ends otherwise, or cannot be written.
    ConfigError
        If the config cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import perfnb
    >>> file = report(perfnb.read_trace("data/samples/healthy"), path=Path(tempfile.mkdtemp()) / "report.html")
    >>> file.read_text(encoding="utf-8").startswith("<!doctype html>")
    True
    """
    target = Path(path).expanduser()
    writer = writer_of(target)
    return writer(reported(run, config, diagnosis=diagnosis, suggestions=suggestions), target)


def writer_of(target: Path) -> Callable[[Reported, Path], Path]:
    """What writes a report to this path, asked before the work is done.

    Raises
    ------
    ReportError
        If the path has no such ending, or there is no folder for it.
    """
    found = _WRITERS.get(target.suffix.lower())
    if found is None:
        message = f"{text.clean(target.name, 200)} does not say what to write: end it in {', '.join(_WRITERS)}"
        raise ReportError(message)
    if not target.parent.is_dir():
        message = f"there is no folder {text.clean(target.parent, 200)}: make it first"
        raise ReportError(message)
    if target.is_dir():
        message = f"{text.clean(target, 200)} is a folder: name a file"
        raise ReportError(message)
    return found


def html_page(told: Reported) -> str:
    """The report as one HTML page of at most `LARGEST_PAGE_BYTES`."""
    title = f"perfnb report: {', '.join(text.name(name) for name in told.run.source[:1]) or 'a run'}"
    shown = ""
    drawn: dict[str, tuple[Block, ...]] = {}
    for amount in _AMOUNTS:
        html = _BODY.format(joined_html(report_blocks(told, replace(amount, drawn=drawn))))
        shown = str(page(Bundle(html, "", ""), title))
        if len(shown.encode()) <= LARGEST_PAGE_BYTES:
            break
    return shown


def markdown_text(told: Reported, stem: str) -> tuple[str, Mapping[str, str]]:
    """The report as Markdown, and the SVG text of each file that it shows, by the file's name."""
    pictures: dict[str, str] = {}
    blocks = _linked(report_blocks(told), stem, pictures)
    return f"# perfnb report\n\n{joined_markdown(blocks)}\n", pictures


def _write_html(told: Reported, target: Path) -> Path:
    return _written(target, html_page(told))


def _write_markdown(told: Reported, target: Path) -> Path:
    shown, pictures = markdown_text(told, target.stem)
    for name, svg in pictures.items():
        _written(target.with_name(name), svg)
    return _written(target, shown)


def _write_json(told: Reported, target: Path) -> Path:
    return _written(target, json_output.as_json(report_json(told)) + "\n")


_WRITERS: Final[Mapping[str, Callable[[Reported, Path], Path]]] = MappingProxyType(
    {".html": _write_html, ".htm": _write_html, ".md": _write_markdown, ".json": _write_json}
)


def _written(target: Path, content: str) -> Path:
    try:
        write_whole(target, content.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        message = f"{text.clean(target, 200)} cannot be written: {error.strerror}; what was there is as it was"
        raise ReportError(message) from error
    return target


def _linked(blocks: Sequence[Block], stem: str, pictures: dict[str, str]) -> list[Block]:
    """Blocks whose pictures are files beside the Markdown; the files are added to `pictures`."""
    linked: list[Block] = []
    for block in blocks:
        if isinstance(block, Section):
            linked.append(replace(block, blocks=tuple(_linked(block.blocks, stem, pictures))))
        elif isinstance(block, Picture):
            name = f"{stem}.chart-{len(pictures) + 1}.svg"
            pictures[name] = block.svg
            linked.append(LinkedPicture(block, name))
        else:
            linked.append(block)
    return linked
