"""Detector of batches so small that most of each step does not depend on them."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.analyses.batch_fit import LARGEST_ERROR, BatchFit, batch_fit
from perfnb.detector import Unmeasured, detector, example

_FIXED_SHARE: Final = 0.5  # recorded CPU runs at batch 1: .54 to .62
_OPTIMIZER: Final = ("optimizer.cpu", "optimizer.blocked", "optimizer.wall")
_EXCHANGE: Final = ("exposed_communication", "communication.cpu", "communication.blocked", "communication.wall")


def _sized(sizes: str, times: str, optimizer_us: int = 10) -> dict[str, Any]:
    """One rank whose steps take the given times, of batches of the given sizes."""
    steps, phases, training = ["rank step start_us duration_us"], ["rank step phase wall_us"], ["rank step time_us batch_size"]
    start = 0
    for step, (size, time) in enumerate(zip(sizes.split(), times.split(), strict=True)):
        steps.append(f"0 {step} {start} {time}")
        phases += [f"0 {step} optimizer {optimizer_us}", f"0 {step} forward {int(time) - optimizer_us}"]
        training.append(f"0 {step} {start} {size}")
        start += int(time)
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "training": "\n".join(training)}


@detector(
    family="device compute",
    title="The optimizer, for a batch that is too small for it,",
    claims=(*_OPTIMIZER, "compute"),
    after=("underfilled_gpu",),
    injected_by="tiny_batch",
    recorded_only_when="the detection benchmark injects it",
    source="recorded CPU runs at batch 1: .54 to .62 of a step do not depend on the batch; the line's error of .10 is a prior",
    not_to_confuse_with=("python_overhead", "data_stall", "launch_overhead", "exposed_communication", "slow_rank"),
    examples=(
        example(
            "the optimizer takes 60 of 100 us of rank 0 and 50 of rank 1: more than half, whatever the batch",
            lost_share=0.55,
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            phases="""rank step phase     wall_us
                      0    7    optimizer 60
                      0    7    forward   40
                      0    8    optimizer 60
                      0    8    forward   40
                      1    7    optimizer 50
                      1    7    forward   50
                      1    8    optimizer 50
                      1    8    forward   50""",
        ),
        example(
            "20 us + 2.5 us per sample: at the usual batch of 8 half the step is fixed, of which the optimizer is 10 us",
            lost_share=80 / 380,
            **_sized("8 8 8 8 16 16 16 8 8", "40 40 40 40 60 60 60 40 40"),
        ),
        example(
            "18 us + 2.75 us per sample: at a batch of 8 less than half is fixed",
            lost_share=0.0,
            **_sized("8 8 8 8 16 16 16 8 8", "40 40 40 40 62 62 62 40 40"),
        ),
    ),
)
def undersized_batch(
    ledger: pd.DataFrame,
    phases: pd.DataFrame,
    training: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time of the optimizer in steps of which at least half does not depend on the batch.

    Either a line through the times of two or more batch sizes says so (time without the run queue, error at most 10 %), or the
    optimizer, exposed communication and waiting for launches take half of the step; less than half without such a line tells
    nothing, since forward and backward have fixed costs too. It matters because a larger batch pays for
    the optimizer less often; only the optimizer's part is counted, since the others have causes of their own. It cannot tell
    whether the training learns as well from a larger batch. On a GPU, where the optimizer counts as events on the device timed
    it, it is not validated.
    """
    is_host = bool(ledger["clock"].eq("host").all())
    step_us = ledger[~ledger["part"].str.endswith(".runqueue")].groupby(["rank", "step"])["time_us"].sum()
    devices = ledger.groupby(["rank", "step"])["device"].nunique().clip(lower=1)
    step_us = step_us / devices
    optimizer = _optimizer_us(ledger, phases, is_host=is_host).reindex(step_us.index).fillna(0.0)
    others = ledger[ledger["part"].isin([*_EXCHANGE, "idle.launch"])].groupby(["rank", "step"])["time_us"].sum() / devices
    fixed = (optimizer + others.reindex(step_us.index).fillna(0.0)).groupby("rank").sum() / step_us.groupby("rank").sum()
    fits = _fits(step_us, training)
    lines = pd.Series({rank: fit.fixed_share for rank, fit in fits.items() if fit.error <= LARGEST_ERROR}, dtype="float64")
    by_line = lines.reindex(fixed.index).fillna(0.0)
    shares = pd.DataFrame({"fixed_share": fixed.clip(lower=by_line), "is_by_line": by_line > fixed})
    if lines.empty and not (shares["fixed_share"] >= _FIXED_SHARE - 1e-9).any():
        message = (
            f"the optimizer and exchanges take {text.share(float(fixed.max()))}, what else does not depend on the batch is not "
            "known: record steps of two batch sizes"
        )
        raise Unmeasured(message)
    rows = optimizer.rename("lost_us").reset_index().merge(shares, left_on="rank", right_index=True)
    return rows[rows["fixed_share"] >= _FIXED_SHARE - 1e-9]


def _optimizer_us(ledger: pd.DataFrame, phases: pd.DataFrame, *, is_host: bool) -> pd.Series:
    """Time of the optimizer in each (rank, step), on the clock that sizes losses."""
    if is_host:
        own = ledger[ledger["part"].isin(_OPTIMIZER)]
        if own.empty:
            message = "no optimizer step was recorded as such"
            raise Unmeasured(message)
        return own.groupby(["rank", "step"])["time_us"].sum()
    timed = phases[phases["phase"].eq("optimizer") & phases["device_us"].notna()]
    if timed.empty:
        message = "how long the optimizer takes on the device is not known: perfnb.record() times it by events"
        raise Unmeasured(message)
    return timed.groupby(["rank", "step"])["device_us"].sum()


def _fits(step_us: pd.Series, training: pd.DataFrame | None) -> dict[int, BatchFit]:
    """Line through the step times of each rank, where it trained on several batch sizes."""
    if training is None:
        return {}
    sizes = training.drop_duplicates(["rank", "step"], keep="last").set_index(["rank", "step"])["batch_size"]
    rows = pd.DataFrame({"step_us": step_us, "size": sizes.reindex(step_us.index)})
    found = {int(rank): batch_fit(own["size"], own["step_us"]) for rank, own in rows.groupby(level="rank")}  # type: ignore[call-overload]
    return {rank: fit for rank, fit in found.items() if fit is not None}
