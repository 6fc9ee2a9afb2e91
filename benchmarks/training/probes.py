"""Probes of small live trainings against what the changes brought in the end: python -m benchmarks.training probes."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.training.data import BETTER, MUCH, regret
from benchmarks.training.pairs import GATE_Z
from benchmarks.training.probe_tasks import STEPS, TASKS, Live, Task
from benchmarks.training.range_test import range_test
from perfnb.outcomes.accuracy import wilson
from perfnb.outcomes.ledger import read_ledger
from perfnb.outcomes.probes import (
    expected_calibration_error,
    measured_gain,
    probe_rows,
    record_probe,
    record_probe_outcome,
    reliability,
)
from perfnb.prediction import Change
from perfnb.training.probe import probe
from perfnb.training.probe_result import ProbeResult
from perfnb.training.probe_snapshot import Snapshot

STARTS: Final = (-1.0, -0.4, 0.4, 1.0)
"""Positions of the rates that are started from."""

SHIFTS: Final = (-1.0, -0.4, 0.4, 1.0)
"""log10 of the factors that are compared."""

PROBED: Final = 20
"""Steps of a probe: a tenth of the run."""

MID: Final = 60
"""Step at which the probe in the midst of a run is made."""

_SURE: Final = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A probe, and the final validation losses of its base and branches.

    Attributes
    ----------
    task, position, mode
        What was probed, from which rate, "from the start" or "mid-run".
    result
        What the probe said.
    ends
        Shift of the rate (0 the present one) to the final loss.
    """

    task: Task
    position: float
    mode: str
    result: ProbeResult
    ends: dict[float, float]

    @property
    def chosen(self) -> float:
        """Shift that the probe suggests; 0 to keep."""
        best = self.result.winner
        return 0.0 if best is None else round(math.log10(float(best["factor_high"])), 1)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """All of one task: its cases, and what the range test ends on."""

    task: Task
    cases: list[Case]
    first: float
    best: float
    best_position: float
    tested: tuple[float, float]

    def regret(self, end: float) -> float:
        """Share of the attainable drop that an end misses."""
        return regret(end, self.best, self.first)


def measured(task: Task) -> Measured:
    """Run a task at all its rates, probe it from each start, and fork it in the midst."""
    positions = sorted({round(start + shift, 1) for start in STARTS for shift in (0.0, *SHIFTS)} | {0.0})
    ends: dict[float, float] = {}
    first = Live(task, 0.0).validation()
    for position in tqdm(positions, desc=f"{task.name}: rates", leave=False):
        live = Live(task, position)
        live.train(0)
        ends[position] = live.validation()
    cases = []
    for start in tqdm(STARTS, desc=f"{task.name}: probes", leave=False):
        live = Live(task, start)
        told = _probe(live, 0, math.nan)
        cases.append(
            Case(task, start, "from the start", told, {shift: ends[round(start + shift, 1)] for shift in (0.0, *SHIFTS)})
        )
        losses = live.train(0, MID)
        told = _probe(live, MID, float(np.mean(losses[:3])))
        cases.append(Case(task, start, "mid-run", told, _forked(live)))
    known = {position: end for position, end in ends.items() if math.isfinite(end)}
    best_position = min(known, key=lambda position: known[position])
    tested = []
    for position in range_test(task):
        live = Live(task, position)
        live.train(0)
        tested.append(live.validation())
    lowest = [end for case in cases for end in case.ends.values() if math.isfinite(end)]
    return Measured(task, cases, first, min(*lowest, known[best_position]), best_position, (tested[0], tested[1]))


def _probe(live: Live, done: int, first_loss: float) -> ProbeResult:
    return probe(
        live.step,
        live.state,
        [10.0**shift for shift in SHIFTS],
        PROBED,
        live.batches[done : done + PROBED],
        planned_steps=STEPS,
        done_steps=done,
        first_loss=first_loss if done else None,
        shows_progress=False,
    )


def _forked(live: Live) -> dict[float, float]:
    snapshot = Snapshot(live.state)
    ends = {}
    for shift in (0.0, *SHIFTS):
        snapshot.restore()
        live.scale_rate(10.0**shift)
        live.train(MID)
        ends[shift] = live.validation()
    return ends


