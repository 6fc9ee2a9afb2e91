"""Faults of a training in one process: its cases, the calibration of doses, the measured truth and the run that is stored."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Final

import psutil

from benchmarks.detection import data_faults, host_faults, loop_faults
from benchmarks.detection.case import ON, Case, Clock, Dose, Fault, Measured, Split, Truth
from benchmarks.detection.training import Block, Plan, block, recorded
from benchmarks.detection.workloads import WORKLOADS, Parts

FAULTS: Final[tuple[Fault, ...]] = (*data_faults.FAULTS, *loop_faults.FAULTS, *host_faults.FAULTS)
BY_ID: Final = {fault.id: fault for fault in FAULTS}

PAIRS: Final = (
    ("slow_item", "python_logging"),
    ("heavy_transform", "frequent_save"),
    ("python_logging", "garbage"),
)
"""Runs with two faults at once, each of the second largest dose."""

ROUNDS: Final = 3
MOST_ROUNDS: Final = 7
CERTAIN: Final = 0.01
"""Standard error of a true share at which rounds end: single blocks of half a second differ by a tenth and more."""
LONGEST_S: Final = 15.0  # of all rounds, once there are three
STEPS: Final = 50
RUN_STEPS: Final = 200
_CALIBRATION_STEPS: Final = 15
_TRIES: Final = 5
_CLOSE: Final = 0.12  # of the dose, in the odds that it is calibrated by
_LARGEST_FACTOR: Final = 5.0
_HORIZON_STEPS: Final = 10_000  # detectors.md 4: where the number of steps to come is unknown
_LEAK_BATCHES: Final = 6  # a leak test wants 200 samples of memory: 20 s, and 300 steps
_EARLIER_RUNS: Final = 3
_EARLIER_STEPS: Final = 80
_SAMPLED_S: Final = 8.0
_MADE_OF_SAMPLES: Final = {"cold_first_third"}  # reads are sampled once a second: each third of the run needs some
_IS_PRESET: Final = {"cpu_hog", "cpu_quota", "padded_text"}  # the dose itself says how much
_CALIBRATED_AS: Final = {"many_workers": "heavy_transform"}  # its dose is what the transform takes in the training's own process
_MADE_OF_BLOCKS: Final = {"garbage"}  # so rare in its smallest dose that a short block may hold none
_MADE_OF_STEPS: Final = {"growing_list": loop_faults.GROWING_STEPS, "kept_graph": 300, "kept_tensors": 300}


def cases(split: Split) -> Iterator[Case]:
    """All cases of a split: workloads x settings x faults x doses, and pairs of faults."""
    for workload in (each for each in WORKLOADS.values() if each.split == split):
        for setting in workload.settings:
            for fault in FAULTS:
                if workload.name not in (fault.workloads or (workload.name,)) or setting not in (fault.settings or (setting,)):
                    continue
                if fault.clock == "memory" and setting != "alone":  # takes half a minute, and workers change nothing
                    continue
                for dose in fault.doses[split]:
                    yield Case("single", workload.name, setting, split, (fault.id,), dose)
            for pair in PAIRS:
                yield Case("single", workload.name, setting, split, pair, 0.25)


def base_plan(case: Case) -> Plan:
    """The training without a fault."""
    workload = WORKLOADS[case.workload]
    settings, build = workload.settings[case.setting], workload.build
    assert build is not None  # noqa: S101 - those of one process all have one
    parts: Parts = build(settings, case.seed)
    return Plan(lambda: replace(parts, model=copy.deepcopy(parts.model)), settings)


@dataclass(frozen=True, slots=True)
class _Dosed:
    """A fault and how much of it."""

    fault: Fault
    amount: float

    def into(self, plan: Plan) -> Plan:
        with_fault: Plan = self.fault.inject(plan, self.amount)[0]
        return with_fault

    def out_of(self, plan: Plan) -> Plan:
        without: Plan = self.fault.inject(plan, self.amount)[1]
        return without


def measure(case: Case, folder: Path) -> Measured:
    """Calibrate, measure the truth in interleaved blocks, and record the run that is stored; see `case`."""
    base = base_plan(case)
    dosed = [_Dosed(BY_ID[name], _amount(BY_ID[name], base, case)) for name in case.faults]
    faulty = reduce(lambda plan, each: each.into(plan), dosed, base)
    without = {
        each.fault.id: reduce(lambda plan, other: other.out_of(plan) if other is each else other.into(plan), dosed, base)
        for each in dosed
    }
    faults = [each.fault for each in dosed]
    steps = max(_block_steps(fault, base) for fault in faults)
    rounds: list[dict[str, Block]] = []
    began = time.monotonic()
    for number in range(MOST_ROUNDS):
        if number >= ROUNDS and (time.monotonic() - began > LONGEST_S or _is_certain(faults, rounds, base)):
            break
        sides = {"": faulty, **without}
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        taken = {}
        for name in order:
            if faults[0].clock == "memory":
                _give_back()
            taken[name] = block(_started(sides[name], faults), steps, case.seed + number)
        rounds.append(taken)
        if number == ROUNDS // 2:
            _record(case, faults, base, faulty, folder, taken[""].wall_mean_us())
    quiet = [each[name] for each in rounds for name in without]
    truths = tuple(_truth(fault, rounds, base) for fault in faults)
    return Measured(truths, _seen(quiet))


def _is_certain(faults: Sequence[Fault], rounds: Sequence[dict[str, Block]], base: Plan) -> bool:
    """Whether the blocks so far agree on the true shares; of memory, where a block takes long, three must do."""
    if faults[0].clock == "memory":
        return True
    spreads = [statistics.stdev(_truth(fault, rounds, base).by_block) for fault in faults]
    return max(spreads) / len(rounds) ** 0.5 <= CERTAIN


def _record(case: Case, faults: Sequence[Fault], base: Plan, faulty: Plan, folder: Path, step_us: float) -> None:
    """The run that a user would have, and where earlier runs are asked for, those."""
    steps = max(_MADE_OF_STEPS.get(fault.id, RUN_STEPS) for fault in faults)
    if any(fault.id in _MADE_OF_SAMPLES for fault in faults):
        steps = max(steps, round(_SAMPLED_S * 1e6 / step_us))
    if any(fault.clock == "memory" for fault in faults):
        settings = {**faulty.settings, "batch_size": faulty.settings["batch_size"] * _LEAK_BATCHES}
        faulty = replace(faulty, settings=settings)
    if any(fault.id == "earlier_run" for fault in faults):
        for number in range(_EARLIER_RUNS):
            recorded(base, _EARLIER_STEPS, case.seed + number, folder / "earlier" / str(number))
    recorded(faulty, steps, case.seed, folder / "run")


def _give_back() -> None:
    """Return freed memory to the system: the C library keeps it, and a leak that fills it would not show as growth."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)


