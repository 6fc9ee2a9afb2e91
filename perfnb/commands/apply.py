"""`perfnb apply`: a change put into a config file, shown as a diff first, written as one and kept in a backup."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import perfnb
from perfnb.apply import Preview, preview
from perfnb.commands.answer import Answer
from perfnb.commands.confirmed import DECLINED, add_confirmation, is_confirmed
from perfnb.commands.predict import setting
from perfnb.config.as_config import as_config
from perfnb.config.file_home import FileHome
from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError
from perfnb.fix import Suggestion
from perfnb.prediction import Change
from perfnb.read.any_run import read_any
from perfnb.safe_text import clean
from perfnb.wording import changed, predicted

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers

NO_PLACE: Final = 2
"""Exit code where the config has no place for a knob: the code to paste is printed instead."""


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb apply`."""
    parser = subparsers.add_parser(
        "apply",
        help="change a config file: shows the diff, asks, writes it as one and keeps a backup",
        epilog="Exit code: 0 written or shown, 1 declined, 2 not possible. `perfnb undo CONFIG` takes the last change back.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help=".json, .yaml or .toml file")
    parser.add_argument(
        "fixes", nargs="*", metavar="FIX", help="with --run: names of suggestions to apply; without any, they are listed"
    )
    parser.add_argument("--run", type=Path, metavar="PATH", help="run folder or trace that the suggestions are made from")
    parser.add_argument(
        "--set", action="append", default=[], type=setting, dest="settings", metavar="KNOB=VALUE", help="a change of your own"
    )
    add_confirmation(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str | Answer:
    """What was written, or would be, or which suggestions there are.

    Parameters
    ----------
    options
        `config`, `fixes`, `run`, `settings`, `dry_run`, `yes`.

    Returns
    -------
    str or Answer
        The diff on a dry run; else where the file and its backup lie.

    Raises
    ------
    ConfigError
        If nothing is asked for, a name is no suggestion, or the file cannot be changed.
    """
    home = as_config(options.config)
    changes = [_own(home, knob, after) for knob, after in options.settings]
    if options.run is not None:
        offered = perfnb.suggest(read_any(options.run), home)
        if not (options.fixes or changes):
            return _offer(offered, options.config)
        changes += _chosen(offered, options.fixes)
    elif options.fixes:
        message = f"{clean(options.fixes[0], 80)} is a suggestion of which run? name it: --run PATH"
        raise ConfigError(message)
    if not changes:
        message = "nothing to change: say --set KNOB=VALUE, or --run PATH and the names of its suggestions"
        raise ConfigError(message)
    return _written(preview(changes, home), options)


def _written(seen: Preview, options: argparse.Namespace) -> str | Answer:
    name = clean(options.config.name, 200)
    if options.dry_run:
        return str(seen).removesuffix("\n")
    if seen.reason:
        return Answer(f"{seen}\nnothing was written", NO_PLACE)
    if not seen.diff:
        return f"{name} holds that already: nothing was written"
    if not is_confirmed(str(seen).removesuffix("\n"), f"Write {name}?", yes=options.yes):
        return Answer("nothing was written", DECLINED)
    done = seen.write()
    backup = f"; what it held is in {clean(done.backup.name, 200)}" if isinstance(done, FileHome) and done.backup else ""
    return f"wrote {name}{backup}; `perfnb undo {name}` takes it back"


def _own(home: Any, knob: str, after: Any) -> Change:
    """The user's change; a knob that the config lacks starts from nothing and is answered with code to paste."""
    return Change(knob, value_of(home, knob) if has_knob(home, knob) else None, after)


def _chosen(offered: tuple[Suggestion, ...], names: list[str]) -> list[Change]:
    by_name = {each.fix: each for each in offered}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        there = ", ".join(by_name) or "none"
        message = f"{clean(', '.join(unknown), 200)} is no suggestion for this run and config: there are {there}"
        raise ConfigError(message)
    return [change for name in dict.fromkeys(names) for change in by_name[name].changes]


def _offer(offered: tuple[Suggestion, ...], config: Path) -> str:
    if not offered:
        return "no change of this config is suggested"
    lines = [f"{each.fix}: {changed(each.changes)}. Predicted: {predicted(each.prediction)}" for each in offered]
    name = clean(config.name, 200)
    return "\n".join([*lines, f"name those to write: perfnb apply {name} {offered[0].fix} --run ..."])
