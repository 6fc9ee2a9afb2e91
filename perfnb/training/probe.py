"""probe(step, state, changes, ...): the training itself is asked, by short branches from one state on the same batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal

import numpy as np
from tqdm.auto import tqdm

from perfnb import text
from perfnb.errors import ProbeRefused
from perfnb.training.probe_arms import Arm, Setting, arms_of
from perfnb.training.probe_batches import generators_of, versions_of
from perfnb.training.probe_effect import FEWEST_STEPS, is_hopeless
from perfnb.training.probe_ranks import agreed, mean_over_ranks
from perfnb.training.probe_refusals import is_kept_on_host, refuse_arguments, refuse_spread_state
from perfnb.training.probe_result import Branch, Ended, ProbeResult, result_of
from perfnb.training.probe_snapshot import Snapshot
from perfnb.training.probe_state import TrainingState
from perfnb.training.statistics import Floats

StepFunction = Callable[[Any], Any]

CHUNK: Final = 10
"""Steps after which the losses are read, so that a device is not waited for at every step."""

_FIRST: Final = 3


@dataclass(frozen=True, slots=True)
class ProbeProgress:
    """How far a probe is.

    Attributes
    ----------
    change
        Branch that runs.
    done_steps, all_steps
        Steps of all branches, done and in all; branches that end early count as done.
    seconds_left
        Estimate; NaN before the first steps.
    """

    change: str
    done_steps: int
    all_steps: int
    seconds_left: float


@dataclass(slots=True)
class _Watch:
    """Progress bar, callback and clock of one probe."""

    arms: tuple[Arm, ...]
    steps: int
    budget_s: float | None
    on_progress: Callable[[ProbeProgress], None] | None
    bar: Any
    began_s: float = field(default_factory=time.perf_counter)
    step_seconds: float = 0.0
    steps_run: int = 0

    def tell(self, arm: Arm, number: int, done: int, seconds: float, steps: int) -> None:
        self.step_seconds += seconds
        self.steps_run += steps
        total = number * self.steps + done
        left = (len(self.arms) * self.steps - total) * self.per_step_s
        self.bar.set_description_str(f"probe {arm.name}", refresh=False)
        self.bar.update(total - self.bar.n)
        if self.on_progress is not None:
            self.on_progress(ProbeProgress(arm.name, total, len(self.arms) * self.steps, left))

    @property
    def per_step_s(self) -> float:
        return self.step_seconds / self.steps_run if self.steps_run else math.nan

    @property
    def is_out_of_time(self) -> bool:
        """Whether another branch would not fit the budget; all ranks come to the same answer."""
        if self.budget_s is None:
            return False
        return agreed(is_so=time.perf_counter() - self.began_s + self.steps * self.per_step_s > self.budget_s)


def probe(
    step_function: StepFunction,
    state: TrainingState,
    changes: Iterable[Any],
    steps: int | None,
    batches: Iterable[Any],
    *,
    planned_steps: int | None = None,
    first_loss: float | None = None,
    done_steps: int = 0,
    knob: str = "learning_rate",
    budget_s: float | None = None,
    keep: Literal["start", "base"] = "start",
    on_progress: Callable[[ProbeProgress], None] | None = None,
    shows_progress: bool = True,
) -> ProbeResult:
    """What other learning rates would do from here, found by training a few steps with each on the same batches.

    The present setting runs first, then each change from the same state: parameters, buffers, gradients, optimizer, scheduler,
    scaler and random states are put back bit for bit before each branch and at the end, after an exception or interrupt too.
    It costs steps x branches x step time.

    Parameters
    ----------
    step_function
        Called as `step_function(batch)`: one whole training step (zero_grad, forward, backward, optimizer.step, scheduler.step),
        without logging or checkpoints. Returns the loss. What it changes outside of `state` is not put back.
    state
        What the step changes; see `TrainingState`.
    changes
        Factors of the setting, such as [0.4, 2.5]; functions that give the factor for each step of the probe, such as a warm-up;
        or `Change`s of the knob. The present setting is always run.
    steps
        Steps of each branch, 10 or more; all batches where None.
    batches
        A list, an iterator or a DataLoader. Of an iterator the batches are used up: train on `ProbeResult.batches` next. A
        DataLoader is iterated anew, and its order of the next epoch is as if there had been no probe.
    planned_steps
        Length of the whole run: without it no probability passes 0.70.
    first_loss
        Mean of the first three losses of the run. Not needed where `done_steps` is 0.
    done_steps
        Steps that the training has done before.
    knob
        learning_rate, weight_decay or momentum; only of the first is a probability known.
    budget_s
        Seconds after which no further branch is begun.
    keep
        "start" leaves the training where it was; "base" leaves it after the steps with the present setting.
    on_progress
        Called every ten steps; what it raises ends the probe, with everything put back.
    shows_progress
        Whether a progress bar is shown.

    Returns
    -------
    ProbeResult
        Losses of the branches, their effects, and what follows.

    Raises
    ------
    ProbeRefused
        If the training cannot be forked here, or the probe would prove nothing; says why. The training is as it was.
    RestoreFailed
        If something could not be put back; says what.
    """
    started = time.perf_counter()
    refuse_arguments(step_function, state, changes, batches, keep=keep, steps=steps, planned_steps=planned_steps)
    refuse_spread_state(state)
    source = batches
    whole = TrainingState(state.model, state.optimizer, state.scheduler, state.scaler, (*state.extra, *generators_of(source)))
    on_host = is_kept_on_host(whole)
    snapshot = Snapshot(whole, on_host=on_host)
    kept = snapshot
    try:
        same = tuple(islice(source, steps))
        count = _checked_length(len(same), steps)
        arms = arms_of(changes, knob, count)
        snapshot.restore()
        with (
            tqdm(total=len(arms) * count, unit="step", leave=False, disable=not shows_progress) as bar,
            Setting(state.optimizers, knob) as setting,
        ):
            watch = _Watch(arms, count, budget_s, on_progress, bar)
            branches = [_run(step_function, arms[0], setting, same, watch, None)]
            if keep == "base":
                is_kept_on_host(whole)
                kept = Snapshot(whole, on_host=on_host)
            first = _first_loss(first_loss, done_steps, branches[0].losses)
            not_run: tuple[str, ...] = ()
            for number, arm in enumerate(arms[1:], start=1):
                if watch.is_out_of_time:
                    not_run = tuple(each.name for each in arms[number:])
                    break
                snapshot.restore()
                branches.append(_run(step_function, arm, setting, same, watch, (branches[0].losses, first)))
    except BaseException:
        snapshot.restore()
        snapshot.check()
        raise
    kept.restore()
    kept.check()
    seconds = time.perf_counter() - started
    return result_of(
        branches,
        knob=knob,
        planned_steps=planned_steps,
        first_loss=first,
        batches=same,
        not_run=not_run,
        seconds=seconds,
        own_seconds=seconds - watch.step_seconds,
        snapshot_bytes=snapshot.size_bytes,
    )


def _run(
    step_function: StepFunction,
    arm: Arm,
    setting: Setting,
    batches: tuple[Any, ...],
    watch: _Watch,
    base: tuple[Floats, float] | None,
) -> Branch:
    """One branch from the state as it stands; the present setting, which has no base, to its end whatever happens."""
    losses: Floats = np.empty(0)
    rates: list[float] = []
    seconds: list[float] = []
    number = watch.arms.index(arm)
    versions = versions_of(batches) if base is None else None
    for start in range(0, len(batches), CHUNK):
        chunk = batches[start : start + CHUNK]
        began = time.perf_counter()
        told = []
        for step, batch in enumerate(chunk, start=start):
            wanted = setting.enter(arm, step)
            told.append(_detached(step_function(batch)))
            if step == 0 or base is None:
                setting.check_used(wanted)
            rates.append(wanted[0])
        losses = np.concatenate([losses, mean_over_ranks([float(each) for each in told])])
        took = time.perf_counter() - began
        seconds += [took / len(chunk)] * len(chunk)
        watch.tell(arm, number, start + len(chunk), took, len(chunk))
        ended = _ended(base, losses)
        if ended:
            watch.tell(arm, number, len(batches), 0.0, 0)
            return _branch(arm, losses, rates, seconds, ended)
    if base is None:
        _check_base(setting, versions, batches)
    return _branch(arm, losses, rates, seconds, "")


def _branch(arm: Arm, losses: Floats, rates: list[float], seconds: list[float], ended: Ended) -> Branch:
    odd = np.flatnonzero(~np.isfinite(losses))
    count = int(odd[0]) + 1 if len(odd) else len(losses)
    why: Ended = "not finite" if len(odd) else ended
    return Branch(arm, losses[:count], np.array(rates[:count]), np.array(seconds[:count]), why)


def _ended(base: tuple[Floats, float] | None, losses: Floats) -> Ended:
    if base is None:  # to its end: the others need its trace of the setting
        return ""
    if not np.isfinite(losses).all():
        return "not finite"
    common = min(len(base[0]), len(losses))
    return "clearly worse" if is_hopeless(base[0][:common], losses[:common], base[1]) else ""


def _check_base(setting: Setting, versions: object, batches: tuple[Any, ...]) -> None:
    if not setting.optimizer_steps:
        message = (
            "step_function never called optimizer.step() of the optimizer in the TrainingState: nothing that is set there can "
            "have an effect. A step that was captured as a CUDA graph cannot be probed either"
        )
        raise ProbeRefused(message)
    if versions != versions_of(batches):
        message = "step_function changes its batches in place, so the branches would not see the same ones: let it work on a copy"
        raise ProbeRefused(message)


def _checked_length(there: int, steps: int | None) -> int:
    if there < FEWEST_STEPS or (steps is not None and there < steps):
        wanted = "" if steps is None else f" of the {steps} asked for"
        message = f"there are {text.count(there, 'batch', 'batches')}{wanted}: a probe takes {FEWEST_STEPS} steps or more"
        raise ProbeRefused(message)
    return there


def _detached(loss: Any) -> Any:
    """The loss without its graph, and a copy of its own: some steps reuse one tensor."""
    detach = getattr(loss, "detach", None)
    if detach is not None:
        value = detach()
        if value.numel() != 1:
            message = f"step_function returns a tensor of {value.numel()} values: let it return the loss of the batch, one number"
            raise ProbeRefused(message)
        return value.clone()
    try:
        return float(loss)
    except (TypeError, ValueError) as error:
        found = text.name(type(loss).__name__)
        message = f"step_function returns a {found}: let it return the loss of the batch, one number or tensor"
        raise ProbeRefused(message) from error


def _first_loss(given: float | None, done_steps: int, base: Floats) -> float:
    if given is not None:
        return float(given)
    return float(base[:_FIRST].mean()) if done_steps == 0 else math.nan
