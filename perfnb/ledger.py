"""The step-time ledger: where the wall time of each step went, in parts that sum to the step."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import pandas as pd

from perfnb.device_time import TOLERANCE_US, devices, unions
from perfnb.errors import LedgerError, NoStepsError, PerfnbError
from perfnb.idle_time import CAUSES, idle_causes
from perfnb.intervals import Intervals, covered, joined, subtract
from perfnb.launches import launches
from perfnb.run import Run

LEDGER_COLUMNS: Final = ("rank", "step", "clock", "device", "part", "time_us")
DEVICE_PARTS: Final = ("compute", "exposed_communication", "exposed_copy", *(f"idle.{cause}" for cause in CAUSES))
_FEWEST_TO_DROP_FIRST: Final = 3
_LARGEST_CUT_SHARE: Final = 0.05
_WARM_UP: Final = 5
_FEWEST_AFTER_WARM_UP: Final = 15
_RELATIVE: Final = 1e-9
_SPLIT: Final = ("cpu", "runqueue", "blocked")


def step_ledger(run: Run, clock: Literal["device", "host"] | None = None) -> pd.DataFrame:
    r"""Time of each part of each step; the parts of one (rank, step, clock, device) sum to the step (asserted).

    Device clock: `compute`, `exposed_communication` (while nothing computes), `exposed_copy` (copies and memsets while neither
    runs) and `idle.<cause>` (see `perfnb.idle_time.idle_causes`), clipped to the host's steps. Host clock: `<phase>.cpu`,
    `<phase>.runqueue` and `<phase>.blocked`, or `<phase>.wall` where only wall time is known, as in a trace; phases that cannot
    be told apart are together in `unsplit.wall`.

    Parameters
    ----------
    run
        A run with steps.
    clock
        "device" or "host"; by default the device's where the run has device ops, else the host's: the one that sizes losses.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step, clock, device, part) with time_us; device is NA on the host clock. Parts without time have rows.

    Raises
    ------
    NoStepsError
        If the run has no step boundaries.
    LedgerError
        If parts do not sum to their step: a defect of perfnb.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 100")
    >>> phases = table_from_text(
    ...     "phases",
    ...     '''rank step phase wall_us
    ...                                       0    1    data  70
    ...                                       0    1    other 30''',
    ... )
    >>> step_ledger(Run(steps=steps, phases=phases))[["part", "time_us"]]
             part  time_us
    0   data.wall     70.0
    1  other.wall     30.0
    """
    if run.steps.empty:
        raise NoStepsError(
            run.missing.get(
                "steps", "the run has no steps: call prof.step() once per iteration inside torch.profiler.profile(...)"
            )
        )
    chosen = clock or ("device" if run.is_device_job else "host")
    if chosen not in ("device", "host"):
        message = f"clock={clock!r} is not known: use 'device' or 'host'"
        raise PerfnbError(message)
    ledger = _device_ledger(run) if chosen == "device" else _host_ledger(run)
    _check(ledger, run.steps)
    return ledger


def used_steps(run: Run) -> pd.DataFrame:
    r"""Steps that averages rest on, rows of `run.steps`.

    Of each rank all but the first where three or more were recorded (its copy waits for earlier work: 40 ms in the ResNet-50
    traces of Kineto), and but the last if more than 5 % of it lies after the last device event: its device work was cut off.
    Of a recording with a profiler's window only the steps in the window on a device job, since only there device work was
    recorded; only the others on a CPU job, since the profiler's cost is in those. Of a log that times its phases in some steps
    only those steps.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 9\n0 2 9 9\n0 3 18 9")
    >>> used_steps(Run(steps=steps))["step"].to_list()
    [2, 3]
    """
    kept = []
    for rank, own in _with_its_clock(run).groupby("rank"):
        ordered = own.sort_values("start_us")
        if len(ordered) >= _FEWEST_TO_DROP_FIRST:
            ordered = ordered.iloc[1:]
        ops = run.device_ops[run.device_ops["rank"] == rank]
        if len(ops) and len(ordered) > 1:
            last = ordered.iloc[-1]
            after = last["start_us"] + last["duration_us"] - (ops["start_us"] + ops["duration_us"]).max()
            if after > _LARGEST_CUT_SHARE * last["duration_us"]:
                ordered = ordered.iloc[:-1]
        kept.append(ordered)
    used = pd.concat(kept) if kept else run.steps
    return _with_known_phases(run, used)


def _with_known_phases(run: Run, used: pd.DataFrame) -> pd.DataFrame:
    """Used steps of which each phase has a time, where a log has such: what it did not measure would count as 0 in shares.

    A trace knows its phases of each step, and only those of a step without a backward cannot be told apart.
    """
    if not run.host_ops.empty:
        return used
    is_unknown = run.phases[["wall_us", *(f"{kind}_us" for kind in _SPLIT)]].isna().all(axis=1)
    if not is_unknown.any():
        return used
    unknown = pd.MultiIndex.from_frame(run.phases.loc[is_unknown, ["rank", "step"]])
    for steps in (used, run.steps):  # the first step of a rank may be the only one whose phases were timed
        known = steps[~pd.MultiIndex.from_frame(steps[["rank", "step"]]).isin(unknown)]
        if len(known):
            return known
    return used


def _with_its_clock(run: Run) -> pd.DataFrame:
    """Steps in which the clock that sizes losses ran."""
    if not run.has_window:
        return run.steps
    if not run.is_device_job:
        return run.steps[~run.steps["is_profiled"]]
    ends = (run.device_ops["start_us"] + run.device_ops["duration_us"]).groupby(run.device_ops["rank"]).max()
    starts = run.device_ops.groupby("rank")["start_us"].min()
    steps = run.steps[run.steps["is_profiled"]]
    after = (steps["start_us"] + steps["duration_us"]) > steps["rank"].map(starts)
    return steps[after & (steps["start_us"] < steps["rank"].map(ends))]


def steady_steps(run: Run) -> pd.DataFrame:
    """Steps that predictions and outcomes compare, rows of `run.steps`: the used ones without the first five of each rank,
    where fifteen or more remain.
    """
    kept = []
    for _, own in used_steps(run).groupby("rank"):
        ordered = own.sort_values("start_us")
        kept.append(ordered.iloc[_WARM_UP:] if len(ordered) - _WARM_UP >= _FEWEST_AFTER_WARM_UP else ordered)
    return pd.concat(kept) if kept else run.steps


def _device_ledger(run: Run) -> pd.DataFrame:
    frames = []
    launched = launches(run)
    steps = _with_its_clock(run)
    for rank, device, ops in devices(run):
        own = steps[steps["rank"] == rank]
        low, high = own["start_us"].to_numpy(), (own["start_us"] + own["duration_us"]).to_numpy()
        if not len(own):
            continue
        host = run.host_ops[run.host_ops["rank"] == rank]
        for part, spans in _device_parts(host, ops, launched, float(low.min()), float(high.max())).items():
            frames.append(
                pd.DataFrame(
                    {
                        "rank": rank,
                        "step": own["step"].to_numpy(),
                        "clock": "device",
                        "device": device,
                        "part": part,
                        "time_us": covered(spans, low, high),
                    }
                )
            )
    return _tidy(frames)


def _device_parts(host: pd.DataFrame, ops: pd.DataFrame, launched: pd.DataFrame, low: float, high: float) -> dict[str, Intervals]:
    compute, communication, copies = unions(ops)
    exposed_communication = subtract(communication, compute)
    busy = joined(compute, exposed_communication)
    parts = {"compute": compute, "exposed_communication": exposed_communication, "exposed_copy": subtract(copies, busy)}
    causes = idle_causes(host, ops, launched, low, high)
    return parts | {f"idle.{cause}": causes[cause] for cause in CAUSES}


def _host_ledger(run: Run) -> pd.DataFrame:
    if run.phases.empty:
        reason = run.missing.get("phases", "no phase of any step was recorded")
        message = f"no host ledger: {reason}"
        raise NoStepsError(message)
    phases = run.phases.assign(phase=run.phases["phase"].astype(object))
    split = phases[[f"{kind}_us" for kind in _SPLIT]].notna().all(axis=1)
    long = phases[split].melt(["rank", "step", "phase"], [f"{kind}_us" for kind in _SPLIT], "kind", "time_us")
    long = long.assign(part=long["phase"] + "." + long["kind"].str.removesuffix("_us"))
    whole = phases[~split & phases["wall_us"].notna()]
    whole = whole.assign(part=whole["phase"] + ".wall", time_us=whole["wall_us"])
    wanted = ["rank", "step", "part", "time_us"]
    rows = pd.concat([frame[wanted] for frame in (long, whole) if len(frame)], ignore_index=True)
    return _tidy([rows, _unsplit(run.steps, rows)])


def _unsplit(steps: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What the known phases leave of a step in which others could not be told apart."""
    known = rows.groupby(["rank", "step"], as_index=False)["time_us"].sum()
    rest = steps[["rank", "step", "duration_us"]].merge(known, how="left", on=["rank", "step"])
    rest = rest.assign(time_us=rest["duration_us"] - rest["time_us"].fillna(0.0), part="unsplit.wall")
    return rest.loc[
        rest["time_us"] > np.maximum(TOLERANCE_US, _RELATIVE * rest["duration_us"]), ["rank", "step", "part", "time_us"]
    ]


