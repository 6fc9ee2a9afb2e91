"""`perfnb predict`: the step time after a change of the config."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import perfnb
from perfnb import json_output, terminal
from perfnb.commands.options import add_config, add_json, add_path, config_of
from perfnb.outcomes import own_calibration
from perfnb.read.any_run import read_any

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb predict`."""
    parser = subparsers.add_parser("predict", help="predict the step time after a change of the config")
    add_path(parser)
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        type=setting,
        dest="settings",
        metavar="KNOB=VALUE",
        help="the change, as num_workers=4; once for each knob",
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """Predicted step time after a change, or why it cannot be predicted.

    Parameters
    ----------
    options
        `path`, `settings` (pairs of knob and value), `config`, `json`.

    Returns
    -------
    str
        Sentences in plain text, or one JSON object.
    """
    run = read_any(options.path)
    config = config_of(options.config, options.path, run.config)
    answered = perfnb.predict(run, dict(options.settings), config, calibration=own_calibration())
    if options.json:
        return json_output.as_json(json_output.answer(answered))
    return terminal.prediction(dict(options.settings), config, answered)


def setting(text: str) -> tuple[str, Any]:
    """Knob and value of one `--set`: the value is read as JSON where it is JSON, else as text.

    Parameters
    ----------
    text
        `KNOB=VALUE`.

    Returns
    -------
    tuple
        The knob's name and its value.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no `=` or no knob before it.

    Examples
    --------
    >>> setting("num_workers=4"), setting("pin_memory=true"), setting("precision=bf16")
    (('num_workers', 4), ('pin_memory', True), ('precision', 'bf16'))
    """
    knob, equals, value = text.partition("=")
    if not (knob.strip() and equals):
        message = f"{text!r} is no KNOB=VALUE: write num_workers=4"
        raise argparse.ArgumentTypeError(message)
    try:
        return knob.strip(), json.loads(value)
    except json.JSONDecodeError:
        return knob.strip(), value
