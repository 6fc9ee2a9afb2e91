"""`perfnb validate`: perfnb checks itself on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perfnb import json_output
from perfnb.commands.answer import Answer
from perfnb.errors import PerfnbError
from perfnb.safe_text import clean
from perfnb.whole_file import write_whole

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers
    from perfnb.validate import Validation


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb validate`."""
    parser = subparsers.add_parser(
        "validate",
        help="check perfnb itself on this machine: what is installed, what works, how fast",
        epilog="Exit code: 0 no check failed, 1 one did, 2 the file cannot be written. What is skipped fails nothing.",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", dest="mode", action="store_const", const="quick", help="up to a minute (the default)")
    length.add_argument("--full", dest="mode", action="store_const", const="full", help="trains longer, all detectors' examples")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write a .html page, .md or .json too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(answer=answer, mode="quick")


def answer(options: argparse.Namespace) -> Answer:
    """What the checks came to, and an exit code that says it.

    Parameters
    ----------
    options
        `mode`, `output`, `json`.

    Returns
    -------
    Answer
        Text or one JSON object; exit code 1 where a check failed.

    Raises
    ------
    PerfnbError
        If the file has another ending, or cannot be written.
    """
    from perfnb.validate import validate  # noqa: PLC0415 - other commands need nothing of it

    writer = _WRITERS["" if options.output is None else _ending(options.output)]
    validation = validate(options.mode or "quick")
    if options.output is not None:
        _write(options.output, writer(validation))
    shown = json_output.as_json(validation.as_dict()) if options.json else str(validation)
    wrote = f"\nwrote {options.output}" if options.output is not None and not options.json else ""
    return Answer(f"{shown}{wrote}", validation.exit_code)


def _html(validation: Validation) -> str:
    from perfnb.report import page  # noqa: PLC0415 - imports the library of charts

    return str(page(validation.bundle(), "perfnb validation"))


_WRITERS: Final[Mapping[str, Callable[[Validation], str]]] = {
    "": str,
    ".html": _html,
    ".md": lambda validation: f"# perfnb validation\n\n{validation.bundle().markdown}\n",
    ".json": lambda validation: json_output.as_json(validation.as_dict()) + "\n",
}


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in _WRITERS or not ending:
        message = f"{clean(path.name, 200)} does not say what to write: end it in .html, .md or .json"
        raise PerfnbError(message)
    if not path.parent.is_dir():
        message = f"there is no folder {clean(path.parent, 200)}: make it first"
        raise PerfnbError(message)
    return ending


def _write(path: Path, content: str) -> None:
    try:
        write_whole(path, content.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        message = f"{clean(path, 200)} cannot be written: {error.strerror}"
        raise PerfnbError(message) from error
