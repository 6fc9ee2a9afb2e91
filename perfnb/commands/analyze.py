"""`perfnb analyze`: ranked bottlenecks of a run with the fixes that apply to its config."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import perfnb
from perfnb import json_output, terminal
from perfnb.commands.options import add_config, add_json, add_paths, config_of, named
from perfnb.errors import NoStepsError
from perfnb.read.any_run import read_any

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb analyze`."""
    parser = subparsers.add_parser("analyze", help="rank what costs time, and what to change")
    add_paths(parser)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """Ranked bottlenecks of a run with the fixes that apply to its config.

    Parameters
    ----------
    options
        `path` (several), `config`, `json`.

    Returns
    -------
    str
        Tables in plain text, or one JSON object.

    Raises
    ------
    NoStepsError
        If no detector could look because the run has no steps.
    """
    run = read_any(*options.path)
    diagnosis = perfnb.diagnose(run)
    looked = (*diagnosis.found, *diagnosis.possible, *diagnosis.cleared)
    if run.steps.empty and not looked:
        reasons = {item.reason for item in diagnosis.unmeasured}
        message = f"{named(options.path)}: {'; '.join(sorted(reasons)) or 'no step boundaries'}"
        raise NoStepsError(message)
    config = config_of(options.config, options.path[0], run.config)
    suggestions = perfnb.suggest(run, config, diagnosis)
    if options.json:
        return json_output.as_json(json_output.analysis(diagnosis, suggestions))
    return terminal.analysis(diagnosis, suggestions)
