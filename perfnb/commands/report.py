"""`perfnb report`: one file that says all of a run, as an HTML page, Markdown or JSON."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perfnb.commands.options import add_config, add_paths, config_home
from perfnb.read.any_run import read_run_or_log

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers

_FILE: Final = Path("perfnb_report.html")


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb report`."""
    parser = subparsers.add_parser("report", help="write all that a run tells to one file: .html, .md or .json")
    add_paths(parser)
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=_FILE,
        metavar="FILE",
        help=f"where to; its ending says what: .html (no script, no network), .md or .json (default: {_FILE})",
    )
    add_config(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """Where the report lies.

    Parameters
    ----------
    options
        `path` (several), `output`, `config`.

    Returns
    -------
    str
        One sentence.
    """
    from perfnb.report_content import reported  # noqa: PLC0415 - other commands run where no library of charts is installed
    from perfnb.report_file import writer_of  # noqa: PLC0415 - as above

    writer = writer_of(options.output)
    run = read_run_or_log(*options.path)
    told = reported(run, config_home(options.config, options.path[0], run.config))
    return f"wrote {writer(told, options.output)}"
