"""Peers on the cases of the benchmark: ``python -m benchmarks.detection.peers --cases FOLDER --peer-python PATH --out DIR``."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.detection import controls, ranks, single, storage
from benchmarks.detection.case import Case, Truth
from benchmarks.detection.peers import sagemaker, table
from benchmarks.detection.peers.amounts import amount_of, steps_of
from benchmarks.detection.peers.execution import Outcome, execute, path_of, store, stored
from benchmarks.detection.peers.mapping import MEANINGS
from benchmarks.detection.peers.saying import OURS
from benchmarks.detection.peers.selection import chosen
from benchmarks.detection.report import row_of

PROGRAM: Final = "benchmarks.detection.peers"
SCORE: Final = "peers.json"
Measured = tuple[Sequence[Truth], Mapping[str, float]]
"""Truths of a case, and what was seen of its blocks without the cause."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet, then print the table and write it.

    Returns
    -------
    int
        0 where each case ran under each peer, or its reason is stored.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True, help="folder of stored cases, whose truth is used")
    parser.add_argument("--peer-python", type=Path, help="interpreter with the peers; without it stored outcomes are scored")
    parser.add_argument("--out", type=Path, required=True, help="folder of outcomes; what is there is not run again")
    parser.add_argument("--peer", action="append", choices=list(MEANINGS), help="these only")
    parser.add_argument("--all", action="store_true", help="all cases, not the subset that peers/selection.py names")
    parser.add_argument("--retry", action="store_true", help="run again what did not run")
    parser.add_argument("--lock", type=Path, help="a file that is locked while a case runs")
    told = parser.parse_args(arguments)
    headers = {path: storage.header(path) for path in sorted(told.cases.glob(f"*{storage.SUFFIX}"))}
    cases = {path: Case.from_json(header["case"]) for path, header in headers.items()}
    wanted = list(cases.values()) if told.all else chosen(cases.values())
    if not wanted:
        parser.error(f"{told.cases} holds no case that peers are run on: store some with python -m benchmarks.detection run")
    told.out.mkdir(parents=True, exist_ok=True)
    paths = {case.id: path for path, case in cases.items()}
    truths = {case.id: truths_of(headers[path]) for path, case in cases.items()}
    peers = told.peer or list(MEANINGS)
    if told.peer_python is not None or peers == ["sagemaker"]:  # its thresholds need no interpreter but this one
        # Not resolved: the interpreter of an environment is a link, and the environment is where the link lies.
        for number, case in enumerate(wanted, 1):
            left = [peer for peer in peers if _is_due(told.out, case, peer, again=told.retry)]
            if left:
                with _locked(told.lock):
                    _run(case, left, paths[case.id], truths[case.id], told)
                print(f"{number}/{len(wanted)}", flush=True)
    seen = {case.id: headers[path]["seen"] for path, case in cases.items()}
    asked = [case for case in wanted if _is_scored(case, headers[paths[case.id]])]
    measured = {case.id: (truths[case.id], seen[case.id]) for case in asked}
    return _score(asked, {case.id: paths[case.id] for case in asked}, peers, measured, told.out)


def _is_scored(case: Case, header: Mapping[str, Any]) -> bool:
    """Whether all tools are asked of a case: a healthy control that is certified so, or a cause that recorded tables can show."""
    if header["certified"] is not None:
        return bool(header["certified"]["is_certified"])
    hidden = {fault.id for fault in (*single.FAULTS, *ranks.FAULTS) if not fault.seen_in_tables}
    return not hidden & set(case.faults)


def truths_of(header: Mapping[str, Any]) -> tuple[Truth, ...]:
    """Truths that a stored case tells."""
    return tuple(Truth(**{**each, "by_block": tuple(each["by_block"])}) for each in header["truths"])


def _run(case: Case, peers: Sequence[str], path: Path, truths: Sequence[Truth], told: argparse.Namespace) -> None:
    amount = 0.0 if list(peers) == ["sagemaker"] else amount_of(case, truths)
    for peer in peers:
        if peer == "sagemaker":
            raw = {"fired": sagemaker.fired(storage.read(path).run)}
            outcome = Outcome(case, peer, sagemaker.VERSION, raw=raw)
        else:
            # Not resolved: the interpreter of an environment is a link, and the environment is where the link lies.
            outcome = execute(case, peer, told.peer_python.absolute(), amount, steps_of(case), told.out)
        store(told.out, outcome)
        became = f"did not run: {outcome.reason[-200:]}" if outcome.reason else "stored"
        print(f"{case.id} {peer}: {became} ({outcome.seconds:.0f} s)", flush=True)


def _is_due(out: Path, case: Case, peer: str, *, again: bool) -> bool:
    path = path_of(out, case, peer)
    return not path.exists() or (again and bool(stored(path).reason))


@contextlib.contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if path is not None:
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def _ours(case: Case, path: Path) -> Outcome:
    """What perfnb says of the recording that belongs to the truth; never stored, for it changes with the detectors."""
    found = [{"detector": each.detector, "severity": each.severity} for each in row_of(storage.read(path)).found]
    return Outcome(case, OURS, version("perfnb"), raw={"found": found})


def _score(
    wanted: Sequence[Case], paths: Mapping[str, Path], peers: Sequence[str], measured: Mapping[str, Measured], out: Path
) -> int:
    known = [*single.FAULTS, *ranks.FAULTS]
    expects = {fault.id: fault.expects for fault in known}
    accepts = {fault.id: fault.accepted for fault in known} | {each.id: each.accepted for _, _, each in controls.CONTROLS}
    scores: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = {}
    everything: list[dict[str, Any]] = []
    missing = 0
    for peer in (OURS, *peers):
        judged = []
        for case in wanted:
            path = path_of(out, case, peer)
            if peer != OURS and not path.exists():
                missing += 1
                continue
            outcome = _ours(case, paths[case.id]) if peer == OURS else stored(path)
            versions[peer] = outcome.version or versions.get(peer, "")
            judged.append(table.judge(outcome, *measured[case.id], expects, accepts))
        scores[peer] = table.score(judged)
        everything += table.rows(judged)
    told = {"program": PROGRAM, "versions": versions, "scores": scores, "cases": everything}
    storage.write_whole(out / SCORE, json.dumps(told, indent=1).encode())
    print(table.as_markdown(scores, versions))
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
