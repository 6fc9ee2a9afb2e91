"""The command line: `perfnb analyze`, `predict`, `breakdown`, `accuracy`, `tutorial`, `doctor`, also as `python -m perfnb`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import perfnb
from perfnb import commands
from perfnb.errors import PerfnbError
from perfnb.safe_text import clean

WRONG_USE = 2
"""Exit code where the question cannot be answered: the same that argparse gives for wrong arguments."""

_INTERRUPTED = 130  # what shells report for a program that SIGINT ended: 128 + 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of one command: 0 where it was answered, 2 where it cannot be, with one line on stderr that says why.

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
        print(options.answer(options))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has seen enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PerfnbError, OSError) as error:
        print(f"perfnb: {_one_line(error)}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _one_line(error: PerfnbError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return clean(" ".join(str(error).split()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perfnb", description=perfnb.__doc__.partition("\n")[0] if perfnb.__doc__ else None)
    parser.add_argument("--version", action="version", version=f"perfnb {perfnb.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    analyze = subparsers.add_parser("analyze", help="rank what costs time, and what to change")
    analyze.add_argument("path", type=Path, nargs="+", metavar="PATH", help="run folder, or traces of one job, all ranks")
    _add_config(analyze)
    _add_json(analyze)
    analyze.set_defaults(answer=commands.analyze)

    predict = subparsers.add_parser("predict", help="predict the step time after a change of the config")
    predict.add_argument("path", type=Path, metavar="PATH", help="run folder, trace file, or folder of traces")
    predict.add_argument(
        "--set", action="append", required=True, type=commands.setting, dest="settings", metavar="KNOB=VALUE",
        help="the change, as num_workers=4; once for each knob",
    )  # fmt: skip
    _add_config(predict)
    _add_json(predict)
    predict.set_defaults(answer=commands.predict)

    breakdown = subparsers.add_parser("breakdown", help="how long each rank's device computed, communicated, copied and idled")
    breakdown.add_argument("path", type=Path, metavar="PATH", help="run folder, trace file, or folder of traces")
    breakdown.add_argument("--by", choices=("window", "step"), default="window", help="one row per rank, or per rank and step")
    _add_json(breakdown)
    breakdown.set_defaults(answer=commands.breakdown)

    accuracy = subparsers.add_parser("accuracy", help="how right earlier predictions were, per model and knob")
    accuracy.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="the accuracy ledger (default: $PERFNB_OUTCOMES, else the user's data folder)",
    )
    _add_json(accuracy)
    accuracy.set_defaults(answer=commands.accuracy)

    tutorial = subparsers.add_parser("tutorial", help="open the tutorial in JupyterLab, on a copy to work on")
    tutorial.add_argument("--execute", action="store_true", help="run it without a browser and write an HTML page")
    tutorial.add_argument("-o", dest="output", type=Path, metavar="FILE", help="that page (default: tutorial.html)")
    tutorial.set_defaults(answer=commands.tutorial)

    doctor = subparsers.add_parser("doctor", help="what this machine offers, and with PATH what a run can tell")
    doctor.add_argument("path", type=Path, nargs="?", metavar="PATH", help="run folder, trace file, or folder of traces")
    doctor.set_defaults(answer=commands.doctor)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the training's config (default: config.json beside the trace, where there is one)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


if __name__ == "__main__":
    sys.exit(main())
