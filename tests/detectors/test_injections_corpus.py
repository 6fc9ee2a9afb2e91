"""Runs of the corpus with a known injected cause, recorded by others as plain CSV: what is named, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.diagnose import Diagnosis
from perfnb.run import Machine, Run
from perfnb.tables import conform

pytestmark = pytest.mark.corpus

PHASES = {"data": "data", "fwd": "forward", "bwd": "backward", "opt": "optimizer", "other": "other"}
NAMED = (
    ("slow_item_io", "slow_sample_read"),
    ("slow_item_cpu", "slow_transform"),
    ("disk_read", "slow_sample_read"),
    ("disk_contention", "slow_sample_read"),
    ("heavy_tail_item", "outlier_samples"),
    ("worker_respawn", "worker_restart"),
    ("ckpt_every_3", "checkpoint_stall"),
    ("python_logging", "python_overhead"),
    ("tiny_batch", "undersized_batch"),
    ("cpu_hog", "cpu_contention"),
)
NOT_MEASURED = (
    ("slow_item_io_w2", "slow_sample_read"),  # what the workers did was not sampled
    ("workers_oversub", "oversubscribed_workers"),
    ("graph_leak", "host_memory_leak"),  # forty steps
    ("host_leak", "host_memory_leak"),
    ("fp64", "full_precision_math"),  # no operators
    ("many_small_ops", "launch_overhead"),
)
FAMILIES_OF_A_BUSY_HOST = {"cpu_contention", "slow_transform"}
"""True of every run there: foreign programs took 40 to 90 % of the wall time, and loading takes 6 to 26 % of the rest."""


def run_of(folder: Path) -> Run:
    """Tables from its two logs; waiting for a core, known per step only, is spread over the phases by their length."""
    log, host = pd.read_csv(folder / "steps.csv"), pd.read_csv(folder / "sys.csv")
    began = log["wall"].iloc[0] - log["total"].iloc[0]
    start = np.concatenate([[0.0], np.cumsum(log["total"])[:-1]]) * 1e6
    steps = pd.DataFrame({"rank": 0, "step": log["step"], "start_us": start, "duration_us": log["total"] * 1e6})
    steps["epoch"] = log.get("epoch", pd.NA)
    waiting = (log["runq"] / log["total"]).clip(0, 1)
    phases = []
    for column, phase in PHASES.items():
        wall = log[column] * 1e6
        rest = (log["cpu"] - log["data_cpu"]).clip(lower=0) * log[column] / (log["total"] - log["data"])
        cpu = ((log["data_cpu"] if column == "data" else rest) * 1e6).clip(upper=wall)
        queued = np.minimum(wall * waiting, wall - cpu)
        times = {"wall_us": wall, "cpu_us": cpu, "runqueue_us": queued, "blocked_us": wall - cpu - queued}
        phases.append(pd.DataFrame({"rank": 0, "step": log["step"], "phase": phase, **times}))
    change = host.diff()
    samples = pd.DataFrame(
        {
            "rank": 0,
            "time_us": (host["t"] - began) * 1e6,
            "own_memory_bytes": host["rss"],
            "own_threads": host["threads"],
            "own_cpu_cores": (change["user"] + change["sys"]) / change["t"],
            "read_bytes_per_s": change["rb"] / change["t"],
            "write_bytes_per_s": change["wb"] / change["t"],
            "voluntary_switches_per_s": change["vcs"] / change["t"],
            "pressure_cpu_share": change["psi_cpu"] / 1e6 / change["t"],
            "workers": host["nchild"],
        }
    )
    training = pd.DataFrame({"rank": 0, "step": log["step"], "time_us": start, "loss": log["loss"], "batch_size": log["bs"]})
    made = {"steps": steps, "phases": pd.concat(phases), "host_samples": samples, "training": training}
    return Run(
        **{name: conform(name, table) for name, table in made.items()},
        signals=frozenset({*made, "loader", "schedstat"}),
        machine=Machine(cpu_capacity=2.0),
        world_size=1,
        config={"num_workers": int(host["nchild"].max())},
    )


def diagnosis_of(corpus: Path, fault: str, model: str = "mlp") -> Diagnosis:
    return perfnb.diagnose(run_of(corpus / "injections" / "performance" / f"{fault}-{model}-s0"))


@pytest.mark.parametrize(("fault", "detector"), NAMED)
def test_an_injected_cause_that_the_logs_show_is_named(corpus: Path, fault: str, detector: str) -> None:
    assert detector in {finding.detector for finding in diagnosis_of(corpus, fault).found}


@pytest.mark.parametrize(("fault", "detector"), NOT_MEASURED)
def test_a_cause_that_the_logs_cannot_show_is_said_to_be_not_measured(corpus: Path, fault: str, detector: str) -> None:
    reasons = {each.detector: each.reason for each in diagnosis_of(corpus, fault).unmeasured}
    assert reasons[detector]


@pytest.mark.parametrize(("fault", "model"), [("healthy", "mlp"), ("healthy", "cnn"), ("healthy_w2", "cnn")])
def test_a_healthy_run_on_a_busy_host_is_told_of_the_host_and_its_loading_alone(corpus: Path, fault: str, model: str) -> None:
    diagnosis = diagnosis_of(corpus, fault, model)
    assert {finding.detector for finding in diagnosis.found} <= FAMILIES_OF_A_BUSY_HOST
    assert not [each for each in diagnosis.unmeasured if each.reason.startswith("failed")]
