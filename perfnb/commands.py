"""What each command of the command line answers: reads what it names, calls one public function, returns the text to print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import perfnb
from perfnb import json_output, terminal
from perfnb.config.json_file import config_beside, read_config
from perfnb.doctor import machine_lines, trace_lines
from perfnb.errors import NoStepsError
from perfnb.outcomes import own_calibration, read_ledger
from perfnb.read.any_run import read_any
from perfnb.tutorial import execute_tutorial, open_tutorial

_PAGE: Final = Path("tutorial.html")
_WORK_FOLDER: Final = Path("perfnb-tutorial")


def analyze(options: argparse.Namespace) -> str:
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
        message = f"{_named(options.path)}: {'; '.join(sorted(reasons)) or 'no step boundaries'}"
        raise NoStepsError(message)
    config = _config(options.config, options.path[0], run.config)
    suggestions = perfnb.suggest(run, config, diagnosis)
    if options.json:
        return json_output.as_json(json_output.analysis(diagnosis, suggestions))
    return terminal.analysis(diagnosis, suggestions)


def predict(options: argparse.Namespace) -> str:
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
    config = _config(options.config, options.path, run.config)
    answer = perfnb.predict(run, dict(options.settings), config, calibration=own_calibration())
    if options.json:
        return json_output.as_json(json_output.answer(answer))
    return terminal.prediction(dict(options.settings), config, answer)


def breakdown(options: argparse.Namespace) -> str:
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


def accuracy(options: argparse.Namespace) -> str:
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


def tutorial(options: argparse.Namespace) -> str:
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


def doctor(options: argparse.Namespace) -> str:
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


def _config(named: Path | None, path: Path, recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    return config_beside(path, recorded) if named is None else read_config(named)


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
