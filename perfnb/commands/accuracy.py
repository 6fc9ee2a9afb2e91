"""`perfnb accuracy`: how right earlier predictions were, per model and knob."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import perfnb
from perfnb import json_output, terminal
from perfnb.commands.options import add_json
from perfnb.outcomes import read_ledger

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb accuracy`."""
    parser = subparsers.add_parser("accuracy", help="how right earlier predictions were, per model and knob")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="the accuracy ledger (default: $PERFNB_OUTCOMES, else the user's data folder)",
    )
    add_json(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """How right predictions were, per model and knob, from the accuracy ledger.

    Parameters
    ----------
    options
        `folder` or None, `json`.

    Returns
    -------
    str
        A table in plain text, or one JSON object.
    """
    ledger = read_ledger(options.folder)
    rows = perfnb.accuracy(ledger.rows)
    if options.json:
        return json_output.as_json(json_output.rows(rows) | {"notes": list(ledger.notes)})
    return terminal.accuracy(rows, ledger.notes)
