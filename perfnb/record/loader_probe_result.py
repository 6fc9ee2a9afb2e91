"""What a probe of a dataset found, and how a run takes it along to `predict`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from perfnb.run import Run
from perfnb.tables import conform

PREFIX: Final = "loader."
"""Of every constant of a machine that a probe gives."""

PROBE: Final = "probe"
"""Source of samples that were loaded as the training loads them."""


@dataclass(frozen=True, slots=True, eq=False)
class LoaderProbe:
    """Times of single samples of a dataset, and what handing a batch of them from a worker to the training costs here.

    Attributes
    ----------
    samples
        Table `loader_samples`: one row per sample, or per batch fetched as one, and one per batch for its collating.
    constants
        Name to value; times in microseconds. `loader.get_us`, `.put_us`, `.fork_us`, `.init_us`, and `.pin_us` where there is
        CUDA: what the training pays to take a batch, a worker to hand one over, the training to start a worker, a worker
        before its first batch, the pinning thread per batch; each with `.low`, `.high` (10th and 90th percentile) and `.n`.
        Further `loader.batch_bytes`, `.tensors`, `.worker_bytes`, `.set_bytes` (all samples of the dataset) and what limits
        them: `.shared_memory_bytes`, `.descriptors`, `.memory_bytes`; `.storage_bytes` that a batch read from storage;
        `.after_wait_ratio` (work right after a wait of `.after_wait_us`, over its time without, with its interval);
        `.is_random`: 1 where a sample read twice differs; `.pressure_cpu_share`, `.delay_share`, `.foreign_cores`: how busy
        others kept the machine.
    batch_us
        Mean time of a batch in the training loop: samples and collating.
    half_width_share
        95 % half-width of that mean, as a share of it; NaN from a single batch.
    stopped
        Why it stopped, in words.
    notes
        What could not be measured, with the reason.
    """

    samples: pd.DataFrame
    constants: Mapping[str, float]
    batch_us: float
    half_width_share: float
    stopped: str
    notes: tuple[str, ...] = ()

    def attach(self, run: Run, **place: Any) -> Run:
        """The run with what the probe found, for `predict`; a new value, the run stays as it is.

        Parameters
        ----------
        run
            A run of the training that loads from this dataset.
        place
            Where a knob of the config had another value than in the run while this was probed: `data_root="/scratch/set"`
            for the same samples read from there. The probe then tells of that value only.

        Returns
        -------
        Run
            With `loader_samples`; a second probe is added to the first, one of the same source takes its place.
        """
        if len(place) > 1:
            message = f"attach() takes one knob at a time, not {', '.join(place)}: probe each change apart"
            raise TypeError(message)
        source = next((f"{knob}={value}" for knob, value in place.items()), PROBE)
        others = run.loader_samples[run.loader_samples["source"].astype(object).ne(source)]
        own = self.samples.assign(source=source)
        parts = [frame.astype({"part": object, "source": object}) for frame in (others, own) if len(frame)]
        table = conform("loader_samples", pd.concat(parts, ignore_index=True)) if parts else own
        constants = {**self.constants, **run.machine.constants} if place else {**run.machine.constants, **self.constants}
        for name in (
            f"{PREFIX}{figure}" for figure in ("pressure_cpu_share", "delay_share", "foreign_cores")
        ):  # one busy probe is enough to be careful
            known = [each[name] for each in (run.machine.constants, self.constants) if name in each]
            constants |= {name: max(known)} if place and known else {}
        return replace(
            run,
            loader_samples=table,
            machine=replace(run.machine, constants=MappingProxyType(constants)),
            signals=run.signals | {"loader_samples"},
            notes=(*run.notes, *(f"probe of the dataset: {note}" for note in self.notes)),
        )

    def __repr__(self) -> str:
        """One line: how much was timed, what came out, what a worker costs."""
        batches = self.samples["batch"].nunique()
        loads = int(self.samples["part"].ne("collate").sum())
        get = self.constants.get(f"{PREFIX}get_us")
        taking = f", taking one from a worker {get / 1e3:.2f} ms" if get is not None else ""
        width = "" if math.isnan(self.half_width_share) else f" +- {self.half_width_share:.1%}"
        return (
            f"LoaderProbe({batches} batches, {loads} loads: {self.batch_us / 1e3:.2f} ms a batch{width}{taking}; {self.stopped})"
        )


@dataclass(frozen=True, slots=True)
class NotProbed:
    """A dataset that could not be probed, and why. Falsy; never to be read as "costs nothing".

    Attributes
    ----------
    reason
        What is wrong, and what to do.
    """

    reason: str

    def __bool__(self) -> bool:
        """Always False, so that `if probe:` asks whether there is one."""
        return False

    def attach(self, run: Run, **_place: Any) -> Run:
        """The run with the reason, which `predict` then gives where it would need a probe."""
        return replace(run, missing=MappingProxyType({**run.missing, "loader_samples": self.reason}))
