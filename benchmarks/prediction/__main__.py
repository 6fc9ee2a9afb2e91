"""Command line of the prediction benchmark: ``python -m benchmarks.prediction run|score|again|page|quick``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.prediction.catalogue import cases, quick_cases
from benchmarks.prediction.run import PROGRAM, run

STORED: Final = Path("data/samples/prediction")
TABLE: Final = "pairs.csv"
ABOUT: Final = "about.json"
PAGE: Final = Path("docs/accuracy.md")
SHIPPED: Final = Path("perfnb/outcomes.csv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pairs, or score stored ones.

    Returns
    -------
    int
        0 where all is done, 1 where a pair did not run.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="record, predict, hash, then measure; each pair is stored as it ends")
    running.add_argument("--set", dest="chosen", choices=("development", "scored"), required=True)
    running.add_argument("--only", action="append", default=[], metavar="WORD", help="pairs whose name has this word")
    running.add_argument("--first", type=int, help="so many pairs at most")
    running.add_argument("--minutes", type=float, help="begin no pair after so many minutes")
    running.add_argument("--resume", action="store_true", help="leave what is stored as it is")
    running.add_argument("--out", type=Path, default=STORED)
    scoring = commands.add_parser("score", help="print the headline table of stored pairs")
    scoring.add_argument("folder", type=Path, nargs="?", default=STORED)
    scoring.add_argument("--write", action="store_true", help="write the table, docs/accuracy.md and perfnb/outcomes.csv too")
    anew = commands.add_parser("again", help="predict stored pairs anew with the models as they are now, and print the errors")
    anew.add_argument("folder", type=Path, nargs="?", default=STORED / "development")
    commands.add_parser("page", help="render docs/accuracy.md from the stored table")
    quick = commands.add_parser("quick", help="a few pairs live, in two minutes: their errors are printed, nothing is stored")
    quick.add_argument("--out", type=Path, required=True)
    told = parser.parse_args(arguments)
    if told.command == "run":
        wanted = [case for case in cases(told.chosen) if all(word in case.id for word in told.only)][: told.first]
        if not wanted:
            parser.error(f"no pair of {told.chosen} has {', '.join(told.only)} in its name")
        until = None if told.minutes is None else time.monotonic() + 60 * told.minutes
        return int(run(wanted, told.out / told.chosen, resume=told.resume, until=until) < len(wanted))
    if told.command == "quick":
        wanted = quick_cases()
        done = run(wanted, told.out, rounds=1)
        print(scored(told.out))
        return int(done < len(wanted))
    if told.command == "page":
        return _page()
    if told.command == "again":
        return _again(told.folder)
    print(scored(told.folder, write=told.write))
    return 0


def scored(folder: Path, *, write: bool = False) -> str:
    """The headline of stored pairs; writes what is made from them where that is wanted."""
    from benchmarks.prediction import rows, score, stored  # noqa: PLC0415 - the process that runs pairs needs none of it

    found = list(stored.pairs(folder))
    table = rows.rows_of(found)
    if write:
        rows.write_rows(folder / TABLE, table)
        about = {
            **rows.provenance_of(found),
            "rounds": _rounds(found),
            "failures": [list(each) for each in stored.failures(folder)],
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _page(folder)
        rows.write_shipped(SHIPPED, table, about)
    return score.headline(table)


def _again(folder: Path) -> int:
    from benchmarks.prediction import again, rows, score, stored  # noqa: PLC0415 - the process that runs pairs needs none of it

    table = rows.rows_of(again.predicted_again(pair) for pair in stored.pairs(folder))
    print(score.listing(table))
    return 0


def _rounds(found: Sequence[object]) -> int:
    return max((len([b for b in pair.told["blocks"] if b["side"] == "after"]) for pair in found), default=0)  # type: ignore[attr-defined]


def _page(folder: Path = STORED) -> int:
    from benchmarks.prediction import page, rows  # noqa: PLC0415 - the process that runs pairs needs none of it

    page.write(PAGE, rows.read_rows(folder / TABLE), page.read_about(folder / ABOUT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
