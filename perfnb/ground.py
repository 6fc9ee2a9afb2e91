"""What every detector of one run is measured against: its ledger, its used steps, and what nobody has claimed yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.device_time import devices, unions
from perfnb.intervals import Intervals, gaps, joined
from perfnb.ledger import step_ledger, used_steps
from perfnb.run import Run
from perfnb.work import rank_work

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

IMBALANCE = "imbalance"
"""Name of a part beside those of the ledger: what the rank with the most work has over the mean of all ranks."""

_RUNQUEUE = ".runqueue"
_WITHOUT_WORK = ("data", "other")  # phases between whose events a device only waits


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What every detector of one run is measured against.

    A place is one (rank, step): row i of `work` is place i.

    Attributes
    ----------
    ledger
        Parts of the used steps: rank, step, clock, device, part, time_us.
    work
        `rank_work` of the used steps.
    steps
        Used steps, rows of `run.steps`.
    claims
        What is left of each part at each place.
    """

    run: Run
    ledger: pd.DataFrame
    work: pd.DataFrame
    steps: pd.DataFrame
    claims: Claims

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
        return cls(run, ledger, work, steps, Claims.of(ledger, work))

    @property
    def durations(self) -> pd.Series:
        """Duration of each used step of its critical rank, by step number; the mean over ranks where none waits for another."""
        return self.on_critical(self.work["duration_us"].to_numpy())

    @property
    def knows_runqueue(self) -> bool:
        """Whether time on the run queue is known apart: steps are sized on the host's clock, and the system told."""
        return bool(self.ledger["part"].str.endswith(_RUNQUEUE).any())

    @property
    def own_durations(self) -> pd.Series:
        """As `durations`, without time on the run queue: what the step takes where nothing else wants its cores."""
        waiting = [name for name in self.claims.names if name.endswith(_RUNQUEUE)]
        wait_us = self.claims.recorded(waiting)
        return self.on_critical(np.maximum(self.work["duration_us"].to_numpy() - wait_us, 0.0))

    @property
    def waits(self) -> bool:
        """Whether ranks wait for one another in collectives, so that there is a critical rank."""
        return len(set(self.work["rank"])) > 1 and bool((self.work["with_peers_us"] > 0).any())

    def is_bound_only(self, family: str) -> bool:
        """Whether losses are at most what they look like: host time of a device job, of which the device may hide any part.

        Waiting for data is known where events on the device timed its work: see `device_free_us`.
        """
        hidden = self.run.uses_device and not self.run.is_device_job
        return hidden and not (family == "data" and self.device_free_us() is not None)

    def device_free_us(self) -> Floats | None:
        """Time of each place that the device was not between the events of a phase that gives it work; None where none told.

        What the device was busy with hides loading: waiting for data costs at most this.
        """
        if self.run.is_device_job or not self.run.uses_device:
            return None
        timed = self.run.phases[self.run.phases["device_us"].notna() & ~self.run.phases["phase"].isin(_WITHOUT_WORK)]
        place = self.claims.place(timed["rank"], timed["step"])
        known = place >= 0
        if not known.any():
            return None
        busy = _sums(place[known], timed["device_us"].to_numpy()[known], len(self.work))
        free = self.work["duration_us"].to_numpy() - busy
        return np.where(np.bincount(place[known], minlength=len(self.work)) > 0, np.maximum(free, 0.0), np.nan)

    @property
    def tier(self) -> int:
        """1 device clock, 2 host clock; one more where the edges of steps were inferred."""
        return (1 if self.run.is_device_job else 2) + int(self.tier_falls)

    @property
    def tier_falls(self) -> bool:
        """Whether the edges of steps were inferred, which makes every signal worth less."""
        return bool(self.steps["steps_inferred"].any())

    def on_critical(self, values: Floats) -> pd.Series:
        """Values of each step's critical rank by step number, or the mean over all ranks where none waits for another.

        Parameters
        ----------
        values
            One for each place.
        """
        chosen = self.work["is_critical"].to_numpy() if self.waits else np.ones(len(self.work), dtype=bool)
        step = self.work["step"].to_numpy()[chosen]
        numbers, position = np.unique(step, return_inverse=True)
        means = np.bincount(position, values[chosen]) / np.bincount(position)
        return pd.Series(means, index=pd.Index(numbers, name="step"))

    def at_places(self, evidence: pd.DataFrame) -> Floats:
        """Lost time of each place: the sum of the evidence's rows there; devices of one rank are averaged.

        Parameters
        ----------
        evidence
            rank, step, lost_us, and device where there is one.
        """
        place = self.claims.place(evidence["rank"], evidence["step"])
        lost = evidence["lost_us"].to_numpy(dtype="float64", na_value=np.nan)
        if "device" in evidence:
            on_device = evidence["device"].notna().to_numpy()
            lost = np.where(on_device, lost / self.claims.devices[np.maximum(place, 0)], lost)
        known = (place >= 0) & ~np.isnan(lost)
        return _sums(place[known], lost[known], len(self.work))

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


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """What no detector has claimed yet of each part, at each place.

    Attributes
    ----------
    places
        (rank, step) of each place.
    devices
        Number of devices of each place's rank, at least 1.
    names, part
        Names of the parts of the ledger and "imbalance", and the number of each row's part among them.
    at
        Place of each row.
    share
        What a row counts in its place: one over the number of devices.
    recorded_us, left_us
        Time of each row as recorded, and what is left of it; claims are taken off the latter in place, in their order.
    """

    places: pd.MultiIndex
    devices: Ints
    names: tuple[str, ...]
    part: Ints
    at: Ints
    share: Floats
    recorded_us: Floats
    left_us: Floats

    @classmethod
    def of(cls, ledger: pd.DataFrame, work: pd.DataFrame) -> Claims:
        """Everything, of a ledger and its `rank_work`."""
        places = pd.MultiIndex.from_frame(work[["rank", "step"]])
        at = places.get_indexer(pd.MultiIndex.from_frame(ledger[["rank", "step"]])).astype(np.int64)
        with_device = ledger[["device"]].assign(at=at).drop_duplicates()
        devices = np.maximum(np.bincount(with_device["at"], with_device["device"].notna(), minlength=len(work)), 1).astype(
            np.int64
        )
        part, names = pd.factorize(ledger["part"])
        mean = work.groupby("step")["work_us"].transform("mean")
        excess = (work["work_us"] - mean).where(work["is_critical"], 0.0)
        recorded = np.concatenate([ledger["time_us"].to_numpy(), excess.to_numpy()])
        return cls(
            places=places,
            devices=devices,
            names=(*map(str, names), IMBALANCE),
            part=np.concatenate([part.astype(np.int64), np.full(len(work), len(names))]),
            at=np.concatenate([at, np.arange(len(work))]),
            share=np.concatenate([1.0 / devices[at], np.ones(len(work))]),
            recorded_us=recorded,
            left_us=recorded.copy(),
        )

    def place(self, rank: pd.Series, step: pd.Series) -> Ints:
        """Number of each (rank, step); -1 where it is no used step."""
        found: Ints = self.places.get_indexer(pd.MultiIndex.from_arrays([rank, step])).astype(np.int64)
        return found

    def recorded(self, parts: Collection[str]) -> Floats:
        """Time at each place of some parts, claimed or not; devices of one rank are averaged."""
        return self._sum(self.recorded_us, self._are(parts))

    def left(self, parts: Collection[str]) -> Floats:
        """Time at each place that is left of some parts; devices of one rank are averaged."""
        return self._sum(self.left_us, self._are(parts))

    def claimed(self) -> Floats:
        """Time at each place that detectors claimed, waiting for a core aside."""
        aside = [name for name in self.names if name == IMBALANCE or name.endswith(_RUNQUEUE)]
        return self._sum(self.recorded_us - self.left_us, ~self._are(aside))

    def take(self, parts: Collection[str], wanted_us: Floats) -> Floats:
        """Claim time of some parts at each place: at most what is left of them.

        Returns
        -------
        numpy.ndarray
            What was there to take at each place.
        """
        available = self.left(parts)
        taken: Floats = np.clip(wanted_us, 0.0, np.maximum(available, 0.0))
        share = np.divide(taken, available, out=np.zeros_like(taken), where=available > 0)
        own = self._are(parts)
        self.left_us[own] *= 1.0 - share[self.at[own]]
        return taken

    def _are(self, parts: Collection[str]) -> NDArray[np.bool_]:
        return np.isin(self.part, [number for number, name in enumerate(self.names) if name in parts])

    def _sum(self, time_us: Floats, own: NDArray[np.bool_]) -> Floats:
        return _sums(self.at[own], time_us[own] * self.share[own], len(self.places))


def _sums(at: Ints, values: Floats, length: int) -> Floats:
    return np.bincount(at, values, minlength=length).astype(np.float64)
