"""What the prediction benchmark is made of: a training with its config, the change that is predicted, and what is stored of it.

Stored format (`benchmarks.prediction.stored`). One file per pair, ``<pair id>.json.xz``: a JSON object with

========== ===========================================================================================================
format     1
case       fields of `PairCase`
config     the config of the training before the change, as perfnb was given it
line       the prediction's line of the accuracy ledger, sealed by its SHA-256 before the first run with the change began
row        the row of the accuracy ledger (`perfnb.outcomes.rows.COLUMNS`): the prediction and what was found
before     the recorded run before the change, one recording per rank (`benchmarks.detection.storage`); of several ranks
           without their traces, which are too large: what rests on those cannot be predicted again
probes     fields of `benchmarks.prediction.probing.Probes`: what perfnb's probes measured before the prediction
earlier    batch size to the recordings of a run at that size, made before the prediction; of changes of the batch size
blocks     in the order in which they ran: {"side", "began_at": UTC, "step_us": whole microseconds of each steady step,
           and fields of `benchmarks.prediction.trial.Around`}
idle       fields of the same while nothing of ours ran, just before the run before
around     the same during the run before
needs      of a refusal: what would answer the question
provenance program, commit, versions, machine, recorded_at, seconds
========== ===========================================================================================================

A pair that could not run is stored as ``<pair id>.failed.json``: {"case": ..., "reason": ...}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

Split = Literal["development", "scored"]

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "num_workers": 0,
        "prefetch_factor": None,
        "persistent_workers": False,
        "in_order": True,
        "cache_samples": "none",
        "gradient_accumulation_steps": 1,
        "log_every_n_steps": 1000,
        "torch_num_threads": 1,
        "gc_collect_every_n_steps": 0,
        "gc_freeze": False,
        "checkpoint_every_n_steps": 1000,
        "async_checkpoint": False,
        "precision": "fp32",
        "optimizer": "adamw",
        "optimizer_implementation": "foreach",
        "memory_format": "contiguous",
        "compile": False,
    }
)
"""Knobs of every training; a workload adds its batch size, a case what it starts from."""

RANKS_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "parallelism": "ddp",
        "backend": "gloo",
        "bucket_cap_mb": None,
        "gradient_compression": "none",
        "find_unused_parameters": False,
        "sync_every_micro_batch": False,
        "balance_batches": True,
    }
)
"""Knobs that a training of several ranks has besides."""

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.=+-]+")


@dataclass(frozen=True, slots=True)
class PairCase:
    """One change of one training.

    Attributes
    ----------
    workload
        What is trained, in `benchmarks.prediction.workloads`.
    data
        What reading a sample takes, in `benchmarks.prediction.workloads.DATA`.
    split
        Whether models may be tuned on it, or it is scored only.
    changes
        Knob to value after.
    start
        Knobs whose value before is not the default one.
    kind
        List that it stands in: "loader", "compute", "single", "large", "several", "batch", "ranks".
    seed
        Of weights and samples.
    """

    workload: str
    data: str
    split: Split
    changes: Mapping[str, Any]
    start: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "loader"
    seed: int = 0

    @property
    def knobs(self) -> str:
        """Changed knobs, joined by +."""
        return "+".join(sorted(self.changes))

    @property
    def group(self) -> str:
        """What pairs have in common that start from one training: a suggestion for it picks one of their changes."""
        start = "_".join(f"{knob}={value}" for knob, value in sorted(self.start.items()))
        return "-".join(filter(None, (self.workload, self.data, start)))

    @property
    def id(self) -> str:
        """Name of its file: what distinguishes it from all others.

        Examples
        --------
        >>> PairCase("mlp", "waits", "development", {"num_workers": 2}, {"log_every_n_steps": 1}).id
        'mlp-waits-log_every_n_steps=1-num_workers=2'
        """
        changed = "+".join(f"{knob}={value}" for knob, value in sorted(self.changes.items()))
        return _NOT_IN_NAMES.sub("_", f"{self.group}-{changed}")

    def as_json(self) -> dict[str, Any]:
        """Its fields, as JSON holds them."""
        return asdict(self) | {"changes": dict(self.changes), "start": dict(self.start)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> PairCase:
        """The case that `as_json` told."""
        return cls(**told)
