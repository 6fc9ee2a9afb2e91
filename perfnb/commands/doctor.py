"""`perfnb doctor`: what this machine offers, and which questions a trace can answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from perfnb import terminal
from perfnb.doctor import machine_lines, trace_lines

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb doctor`."""
    parser = subparsers.add_parser("doctor", help="what this machine offers, and with PATH what a run can tell")
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help="run folder, trace file, or folder of traces")
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """What this machine offers and, where a trace is named, which questions that trace can answer.

    Parameters
    ----------
    options
        `path` or None.

    Returns
    -------
    str
        One line per thing, with its remedy where it is missing.
    """
    lines = {"This machine": machine_lines()}
    if options.path is not None:
        lines[f"This trace: {options.path.name}"] = trace_lines(options.path)
    return terminal.doctor(lines)
