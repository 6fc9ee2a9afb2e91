"""`perfnb tutorial`: the tutorial opened in JupyterLab, or run to an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perfnb.tutorial import execute_tutorial, open_tutorial

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers

_PAGE: Final = Path("tutorial.html")
_WORK_FOLDER: Final = Path("perfnb-tutorial")


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb tutorial`."""
    parser = subparsers.add_parser("tutorial", help="open the tutorial in JupyterLab, on a copy to work on")
    parser.add_argument("--execute", action="store_true", help="run it without a browser and write an HTML page")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="that page (default: tutorial.html)")
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """Where the copy of the tutorial, or the page that running it gave, lies.

    Parameters
    ----------
    options
        `execute`, `output`.

    Returns
    -------
    str
        One sentence.
    """
    if options.execute:
        return f"wrote {execute_tutorial(options.output or _PAGE)}"
    return f"your copy is {open_tutorial(_WORK_FOLDER)}"
