"""Healthy trainings: quiet, on a busy machine, or odd. Certified without our detectors: any finding in one is a false alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.detection.case import Case, Control, Fault, Measured, Split
from benchmarks.detection.data_faults import removed
from benchmarks.detection.load import beside, loads
from benchmarks.detection.single import CERTAIN, LONGEST_S, ROUNDS, RUN_STEPS, STEPS, base_plan
from benchmarks.detection.training import Block, Pair, Plan, State, block, recorded, validation_loss
from benchmarks.detection.workloads import WORKLOADS
from perfnb.record.cgroup import cpu_capacity

FAULTS: Final[tuple[Fault, ...]] = ()

MOST_ROUNDS: Final = 15
"""Pairs of blocks at most: a healthy step is short."""

DATA_BELOW: Final = 0.05
"""Largest share of the step that a control may lose to its data, against samples in memory."""

_FIRST_STEP_S: Final = 1.5
_EVALUATE_EVERY: Final = 50
_CYCLE_STEPS: Final = 40


def _plain(plan: Plan) -> Plan:
    return plan


def _slow_first_step(plan: Plan) -> Plan:
    def wait(state: State) -> None:
        if state.step == 0:
            time.sleep(_FIRST_STEP_S)

    return replace(plan, after_step=(wait,))


def _evaluation(plan: Plan) -> Plan:
    parts = plan.build()  # the held samples are the same in each: they follow from the seed

    def evaluate(state: State) -> None:
        if state.step % _EVALUATE_EVERY == _EVALUATE_EVERY - 1:
            state.recorder.log(validation_loss=validation_loss(replace(parts, model=state.model)))

    return replace(plan, after_step=(evaluate,))


def _cyclic_learning_rate(plan: Plan) -> Plan:
    rate = plan.settings["learning_rate"]

    def turn(state: State) -> None:
        place = state.step % _CYCLE_STEPS / _CYCLE_STEPS
        for group in state.optimizer.param_groups:
            group["lr"] = rate * (0.2 + 0.8 * abs(2 * place - 1))

    return replace(plan, after_step=(turn,))


def _accumulation(plan: Plan) -> Plan:
    size = max(1, plan.settings["batch_size"] // 2)
    return replace(plan, settings={**plan.settings, "batch_size": size}, accumulate=2)


def _small_model(plan: Plan) -> Plan:
    """Half the usual batch on one thread: it rightly leaves most of the machine alone."""
    return replace(plan, settings={**plan.settings, "batch_size": max(1, plan.settings["batch_size"] // 2)})


def _uneven_batches(plan: Plan) -> Plan:
    """Batches that differ by a few samples, as those of a sampler by length do."""

    def cut(step: int, batch: Pair) -> Pair:
        size = len(batch[0]) - step % 3
        return batch[0][:size], batch[1][:size]

    return replace(plan, batches=cut)


def _idle_workers(plan: Plan) -> Plan:
    return replace(plan, settings={**plan.settings, "num_workers": 2, "persistent_workers": True})


def _beside(kind: str) -> Callable[[Plan], Plan]:
    def loaded(plan: Plan) -> Plan:
        return replace(plan, around=lambda: beside(loads(kind, max(1, round(cpu_capacity())))))

    return loaded


_LOADS: Final = {
    "busy": "busy loops on twice the cores",
    "fsync": "a program that writes and forces to disk",
    "memory": "a program that streams through memory",
    "training": "a second training",
    "all": "all of these at once",
}
_TAKES_CPU: Final = ("cpu_contention",)

CONTROLS: Final[tuple[tuple[str, int, Control], ...]] = (
    # not with workers: on two cores, handing over batches of such short steps costs more than a healthy training may lose
    *(("alone", seed, Control("quiet", "nothing else runs", _plain)) for seed in (1, 2, 3, 4)),
    *(
        ("alone", 1, Control(f"beside_{kind}", about, _beside(kind), host=kind, accepted=_TAKES_CPU))
        for kind, about in _LOADS.items()
    ),
    ("alone", 1, Control("slow_first_step", "the first step takes a second and a half more", _slow_first_step)),
    ("alone", 1, Control("evaluation", "the validation loss is computed every 50 steps", _evaluation)),
    ("alone", 1, Control("cyclic_learning_rate", "the learning rate goes up and down", _cyclic_learning_rate)),
    ("alone", 1, Control("accumulation", "each step of the optimizer follows two half batches", _accumulation)),
    ("alone", 1, Control("small_model", "half the batch: much of the machine is rightly unused", _small_model)),
    ("alone", 1, Control("uneven_batches", "batches differ by up to two samples", _uneven_batches)),
    ("alone", 1, Control("idle_workers", "two workers that have little to do", _idle_workers)),
)
"""Setting, seed and control: sixteen for each workload, detectors.md 6.3."""

BY_ID: Final = {control.id: control for _, _, control in CONTROLS}


def cases(split: Split) -> Iterator[Case]:
    """All controls of a split."""
    for workload in (each for each in WORKLOADS.values() if each.split == split):
        for setting, seed, control in CONTROLS:
            yield Case("controls", workload.name, setting, split, seed=seed, host=control.host, control=control.id)


def measure(case: Case, folder: Path) -> Measured:
    """Record the run that is stored, and certify it: its data against samples in memory, and the loss of its validation.

    What runs beside a training is not there while its data is certified: it is no part of it, and would hide it in noise. Pairs
    of blocks go on until the share is certain, as the truth of a fault's does: single blocks differ by a tenth.
    """
    plan = BY_ID[case.control].arrange(base_plan(case))
    certifying = plan if case.host == "quiet" else base_plan(case)
    rounds: list[tuple[Block, Block]] = []
    began = time.monotonic()
    for number in range(MOST_ROUNDS):
        if number >= ROUNDS and (time.monotonic() - began > LONGEST_S or _standard_error(rounds) <= CERTAIN):
            break
        order = (certifying, removed(certifying)) if number % 2 == 0 else (removed(certifying), certifying)
        blocks = [block(each, STEPS, case.seed + number) for each in order]
        rounds.append((blocks[0], blocks[1]) if number % 2 == 0 else (blocks[1], blocks[0]))
        if number == ROUNDS // 2:
            run = recorded(plan, RUN_STEPS, case.seed, folder / "run")
    with_data, without = ([each[side] for each in rounds] for side in (0, 1))
    share = 1 - np.mean([each.own_us() for each in without]) / np.mean([each.own_us() for each in with_data])
    first, last = run.validation
    certified = {
        "data_share": float(share),
        "standard_error": _standard_error(rounds),
        "loss_first": first,
        "loss_last": last,
        "is_certified": bool(share < DATA_BELOW and last < first),
    }
    wall = sum(float(each.wall_us.sum()) for each in with_data)
    seen = {
        "own_us": float(np.mean([each.own_us() for each in with_data])),
        "wall_us": float(np.mean([each.wall_mean_us() for each in with_data])),
        "runqueue_share": sum(float(each.runqueue_us.sum()) for each in with_data) / wall,
    }
    return Measured((), seen, certified)


def _standard_error(rounds: Sequence[tuple[Block, Block]]) -> float:
    """Of the share that data takes, from its value in each pair of blocks."""
    shares = [1.0 - without.own_us() / with_data.own_us() for with_data, without in rounds]
    return float(np.std(shares, ddof=1) / len(shares) ** 0.5)
