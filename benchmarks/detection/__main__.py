"""Command line of the detection benchmark: ``python -m benchmarks.detection run|score|quick``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection.run import PROGRAM, cases, run

SETS = ("development", "held_out", "controls")
STORED = Path("data/samples/detection")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run cases, or score stored ones.

    Returns
    -------
    int
        0 where all is done, 1 where a case did not run.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run cases and store what they recorded")
    running.add_argument("--set", dest="chosen", choices=SETS, required=True)
    running.add_argument("--only", action="append", default=[], metavar="FAULT", help="a fault, a pair a+b, or a control")
    running.add_argument("--workload", action="append", default=[], help="of these workloads only")
    running.add_argument("--setting", action="append", default=[], help="of these batch and loader settings only")
    running.add_argument("--resume", action="store_true", help="leave what is stored as it is")
    running.add_argument("--out", type=Path, default=STORED)
    running.add_argument("--lock", type=Path, help="a file that is locked while a case runs")
    scoring = commands.add_parser("score", help="score stored cases: a table, score.json and cases.csv")
    scoring.add_argument("folder", type=Path, nargs="?", default=STORED)
    scoring.add_argument("--out", type=Path, help="folder for score.json and cases.csv; not written where left out")
    scoring.add_argument("--track-record", action="store_true", help="write the counts of held-out cases into perfnb")
    quick = commands.add_parser("quick", help="three faults and three controls live, and the score of the stored cases")
    quick.add_argument("--out", type=Path, required=True)
    quick.add_argument("--lock", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.command == "run":
        wanted = [case for case in cases(chosen.chosen, chosen.only) if case.workload in (chosen.workload or [case.workload])]
        wanted = [case for case in wanted if case.setting in (chosen.setting or [case.setting])]
        if not wanted:
            parser.error(f"no case of {chosen.chosen} has {', '.join([*chosen.only, *chosen.workload, *chosen.setting])}")
        return int(run(wanted, chosen.out, resume=chosen.resume, lock=chosen.lock) < len(wanted))
    from benchmarks.detection import report  # noqa: PLC0415 - the process that runs cases needs no pandas

    if chosen.command == "score":
        return report.score_folder(chosen.folder, chosen.out, track_record=chosen.track_record)
    return report.quick(chosen.out, STORED, lock=chosen.lock)


if __name__ == "__main__":
    sys.exit(main())
