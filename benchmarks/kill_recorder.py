"""A recording is killed (SIGKILL) at random moments: every step older than a second is read back, and nothing torn."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import perfnb
from perfnb.errors import PerfnbError
from perfnb.run import Run

PROMISED_S: Final = 1.0
"""A step that ended this long before the kill is read back."""

STEP_S: Final = 0.005
_SIDE_BY_SIDE: Final = 3
_EARLIEST_S, _LATEST_S = 0.3, 3.0
_GIVE_UP_S: Final = 120.0
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Kill:
    """What one kill showed.

    Attributes
    ----------
    after_s
        From the first step to the kill.
    ended
        Steps that the training had ended.
    read
        Steps that were read back.
    lost_s
        How long before the kill the oldest step ended that was not read back; 0 where none was lost.
    faults
        What was not as promised.
    """

    after_s: float
    ended: int
    read: int
    lost_s: float
    faults: tuple[str, ...]


def main(words: Sequence[str] | None = None) -> int:
    """Print a table; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)  # the training itself, in a process of its own
    chosen = parser.parse_args(words)
    if chosen.record is not None:
        train(chosen.record)
    kills = killed(chosen.moments, chosen.seed)
    print("| killed after s | steps ended | steps read | oldest lost ms | faults |\n|---|---|---|---|---|")
    for each in kills:
        print(f"| {each.after_s:.2f} | {each.ended} | {each.read} | {1000 * each.lost_s:.0f} | {'; '.join(each.faults)} |")
    broken = sum(bool(each.faults) for each in kills)
    worst = max((each.lost_s for each in kills), default=0.0)
    print(
        f"\n{len(kills)} kills, {broken} with a fault; the oldest step that was lost ended {1000 * worst:.0f} ms before its kill"
    )
    return 1 if broken or not kills else 0


def killed(moments: int, seed: int) -> list[Kill]:
    """Kill so many trainings, each at a moment drawn at random."""
    drawn = random.Random(seed)
    waits = [drawn.uniform(_EARLIEST_S, _LATEST_S) for _ in range(moments)]
    with tempfile.TemporaryDirectory(prefix="perfnb-kill-") as place, ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        folders = [Path(place) / f"run{number}" for number in range(moments)]
        return list(pool.map(_kill, folders, waits))


def train(folder: Path) -> None:
    """Train for ever, and tell each step that ended with its moment."""
    with perfnb.record(folder, hooks=False) as recorder:
        for number in range(10**9):
            with recorder.phase("data"):
                time.sleep(STEP_S / 2)
            with recorder.phase("optimizer"):
                time.sleep(STEP_S / 2)
            recorder.log(loss=number + 0.25)
            recorder.step()
            os.write(1, b"%d %d\n" % (number, time.perf_counter_ns()))


def _kill(folder: Path, wait_s: float) -> Kill:
    command = [sys.executable, "-m", "benchmarks.kill_recorder", "--record", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])  # noqa: S603 - this very file
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    with child, child.stdout as told:
        first = told.readline()
        reader = ThreadPoolExecutor(1)
        rest = reader.submit(_whole_lines, told)
        if first:
            time.sleep(wait_s)
        kill_ns = time.perf_counter_ns()
        child.send_signal(signal.SIGKILL)
        child.wait(_GIVE_UP_S)
        ended = dict(_step(line) for line in [first, *rest.result(_GIVE_UP_S)] if line)
        reader.shutdown()
    if child.returncode != -signal.SIGKILL or not first:
        return Kill(wait_s, len(ended), 0, 0.0, (f"the training ended by itself with status {child.returncode}",))
    try:
        return _judged(perfnb.read_run(folder), ended, kill_ns, wait_s)
    except PerfnbError as error:
        return Kill(wait_s, len(ended), 0, 0.0, (f"{type(error).__name__}: {error}",))


def _whole_lines(told: IO[bytes]) -> list[bytes]:
    return [line for line in told if line.endswith(b"\n")]


def _step(line: bytes) -> tuple[int, int]:
    number, moment = line.split()
    return int(number), int(moment)


def _judged(run: Run, ended: dict[int, int], kill_ns: int, wait_s: float) -> Kill:
    read = set(run.steps["step"])
    lost_s = max(((kill_ns - moment) / _NS for step, moment in ended.items() if step not in read), default=0.0)
    faults = []
    if lost_s > PROMISED_S:
        faults.append(f"a step that ended {lost_s:.2f} s before the kill was lost")
    states = [each.state for each in run.recordings]
    if states != ["killed"]:
        faults.append(f"the recording reads as {states}")
    torn = [note for note in run.notes if "damaged" in note]
    faults += torn
    if not (run.training["loss"] == run.training["step"] + 0.25).all():
        faults.append("a loss was torn")
    old = {step for step, moment in ended.items() if kill_ns - moment > PROMISED_S * _NS}
    for table in ("phases", "training"):
        lacking = old - set(getattr(run, table)["step"])
        if lacking:
            faults.append(f"{table} lacks {len(lacking)} steps")
    if len(run.steps):
        perfnb.step_ledger(run)  # raises where the phases do not sum to their step
    return Kill(wait_s, len(ended), len(read), lost_s, tuple(faults))


if __name__ == "__main__":
    sys.exit(main())
