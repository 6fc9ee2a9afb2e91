"""The corpus of recorded training curves, one value per run, with what is known of each: regret, which way the rate is off."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEAR_DECADES: Final = 1.0
"""Rates within so many decades of the sweep's best are near."""

KEEP_REGRET: Final = 0.02
"""A regret up to this needs no other rate."""

BETTER: Final = 0.01
"""Gain from which a change counts as better, and loss from which it counts as worse."""

MUCH: Final = 0.05
"""Loss from which it counts as much worse."""

FEWEST_RATES: Final = 8
"""Rates that a group of the small runs needs to have a best one."""

_ROUNDED: Final = 0.2  # decades between the rates of the DeepOBS sweep
_SLACK: Final = 1e-9
_TRUNK_STEPS: Final = 80  # of the small runs: where their branches start


@dataclass(frozen=True, slots=True, eq=False)
class SweepRun:
    """One run of a sweep over learning rates.

    Attributes
    ----------
    problem, optimizer
        What was trained; a problem is never in two folds.
    log_rate, best_log_rate
        log10 of its rate and of its sweep's best.
    regret
        Share of the attainable drop that it missed: 0 best, 1 diverged or no progress.
    losses
        Training losses: of steps, or means of `block` of them.
    raw
        Losses of the first steps, one by one.
    epoch_losses, test_losses
        Per epoch, the first before training.
    planned_steps, block
        Length of the run; steps per entry of `losses`.
    """

    problem: str
    optimizer: str
    log_rate: float
    best_log_rate: float
    regret: float
    losses: Floats
    raw: Floats
    epoch_losses: Floats
    test_losses: Floats
    planned_steps: int
    block: int
    name: str

    @property
    def is_near(self) -> bool:
        """Whether its rate is within a decade of the best."""
        return abs(self.log_rate - self.best_log_rate) <= NEAR_DECADES + _SLACK

    @property
    def truth(self) -> Literal["keep", "too high", "too low"]:
        """What its rate is, by its regret and the sweep's best."""
        if self.regret <= KEEP_REGRET:
            return "keep"
        return "too high" if self.log_rate > self.best_log_rate else "too low"


@dataclass(frozen=True, slots=True, eq=False)
class TunedRun:
    """A tuning trial of AlgoPerf: logged points, and evaluations."""

    workload: str
    steps: NDArray[np.int64]
    losses: Floats
    norms: Floats
    eval_steps: NDArray[np.int64]
    eval_training: Floats
    eval_losses: Floats
    last: float
    logged_rate: float
    optimizer: str


def folder() -> Path:
    """Where the corpus lies: PERFNB_CORPUS, or beside the repository."""
    root = Path(os.environ.get("PERFNB_CORPUS", Path(__file__).resolve().parents[3] / "shared" / "corpus"))
    return root / "training"


@cache
def deepobs() -> tuple[SweepRun, ...]:
    """The DeepOBS sweep: 6 problems x 3 optimizers x 36 constant rates, the lowest seed of each."""
    meta = json.loads((folder() / "deepobs_meta.json").read_text(encoding="utf-8"))
    chosen: dict[tuple[str, str, float], dict[str, Any]] = {}
    for each in sorted(meta, key=lambda one: one["seed"]):
        key = each["problem"], each["opt"], round(math.log10(each["lr"]) / _ROUNDED) * _ROUNDED
        chosen.setdefault((key[0], key[1], round(key[2], 1)), each)
    sweeps: dict[tuple[str, str], list[tuple[float, dict[str, Any]]]] = defaultdict(list)
    for (problem, optimizer, log_rate), each in chosen.items():
        sweeps[problem, optimizer].append((log_rate, each))
    with np.load(folder() / "deepobs.npz") as arrays:
        made = [run for (problem, optimizer), sweep in sweeps.items() for run in _sweep(problem, optimizer, sweep, arrays)]
    return tuple(made)


