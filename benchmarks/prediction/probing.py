"""What perfnb's probes measure of a pair before it is predicted, each in a process of its own, and how that is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import pandas as pd
import torch

import perfnb
from benchmarks.prediction.job import Trial
from benchmarks.prediction.samples import loader_of
from benchmarks.prediction.trial import apart
from perfnb.record.loader_probe_result import PROBE, LoaderProbe
from perfnb.record.machine_probe import MachineProbe, probe_machine
from perfnb.run import Run
from perfnb.tables import conform
from perfnb.whatif.collective_link import with_link_times

LOADER_KNOBS: Final = frozenset({"num_workers", "prefetch_factor", "persistent_workers", "in_order", "cache_samples"})
COMPUTE_KNOBS: Final = frozenset({"precision", "memory_format", "optimizer_implementation", "torch_num_threads"})

_LONGEST_S: Final = 3.0
_QUIET_S: Final = 5.0
_BATCHES: Final = 150


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """What was probed before a prediction.

    Attributes
    ----------
    samples
        Column by column, rows of `loader_samples`.
    constants
        Of the loader and of the machine.
    link
        Times of collective calls.
    reasons
        Why there is no probe where one was tried, by its name.
    """

    samples: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    link: Sequence[Mapping[str, Any]] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    def attach(self, run: Run) -> Run:
        """The run with all of it."""
        if self.samples:
            table = conform("loader_samples", pd.DataFrame(dict(self.samples)).assign(source=PROBE))
            run = LoaderProbe(table, {}, 0.0, 0.0, "").attach(run)
        elif "loader" in self.reasons:
            run = replace(run, missing=MappingProxyType({**run.missing, "loader_samples": self.reasons["loader"]}))
        constants = MappingProxyType({**run.machine.constants, **self.constants})
        run = replace(run, machine=replace(run.machine, constants=constants))
        return with_link_times(run, self.link) if self.link else run

    def as_json(self) -> dict[str, Any]:
        """Its fields, as JSON holds them."""
        return {
            "samples": {name: list(column) for name, column in self.samples.items()},
            "constants": dict(self.constants),
            "link": [dict(each) for each in self.link],
            "reasons": dict(self.reasons),
        }


def probed(trial: Trial, link: Sequence[Mapping[str, Any]] = ()) -> Probes:
    """What the probes that perfnb offers for the changed knobs tell; the link was probed by the ranks of the run before."""
    knobs = set(trial.case.changes)
    samples: Mapping[str, Sequence[Any]] = {}
    constants: dict[str, float] = {}
    reasons: dict[str, str] = {}
    if knobs & LOADER_KNOBS and trial.workload.world_size == 1:
        samples, found, reason = apart(_probe_loader, trial)[0]
        constants |= found
        reasons |= {"loader": reason} if reason else {}
    if knobs & COMPUTE_KNOBS and trial.workload.world_size == 1:
        found, reason = apart(_probe_machine, trial)[0]
        constants |= found
        reasons |= {"machine": reason} if reason else {}
    return Probes(samples, constants, link, reasons)


def _probe_loader(trial: Trial, _: int) -> tuple[dict[str, list[Any]], dict[str, float], str]:
    torch.set_num_threads(1)
    data = trial.samples(trial.workload.build(trial.case.seed))
    loader = loader_of(data, trial.config, _BATCHES, trial.batch_size(), trial.case.seed)
    found = perfnb.probe_dataset(loader, longest_s=_LONGEST_S, quiet_s=_QUIET_S, progress=False)
    if not isinstance(found, LoaderProbe):
        return {}, {}, found.reason
    table = found.samples.drop(columns="source")
    columns = {name: _column(table[name]) for name in table.columns}
    return columns, _numbers(found.constants), ""


def _column(values: pd.Series) -> list[Any]:
    """Values as JSON holds them; times in whole tenths of a microsecond."""
    if pd.api.types.is_float_dtype(values.dtype):
        return [None if pd.isna(value) else round(float(value), 1) for value in values]
    return [None if pd.isna(value) else value for value in values.astype(object)]


def _probe_machine(trial: Trial, _: int) -> tuple[dict[str, float], str]:
    torch.set_num_threads(int(trial.config["torch_num_threads"]))
    parts = trial.workload.build(trial.case.seed)
    batch = parts.inputs[: trial.batch_size()]
    kind = str(trial.config["optimizer"])
    found = probe_machine(parts.model, batch, optimizer=kind, longest_s=_LONGEST_S, quiet_s=_QUIET_S, progress=False)
    return (_numbers(found.constants), "") if isinstance(found, MachineProbe) else ({}, found.reason)


def _numbers(constants: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(f"{float(value):.7g}") for name, value in constants.items()}
