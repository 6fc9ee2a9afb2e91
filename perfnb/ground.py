"""What every detector of one run is measured against: its ledger, its used steps, and what nobody has claimed yet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.device_time import devices, unions
from perfnb.intervals import Intervals, gaps, joined
from perfnb.ledger import step_ledger, used_steps
from perfnb.run import Run
from perfnb.work import rank_work

Floats = NDArray[np.float64]

IMBALANCE = "imbalance"
"""Name of a part beside those of the ledger: what the rank with the most work has over the mean of all ranks."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What every detector of one run is measured against.

    Attributes
    ----------
    ledger
        Parts of the used steps: rank, step, clock, device, part, time_us.
    work
        `rank_work` of the used steps.
    steps
        Used steps, rows of `run.steps`.
    claimable
        Rows of `ledger` and of the part "imbalance": rank, step, device, part, time_us.
    left_us
        Time of each row of `claimable` that no detector has claimed yet; claims are taken off it in place, in their order.
    """

    run: Run
    ledger: pd.DataFrame
    work: pd.DataFrame
    steps: pd.DataFrame
    claimable: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_us: Floats = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, run: Run) -> Ground:
        """Ground of a run.

        Raises
        ------
        NoStepsError
            If the run has no step boundaries.
        """
        steps = used_steps(run)
        ledger = step_ledger(run).merge(steps[["rank", "step"]], on=["rank", "step"])
        work = rank_work(ledger)
        claimable = pd.concat([ledger, _excess(work)], ignore_index=True)[["rank", "step", "device", "part", "time_us"]]
        return cls(run, ledger, work, steps, claimable, claimable["time_us"].to_numpy(copy=True))

    @property
    def durations(self) -> pd.Series:
        """Duration of each used step of its critical rank, by step number; the mean over ranks where none waits for another."""
        return self.on_critical(self.work, self.work["duration_us"])

    @property
    def waits(self) -> bool:
        """Whether ranks wait for one another in collectives, so that there is a critical rank."""
        return len(set(self.work["rank"])) > 1 and bool((self.work["with_peers_us"] > 0).any())

    @property
    def is_bound_only(self) -> bool:
        """Whether losses are at most what they look like: host time of a device job, of which the device may hide any part."""
        return self.run.uses_device and not self.run.is_device_job

    @property
    def tier(self) -> int:
        """1 device clock, 2 host clock; one more where the edges of steps were inferred."""
        return (1 if self.run.is_device_job else 2) + int(self.tier_falls)

    @property
    def tier_falls(self) -> bool:
        """Whether the edges of steps were inferred, which makes every signal worth less."""
        return bool(self.steps["steps_inferred"].any())

    def on_critical(self, rows: pd.DataFrame, values: pd.Series) -> pd.Series:
        """Values of each step's critical rank by step number, or the mean over all ranks where none waits for another.

        Parameters
        ----------
        rows
            rank, step and is_critical of each value.
        values
            One for each of them.
        """
        of_step = rows.assign(value=values)
        return (of_step[of_step["is_critical"]] if self.waits else of_step).groupby("step")["value"].mean()

    def unclaimed(self) -> pd.DataFrame:
        """Time of each (rank, step) that no detector has claimed: rank, step, lost_us; devices of one rank are averaged."""
        own = self.claimable["part"].ne(IMBALANCE).to_numpy()
        return mean_over_devices(self.claimable.loc[own, ["rank", "step", "device"]].assign(lost_us=self.left_us[own]))

    def idle(self, rank: int) -> list[Intervals]:
        """When each device of a rank does nothing, from its first used step to its last; empty on a CPU job."""
        steps = self.steps[self.steps["rank"].eq(rank)]
        low, high = float(steps["start_us"].min()), float((steps["start_us"] + steps["duration_us"]).max())
        found = []
        for owner, _, ops in devices(self.run):
            if owner == rank:
                compute, communication, copies = unions(ops)
                found.append(gaps(joined(joined(compute, communication), copies), low, high))
        return found


def mean_over_devices(rows: pd.DataFrame) -> pd.DataFrame:
    """Lost time of each (rank, step): the sum of its rows; devices of one rank are averaged."""
    devices_too = ["device"] if "device" in rows else []
    sums = rows.groupby(["rank", "step", *devices_too], dropna=False, as_index=False)[["lost_us"]].sum()
    return sums.groupby(["rank", "step"], as_index=False)[["lost_us"]].mean()


def _excess(work: pd.DataFrame) -> pd.DataFrame:
    mean = work.groupby("step")["work_us"].transform("mean")
    excess = (work["work_us"] - mean).where(work["is_critical"], 0.0)
    return work[["rank", "step"]].assign(device=pd.array([pd.NA] * len(work), dtype="Int64"), part=IMBALANCE, time_us=excess)