def record(told: Measured, folder: str) -> None:
    """Write what the probes said and what was measured into an accuracy ledger."""
    for case in told.cases:
        written = record_probe(case.result, workload=told.task.name, folder=folder)
        now = float(case.result.steps["setting"].iloc[0])
        for shift in SHIFTS:
            name = f"x{10.0**shift:g}"
            if name in written:
                number, prediction = written[name]
                gain = measured_gain(case.ends[0.0], case.ends[shift], told.first, told.best)
                change = Change("learning_rate", now, now * 10.0**shift)
                record_probe_outcome(
                    number, prediction, change, gain, probe_steps=PROBED, compared_steps=STEPS, is_whole_run=True, folder=folder
                )


def policies(told: list[Measured], mode: str) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """Nearness, policy, and regret before and after of each start."""
    for nearness in ("near", "far"):
        cases = [
            (each, case)
            for each in told
            for case in each.cases
            if case.mode == mode and (abs(case.position - each.best_position) <= 1.0 + 1e-9) == (nearness == "near")
        ]
        before = [each.regret(case.ends[0.0]) for each, case in cases]
        yield nearness, "nothing", list(zip(before, before, strict=True))
        random = [float(np.mean([each.regret(end) for end in case.ends.values()])) for each, case in cases]
        yield nearness, "one of the five at random", list(zip(before, random, strict=True))
        if mode == "from the start":
            for number, rule in enumerate(("range test, steepest", "range test, lowest / 10")):
                yield (
                    nearness,
                    rule,
                    [(old, each.regret(each.tested[number])) for old, (each, _) in zip(before, cases, strict=True)],
                )
        yield (
            nearness,
            "probe",
            [(old, each.regret(case.ends[case.chosen])) for old, (each, case) in zip(before, cases, strict=True)],
        )
        least = [min(each.regret(end) for end in case.ends.values()) for each, case in cases]
        yield nearness, "best branch (not known before)", list(zip(before, least, strict=True))


def report(split: str, told: list[Measured], folder: str) -> None:
    """Print what was measured of one split."""
    print(f"\n{split}: {', '.join(each.task.name for each in told)}; {STEPS} steps, probes of {PROBED} steps")
    for mode in ("from the start", "mid-run"):
        print(f"\n  {mode:<18}{'policy':<32}{'starts':>7}{'regret':>9}{'to':>8}{'worse':>8}{'much':>7}")
        for nearness, policy, pairs in policies(told, mode):
            if pairs:
                old, new = np.array(pairs).T
                worse, much = float((new - old > BETTER).mean()), float((new - old > MUCH).mean())
                print(f"  {nearness:<18}{policy:<32}{len(old):>7}{old.mean():>9.3f}{new.mean():>8.3f}{worse:>8.2f}{much:>7.2f}")
    rows = read_ledger(folder, shipped=False).rows
    own = rows[rows["workload"].isin([each.task.name for each in told])]
    print(f"\n  Probability stated against branches that were better by over {BETTER:g} of the attainable drop")
    print(f"  {'stated':>8}{'right':>8}{'95 % low':>10}{'high':>7}{'count':>7}")
    for stated, right, low, high, count in reliability(own).itertuples(index=False):
        print(f"  {stated:>8.2f}{right:>8.2f}{low:>10.2f}{high:>7.2f}{count:>7.0f}")
    pairs = probe_rows(own)
    print(f"  expected calibration error {expected_calibration_error(own):.3f} over {len(pairs)} branches of {len(told)} tasks")
    sure = [
        measured_gain(case.ends[0.0], case.ends[shift], each.first, each.best)
        for each in told
        for case in each.cases
        for shift, row in zip(SHIFTS, case.result.effects.iloc[1:].to_dict("records"), strict=True)
        if row["chance"] > _SURE and row["z"] < GATE_Z
    ]
    hits = sum(gain > BETTER for gain in sure)
    low, high = wilson(hits, len(sure))
    harmful = sum(gain < -BETTER for gain in sure)
    print(f"  P > {_SURE:g} and z < {GATE_Z:g}: {hits} of {len(sure)} right (95 % {low:.2f} to {high:.2f}), {harmful} harmful")
    own_share = [
        case.result.own_seconds / (case.result.seconds - case.result.own_seconds) for each in told for case in each.cases
    ]
    print(f"  a probe's own time over that of its steps: median {np.median(own_share):.3f}, highest {max(own_share):.3f}")


def main() -> None:
    """Run the tasks and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("development", "scored", "both"), default="both")
    parser.add_argument("--ledger", help="folder of the accuracy ledger to write to; by default one that is deleted")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.ledger or temporary
        for split in ("development", "scored"):
            if chosen.split in (split, "both"):
                told = [measured(task) for task in TASKS if task.split == split]
                for each in told:
                    record(each, folder)
                report(split, told, folder)


if __name__ == "__main__":
    main()