def _tidy(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=list(LEDGER_COLUMNS))
    ledger = pd.concat(filled, ignore_index=True)
    ledger = ledger.assign(
        clock=ledger.get("clock", "host"),
        device=(ledger["device"] if "device" in ledger else pd.Series(pd.NA, index=ledger.index)).astype("Int64"),
    )
    order = {part: number for number, part in enumerate(DEVICE_PARTS)}
    ledger = ledger.assign(order=ledger["part"].map(order).fillna(len(order)))
    ledger = ledger.sort_values(["rank", "device", "step", "order"], kind="stable", ignore_index=True)
    return ledger[list(LEDGER_COLUMNS)]


def _check(ledger: pd.DataFrame, steps: pd.DataFrame) -> None:
    sums = ledger.groupby(["rank", "step", "clock", "device"], dropna=False, as_index=False)["time_us"].agg(["sum", "min"])
    sums = sums.merge(steps[["rank", "step", "duration_us"]], on=["rank", "step"])
    off = (sums["sum"] - sums["duration_us"]).abs() > np.maximum(TOLERANCE_US, _RELATIVE * sums["duration_us"])
    wrong = sums[off | (sums["min"] < -TOLERANCE_US)]
    if len(wrong):
        first = wrong.iloc[0]
        message = (
            f"parts of step {first['step']} of rank {first['rank']} sum to {first['sum']:.3f} us (smallest {first['min']:.3f}), "
            f"the step takes {first['duration_us']:.3f} us: please report this run"
        )
        raise LedgerError(message)