def _started(plan: Plan, faults: Sequence[Fault]) -> Plan:
    """A block of a fault that grows lies about the middle of its run: its cost there is the mean."""
    if any(fault.id == "growing_list" for fault in faults):
        return replace(plan, start=(loop_faults.GROWING_STEPS - STEPS) // 2)
    return plan


def _block_steps(fault: Fault, base: Plan) -> int:
    """Steps of a block; where few samples are slow, whole passes through all samples, so that each block has as many."""
    if fault.id != "rare_slow_item":
        return STEPS
    once = len(base.build().inputs) // int(base.settings["batch_size"])
    return once * -(-STEPS // once)


def _mean(blocks: Sequence[Block], clock: Clock) -> float:
    return statistics.fmean(each.wall_mean_us() if clock == "wall" else each.own_us() for each in blocks)


def _truth(fault: Fault, rounds: Sequence[dict[str, Block]], base: Plan) -> Truth:
    if fault.clock == "memory":
        return _memory_truth(fault, rounds)
    # A step of one sample is held against a sample's share of the usual step.
    scale = 1.0 / base.settings["batch_size"] if fault.id == "tiny_batch" else 1.0
    with_us = _mean([each[""] for each in rounds], fault.clock)
    without_us = _mean([each[fault.id] for each in rounds], fault.clock) * scale
    by_block = [1 - scale * _mean([each[fault.id]], fault.clock) / _mean([each[""]], fault.clock) for each in rounds]
    return Truth(fault.id, fault.clock, 1 - without_us / with_us, with_us, without_us, tuple(by_block))


def _memory_truth(fault: Fault, rounds: Sequence[dict[str, Block]]) -> Truth:
    """Bytes that the process grows by per step more than without the fault, over the steps to come, as a share of its memory."""
    total = psutil.virtual_memory().total

    def grown(of: dict[str, Block]) -> float:
        return (of[""].grown_bytes - of[fault.id].grown_bytes) / len(of[""].wall_us) * _HORIZON_STEPS / total

    shares = [grown(each) for each in rounds]
    return Truth(fault.id, "memory", statistics.fmean(shares), float("nan"), float("nan"), tuple(shares))


def _seen(blocks: Sequence[Block]) -> dict[str, float]:
    wall = sum(float(each.wall_us.sum()) for each in blocks)
    return {
        "own_us": _mean(blocks, "own"),
        "wall_us": _mean(blocks, "wall"),
        "runqueue_share": sum(float(each.runqueue_us.sum()) for each in blocks) / wall,
    }


def _amount(fault: Fault, base: Plan, case: Case) -> float:
    """How much of a fault makes the dose: tried in pairs of short blocks, corrected by the odds that all pairs so far gave."""
    dose: Dose = case.dose
    if dose == ON:
        return 0.0
    if fault.id in _IS_PRESET:
        return float(dose)
    if fault.id in _CALIBRATED_AS:
        base = replace(base, settings={**base.settings, "num_workers": 0})
        fault = BY_ID[_CALIBRATED_AS[fault.id]]
    steps = STEPS if fault.id in _MADE_OF_BLOCKS else _CALIBRATION_STEPS
    wanted = dose / (1 - dose)
    sides, tried, odds = fault.inject(base, 1e-3), 0.0, 0.0
    amount = 0.0
    for number in range(_TRIES):
        without_us = _mean([block(sides[1], steps, case.seed + number)], fault.clock)
        if number == 0:
            amount = without_us / 1e6 * wanted
        sides = fault.inject(base, amount)
        with_us = _mean([block(_started(sides[0], [fault]), steps, case.seed + number)], fault.clock)
        tried, odds = tried + amount, odds + with_us / without_us - 1
        factor = min(max(wanted * tried / max(odds, 1e-9) / amount, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
        if number > 0 and abs(factor - 1) < _CLOSE:
            break
        amount *= factor
    return amount
