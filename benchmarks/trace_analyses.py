"""What the answers about a run cost on 250,000 and 1,000,000 events, whether it is linear, and HTA's cost of the same answers."""

from __future__ import annotations

import argparse
import csv
import importlib
import inspect
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.reading import scale
from benchmarks.reading.children import CORPUS, ChildError, measured
from benchmarks.reading.repeated import events_of, fresh, repeated
from benchmarks.reading.tables import markdown
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.run import Run

Answer = Callable[[Run], Any]

_ELSEWHERE: Final = (
    ("perfnb.device_time", "device_breakdown"),
    ("perfnb.launches", "launches"),
    ("perfnb.ledger", "step_ledger"),
    ("perfnb.diagnose", "diagnose"),
)
_CORE: Final = ("device_breakdown", "communication_overlap", "idle_gaps", "stragglers")
_CORE_TARGET_S: Final = 0.5  # on 250,000 events
_TARGETS_S: Final = {"critical_path": 2.0, "diagnose": 1.0}
_LINEAR: Final = (
    1.3  # cost per event on the larger run over that on the smaller; below: linear within the noise of a shared machine
)
_JOBS: Final = ("hta/trace_diff/control.json.gz", "param/dlrm_8rank")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of one answer on one run, one number per repeat; or why there is none.

    Attributes
    ----------
    refusal
        The sentence of perfnb's own error: the run cannot answer this.
    failure
        Any other error.
    """

    cpu_s: tuple[float, ...] = ()
    refusal: str = ""
    failure: str = ""

    @property
    def best_s(self) -> float:
        """The smallest; NaN where there is none."""
        return min(self.cpu_s, default=math.nan)


def main(words: Sequence[str] | None = None) -> int:
    """Print a table per job; 1 only where an answer failed."""
    chosen = _parser().parse_args(words)
    jobs = chosen.traces or [CORPUS / "traces" / name for name in _JOBS if (CORPUS / "traces" / name).exists()]
    if not jobs:
        print("no trace to read: name some, or the corpus in PERFNB_CORPUS")
        return 1
    rows: list[dict[str, Any]] = []
    for job in jobs:
        rows += _job(job, chosen)
    if chosen.out:
        with chosen.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, ("job", "events", "answer", "repeat", "cpu_s"))
            writer.writeheader()
            writer.writerows(row for row in rows if row["cpu_s"] is not None)
    return int(any(row["cpu_s"] is None for row in rows))


def answers() -> dict[str, Answer]:
    """Name to function of every table that needs a run and nothing else."""
    found: dict[str, Answer] = {name: getattr(importlib.import_module(module), name) for module, name in _ELSEWHERE}
    try:
        analyses = importlib.import_module("perfnb.analyses")
    except ModuleNotFoundError:
        return found
    for name in getattr(analyses, "__all__", ()):
        each = getattr(analyses, name)
        if inspect.isfunction(each) and takes_one_run(each):
            found[name] = each
    return found


def takes_one_run(function: Callable[..., Any]) -> bool:
    """Whether a run is the only thing that a function must be given."""
    needed = [each for each in inspect.signature(function).parameters.values() if each.default is inspect.Parameter.empty]
    return [each.name for each in needed if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)] == ["run"]


def cost(answer: Answer, run: Run, repeats: int) -> Cost:
    """CPU time of an answer on a run that no earlier call has seen."""
    found = []
    for _ in range(repeats):
        unseen = fresh(run)
        start = time.process_time()
        try:
            answer(unseen)
        except PerfnbError as error:
            return Cost(refusal=str(error)[:120])
        except Exception as error:  # noqa: BLE001 - a failing answer is a row of the table
            return Cost(failure=f"{type(error).__name__}: {str(error)[:120]}")
        found.append(time.process_time() - start)
    return Cost(tuple(found))


def together(chosen: Mapping[str, Answer]) -> Answer:
    """Several answers about one run, one after the other, as a notebook asks them."""

    def ask(run: Run) -> None:
        for answer in chosen.values():
            answer(run)

    return ask


def per_event(small: Cost, small_events: int, large: Cost, large_events: int) -> float:
    """Cost per event on a large run over that on a small one: 1 is linear."""
    return (large.best_s / large_events) / (small.best_s / small_events) if small.best_s > 0 else math.nan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_analyses", description=__doc__)
    parser.add_argument(
        "traces", nargs="*", type=Path, help="files or folders of ranks; by default one file and one job of 8 ranks"
    )
    parser.add_argument("--events", type=int, nargs=2, default=(250_000, 1_000_000), help="at least so many in each of two runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of answers; by default all")
    parser.add_argument("--peer-python", default="", help="interpreter of an environment with HTA (package traceinsight)")
    parser.add_argument("--peer-timeout-s", type=float, default=1200.0)
    parser.add_argument("--out", type=Path, help="CSV file with every single measurement")
    return parser


def _job(path: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    run = read_kineto(path)
    times = [max(1, math.ceil(events / events_of(run))) for events in chosen.events]
    runs = [repeated(run, number) for number in times]
    counts = [events_of(each) for each in runs]
    print(
        f"# {path.name}: {len(run.ranks)} ranks, repeated {times[0]} and {times[1]} times: "
        f"{counts[0]:,} and {counts[1]:,} events\n"
    )
    asked = {name: answer for name, answer in answers().items() if not chosen.only or name in chosen.only}
    core: dict[str, Answer] = {name: asked[name] for name in _CORE if name in asked}
    found = {name: [cost(answer, each, chosen.repeats) for each in runs] for name, answer in asked.items()}
    usable = {name: answer for name, answer in core.items() if not (found[name][0].refusal or found[name][0].failure)}
    title = "together: " + " + ".join(usable)
    if usable:
        found = {title: [cost(together(usable), each, chosen.repeats) for each in runs]} | found
    theirs = _peer(path, times[0], chosen) if chosen.peer_python else {}
    print(_table(found, counts, theirs, title if len(usable) == len(_CORE) else ""))  # the target is for all of them
    absent = [name for name in _CORE if name not in usable]
    if absent:
        print(f"\nNot in the sum: {', '.join(absent)} (absent, or the run cannot answer).")
    if theirs:
        load_s = theirs.get("load", {}).get("cpu_s", math.nan)
        print(f"\nHTA on the same {counts[0]:,} events as files, asked once each, after its load of {load_s:.1f} CPU s.")
    print()
    return [
        {"job": path.name, "events": count, "answer": name, "repeat": number, "cpu_s": seconds}
        for name, costs in found.items()
        for count, each in zip(counts, costs, strict=True)
        for number, seconds in enumerate(each.cpu_s or ((None,) if each.failure else ()))
    ]


def _table(found: Mapping[str, Sequence[Cost]], counts: Sequence[int], theirs: Mapping[str, Any], core: str) -> str:
    rows = []
    for name, (small, large) in found.items():
        problem = small.failure or large.failure
        if problem or small.refusal:
            rows.append(
                [name, "", "", "", "", _peer_cell(theirs, name), f"FAILED: {problem}" if problem else f"refused: {small.refusal}"]
            )
            continue
        ratio = per_event(small, counts[0], large, counts[1])
        target = _CORE_TARGET_S if name == core else _TARGETS_S.get(name)
        verdict = [] if target is None else [f"<= {target} s: {'met' if small.best_s <= target else 'NOT MET'}"]
        verdict += ["" if ratio <= _LINEAR else "NOT LINEAR"]
        cells = [f"{small.best_s:.3f}", f"{statistics.median(small.cpu_s):.3f}", f"{large.best_s:.3f}", f"{ratio:.2f}"]
        rows.append([name, *cells, _peer_cell(theirs, name), "; ".join(filter(None, verdict))])
    rows += [
        [name, "", "", "", "", _peer_cell(theirs, name), "ours is absent"] for name in theirs if name not in {*found, "load"}
    ]
    head = [
        "answer",
        f"CPU s best, {counts[0]:,}",
        "median",
        f"best, {counts[1]:,}",
        "cost per event, large / small",
        "HTA CPU s",
    ]
    return markdown([*head, "verdict"], rows)


def _peer_cell(theirs: Mapping[str, Any], name: str) -> str:
    answer = theirs.get(name)
    if answer is None:
        return ""
    return f"{answer['cpu_s']:.2f}" + (f" ({answer['method']}: {answer['error']})" if answer["error"] else "")


def _peer(path: Path, times: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """HTA's times on the same events, written as files."""
    files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
    with tempfile.TemporaryDirectory(prefix="perfnb-analyses-") as folder:
        made = [Path(folder) / f"rank{rank}.json.gz" for rank in range(len(files))]
        for file, copy in zip(files, made, strict=True):
            scale.write(scale.source(file), copy, times)
        try:
            answer = measured(
                "peer_answers.py", [str(each) for each in made], python=chosen.peer_python, timeout_s=chosen.peer_timeout_s
            )
        except ChildError as error:
            print(f"HTA failed: {error}\n")
            return {}
    if isinstance(answer, str):
        print(f"HTA is absent: {answer}\n")
        return {}
    return answer


if __name__ == "__main__":
    sys.exit(main())
