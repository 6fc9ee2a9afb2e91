"""The command line `perfnb`, also as `python -m perfnb`: the commands are the files of perfnb/commands/."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import perfnb
from perfnb.commands.answer import Answer
from perfnb.commands.known import commands
from perfnb.errors import PerfnbError
from perfnb.safe_text import clean

WRONG_USE = 2
"""Exit code where the question cannot be answered: the same that argparse gives for wrong arguments."""

_INTERRUPTED = 130  # what shells report for a program that SIGINT ended: 128 + 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of one command: its own where it was answered, 2 where it cannot be, with one line on stderr that says why.

    Parameters
    ----------
    arguments
        Words of the command line without the program's name; those of this process where not given.

    Returns
    -------
    int
        The exit code.

    Examples
    --------
    >>> main(["predict", "run.json", "--set", "num_workers=4", "--config", "no such file"])
    2
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without a character of a kernel's name
    try:
        given = options.answer(options)
        answer = given if isinstance(given, Answer) else Answer(given)
        if answer.text:
            print(answer.text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has seen enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PerfnbError, OSError) as error:
        print(f"perfnb: {_one_line(error)}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return answer.exit_code


def _one_line(error: PerfnbError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return clean(" ".join(str(error).split()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perfnb", description=perfnb.__doc__.partition("\n")[0] if perfnb.__doc__ else None)
    parser.add_argument("--version", action="version", version=f"perfnb {perfnb.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for add_to in commands().values():
        add_to(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