def _sweep(problem: str, optimizer: str, sweep: list[tuple[float, dict[str, Any]]], arrays: Any) -> Iterator[SweepRun]:
    read = {}
    for log_rate, each in sweep:
        parts = {part: arrays[f"{each['id']}_{part}"].astype(np.float64) for part in ("raw", "bm", "train_losses", "test_losses")}
        read[log_rate] = each, parts
    start = float(np.median([parts["train_losses"][0] for _, parts in read.values()]))
    final = {log_rate: _least(parts["test_losses"]) for log_rate, (_, parts) in read.items()}
    best_rate = min(final, key=lambda log_rate: final[log_rate])
    for log_rate, (each, parts) in sorted(read.items()):
        yield SweepRun(
            problem=problem,
            optimizer=optimizer,
            log_rate=log_rate,
            best_log_rate=best_rate,
            regret=regret(final[log_rate], final[best_rate], start),
            losses=parts["bm"],
            raw=parts["raw"],
            epoch_losses=parts["train_losses"],
            test_losses=parts["test_losses"],
            planned_steps=int(each["n_steps"]),
            block=int(each["block"]),
            name=f"{problem} {optimizer} {log_rate:.1f}",
        )


def regret(loss: float, best: float, start: float) -> float:
    """Share of the attainable drop that a loss misses, 0 to 1; 1 of a loss that is not finite."""
    return float(np.clip((loss - best) / (start - best), 0.0, 1.0)) if math.isfinite(loss) else 1.0


def _least(losses: Floats) -> float:
    """Least finite loss after training began; infinite where the run ended on none."""
    after = losses[1:][np.isfinite(losses[1:])]
    return float(after.min()) if len(after) else math.inf


@cache
def algoperf() -> tuple[TunedRun, ...]:
    """Tuning trials of AlgoPerf."""
    return tuple(_trial(each) for each in _lines("algoperf.jsonl.gz"))


@cache
def nanogpt() -> tuple[tuple[NDArray[np.int64], Floats], ...]:
    """Steps and losses of the runs of modded-nanogpt whose log has training losses; all are taken as healthy."""
    logs = [np.array(each["train"], dtype=np.float64) for each in _lines("modded_nanogpt.jsonl.gz") if each["train"]]
    return tuple((log[:, 0].astype(np.int64), log[:, 1]) for log in logs)


def small_runs() -> list[dict[str, Any]]:
    """Small runs with their branches, as recorded, of groups with a best rate; with `regret`, `best`, `task_name`, `near`."""
    runs = list(_lines("own_runs.jsonl.gz"))
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        run["task_name"] = " ".join(run["task"])
        groups[run["task_name"], run["B"]].append(run)
    for group in groups.values():
        if len({run["lr"] for run in group}) >= FEWEST_RATES:
            _rate_group(group)
    return [run for run in runs if "regret" in run]


def _rate_group(group: list[dict[str, Any]]) -> None:
    final = {id(run): _final(run["val"], run["div"]) for run in group}
    start = float(np.median([run["val"][0][1] for run in group]))
    best = min(group, key=lambda run: final[id(run)])
    least = final[id(best)]
    for run in group:
        run["best"] = math.log10(best["lr"])
        run["start"], run["least"] = start, least
        run["regret"] = regret(final[id(run)], least, start)
        run["near"] = abs(math.log10(run["lr"]) - run["best"]) <= NEAR_DECADES + _SLACK


def _final(validation: list[list[float]], diverged: object) -> float:
    """Mean of the last two validation losses; infinite of a run that diverged."""
    values = [value for _, value in validation[-2:]]
    return float(np.mean(values)) if diverged is None and np.isfinite(values).all() else math.inf


def branch_regret(run: dict[str, Any], factor: str) -> float:
    """Regret of a small run's branch whose rate was multiplied at step 80."""
    branch = run["branch"][factor]
    return regret(_final(branch["val"], branch["div"]), run["least"], run["start"])


def _trial(each: dict[str, Any]) -> TunedRun:
    train = [[step, _number(loss), _number(norm)] for step, loss, norm in each["train"]]
    points = np.array(train, dtype=np.float64).reshape(-1, 3)
    told = [(one["step"], _number(one.get("train_loss")), _number(one.get("loss"))) for one in each["eval"]]
    evals = np.array(told, dtype=np.float64).reshape(-1, 3)
    known = evals[np.isfinite(evals[:, 2])]
    settings = each["hparams"] or {}
    return TunedRun(
        workload=each["workload"],
        steps=points[:, 0].astype(np.int64),
        losses=points[:, 1],
        norms=points[:, 2],
        eval_steps=evals[:, 0].astype(np.int64),
        eval_training=evals[:, 1],
        eval_losses=evals[:, 2],
        last=float(known[-1, 2]) if len(known) else math.nan,
        logged_rate=_number(settings.get("learning_rate")),
        optimizer=str(settings.get("optimizer", "")),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(folder() / name, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
