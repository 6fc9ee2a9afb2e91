"""`perfnb undo`: the last change of a config file taken back, to the byte."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from perfnb.commands.answer import Answer
from perfnb.commands.confirmed import DECLINED, add_confirmation, is_confirmed
from perfnb.config.diff import config_diff
from perfnb.config.file_home import FileHome
from perfnb.safe_text import clean

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb undo`."""
    parser = subparsers.add_parser(
        "undo",
        help="take the last change of a config file back: shows the diff, asks, and puts the old bytes back",
        epilog="Exit code: 0 taken back or shown, 1 declined, 2 not possible: no backup, or the file was edited since.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help=".json, .yaml or .toml file that perfnb changed")
    add_confirmation(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str | Answer:
    """What was taken back, or would be.

    Parameters
    ----------
    options
        `config`, `dry_run`, `yes`.

    Returns
    -------
    str or Answer
        The diff on a dry run; else that the file is as it was.

    Raises
    ------
    ConfigError
        If there is no backup, or the file cannot be written.
    StaleChange
        If the file was edited since the change.
    """
    now = FileHome(options.config)
    before = now.reverted()
    shown = "\n".join(clean(line.removesuffix("\r")) for line in config_diff(now, before).rstrip("\n").split("\n"))
    name = clean(options.config.name, 200)
    if options.dry_run:
        return shown
    if not is_confirmed(shown, f"Put the old {name} back?", yes=options.yes):
        return Answer("nothing was written", DECLINED)
    before.commit_revert(now)
    return f"{name} is as it was before the last change"
