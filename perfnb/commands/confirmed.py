"""A change shown and then confirmed: by a word on the terminal, or by --yes."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from perfnb.errors import PerfnbError

DECLINED: Final = 1
"""Exit code where the user said no."""


class NotConfirmedError(PerfnbError):
    """Nobody is there to be asked, and --yes was not given."""


def add_confirmation(parser: argparse.ArgumentParser) -> None:
    """--dry-run and --yes."""
    parser.add_argument("--dry-run", action="store_true", help="show the diff and write nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="write without asking")


def is_confirmed(shown: str, question: str, *, yes: bool) -> bool:
    """Whether what is shown is to be done; it is printed before anyone is asked.

    Parameters
    ----------
    shown
        The diff.
    question
        What would be done.
    yes
        Whether it was confirmed already.

    Returns
    -------
    bool
        False where the user answers with anything but y or yes.

    Raises
    ------
    NotConfirmedError
        If there is no terminal to ask on.
    """
    print(shown, flush=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        message = "nothing was written: there is no terminal to ask on; pass --yes to write, or --dry-run to look only"
        raise NotConfirmedError(message)
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
