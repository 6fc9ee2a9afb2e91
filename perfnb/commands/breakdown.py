"""`perfnb breakdown`: how long each rank's device computed, communicated, copied and idled."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import perfnb
from perfnb import json_output, terminal
from perfnb.commands.options import add_json, add_path
from perfnb.read.any_run import read_any

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb breakdown`."""
    parser = subparsers.add_parser("breakdown", help="how long each rank's device computed, communicated, copied and idled")
    add_path(parser)
    parser.add_argument("--by", choices=("window", "step"), default="window", help="one row per rank, or per rank and step")
    add_json(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """How long each rank's device computed, communicated, copied and idled.

    Parameters
    ----------
    options
        `path`, `by` (window or step), `json`.

    Returns
    -------
    str
        A table in plain text, or one JSON object.
    """
    run = read_any(options.path)
    rows = perfnb.device_breakdown(run, by=options.by)
    signals = ("device_ops", "steps") if options.by == "step" else ("device_ops",)
    missing = "; ".join(run.missing[signal] for signal in signals if signal in run.missing) if rows.empty else ""
    if options.json:
        return json_output.as_json(json_output.rows(rows, missing))
    return terminal.frame(rows) if len(rows) else f"No device time: {missing or 'no device op was recorded'}"
