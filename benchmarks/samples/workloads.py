"""The five recorded workloads: each a training configuration, the one change that cures it, and its cause removed altogether."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]

# Few weights and many rows: a model of 25 MB ran 7 % slower after each wait, its weights gone from the shared cache.
PLAIN_MODEL = {"kind": "mlp", "widths": [1024, 1024, 1024, 10], "windows": 1}
WINDOW_MODEL = {"kind": "mlp", "widths": [1024, 1024, 1024, 10], "windows": 8}
RANK_MODEL = {"kind": "mlp", "widths": [512, 1024, 1024, 10], "windows": 1}

KNOBS: Config = {
    "batch_size": 256,
    "num_workers": 0,
    "prefetch_factor": None,
    "persistent_workers": False,
    "pin_memory": False,
    "cache_samples": "none",
    "log_every_n_steps": 50,
    "balance_batches": True,
    "bucket_cap_mb": None,
    "learning_rate": 0.01,
    "torch_num_threads": 1,
    "world_size": 1,
    "seed": 7,
    "model": PLAIN_MODEL,
    "data": {"kind": "tensors", "delivery": "batches", "samples": 2048},
    "logging": {"what": "loss"},
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One recorded workload and its variants.

    Attributes
    ----------
    name
        Folder under data/samples.
    detector, category
        Detector that must find the cause, and the part of the step that it claims; None for a healthy run.
    before
        Configuration of the run as a user would have it.
    cure
        Knobs of the run recorded under ``after``; None when there is nothing to cure.
    removed
        What to replace in ``before`` so that the cause is gone altogether; the truth is measured against it.
    """

    name: str
    detector: str | None
    category: str | None
    before: Config
    cure: Config | None
    removed: Config

    def variants(self) -> dict[str, Config]:
        """Configurations by variant name: before, after where there is a cure, and removed."""
        configs = {"before": self.before}
        if self.cure is not None:
            configs["after"] = {**self.before, **self.cure}
        return {**configs, "removed": {**self.before, **self.removed}}


SLOW_READ = {"kind": "slow_read", "delivery": "samples", "samples": 512, "read_ms": 1.15, "read_sigma": 0.3}
TRANSFORM = {"kind": "transform", "delivery": "samples", "samples": 128, "points": 16384}
UNEVEN = {"kind": "tensors", "delivery": "batches", "samples": 2048, "samples_by_rank": [256, 768]}

WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="slow_loader",
            detector="data_stall",
            category="data",
            before={**KNOBS, "batch_size": 32, "model": WINDOW_MODEL, "data": SLOW_READ},
            cure={"num_workers": 2, "prefetch_factor": 2, "persistent_workers": True},
            removed={"data": {**SLOW_READ, "delivery": "in_hand"}},
        ),
        Workload(
            name="cpu_transform",
            detector="data_stall",
            category="data",
            before={**KNOBS, "batch_size": 32, "model": WINDOW_MODEL, "data": TRANSFORM},
            cure={"cache_samples": "memory"},
            removed={"data": {**TRANSFORM, "delivery": "in_hand"}},
        ),
        Workload(
            name="slow_rank",
            detector="slow_rank",
            category="imbalance",
            before={
                **KNOBS,
                "batch_size": 512,
                "world_size": 2,
                "bucket_cap_mb": 25,
                "balance_batches": False,
                "model": RANK_MODEL,
                "data": UNEVEN,
            },
            cure={"balance_batches": True},
            removed={"balance_batches": True},
        ),
        Workload(
            name="python_logging",
            detector="python_overhead",
            category="other",
            before={**KNOBS, "batch_size": 320, "log_every_n_steps": 1, "logging": {"what": "statistics"}},
            cure={"log_every_n_steps": 50},
            removed={"log_every_n_steps": 0},
        ),
        Workload(
            name="healthy",
            detector=None,
            category=None,
            before=KNOBS,
            cure=None,
            removed={"log_every_n_steps": 0, "data": {**KNOBS["data"], "delivery": "in_hand"}},
        ),
    )
}
