"""Logs of real trainings, under the names of others, become runs that agree with what was measured."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfnb.ledger import step_ledger
from perfnb.read.metrics import read_metrics

pytestmark = pytest.mark.corpus

NAMES = {"wall": "timestamp", "data": "data_loading_time", "fwd": "forward_time", "bwd": "backward_time", "opt": "optimizer_time"}
SECONDS = {"*_time": "s"}


def test_every_recorded_fault_keeps_its_times_and_the_ledger_sums(corpus: Path) -> None:
    files = sorted((corpus / "injections" / "performance").glob("*/steps.csv"))

    assert len(files) >= 15
    for file in files:
        log = pd.read_csv(file)
        run = read_metrics(log.rename(columns={**NAMES, "total": "step_time", "other": "rest"}), units=SECONDS)
        other = run.phases.loc[run.phases["phase"].eq("other"), "wall_us"].to_numpy()

        assert run.steps["duration_us"].to_numpy() == pytest.approx(log["total"].to_numpy() * 1e6), file.parent.name
        assert other == pytest.approx(log["other"].to_numpy() * 1e6, abs=1.0), file.parent.name
        assert run.training["batch_size"].notna().all()
        assert len(step_ledger(run)) == 5 * len(log)


def test_one_log_of_two_ranks_keeps_them_apart(corpus: Path) -> None:
    log = pd.read_csv(corpus / "injections" / "performance" / "healthy-ddp2-s0" / "ranks.csv")

    run = read_metrics(log.rename(columns={**NAMES, "total": "step_time", "comm": "communication_time"}), units=SECONDS)

    assert run.ranks == (0, 1)
    assert run.world_size == 2
    assert len(run.steps) == len(log)
    assert run.phases["phase"].cat.categories.tolist() == ["data", "communication", "optimizer", "other"]


def test_samples_of_the_host_are_read_from_such_a_log(corpus: Path) -> None:
    folder = corpus / "injections" / "performance" / "disk_read-mlp-s0"
    host = pd.read_csv(folder / "sys.csv").rename(
        columns={"t": "timestamp", "cpu": "cpu_percent", "rb": "disk_read", "load1": "load_1m"}
    )
    steps = pd.read_csv(folder / "steps.csv").rename(columns={**NAMES, "total": "step_time"})

    run = read_metrics(steps, None, host, units={**SECONDS, "rss": "B", "disk_read": "B"})

    spent = np.diff(host["timestamp"])
    rate = run.host_samples["disk_read_bytes_per_s"].to_numpy()[1:]
    assert rate == pytest.approx(np.diff(host["disk_read"]) / spent, rel=1e-3)  # moments of 2026 hold a quarter of a microsecond
    assert run.host_samples["own_memory_bytes"].tolist() == host["rss"].tolist()
    assert run.host_samples["cpu_share"].max() <= 1.0


def test_curves_with_points_far_apart_have_no_steps_of_their_own(corpus: Path) -> None:
    with gzip.open(corpus / "training" / "algoperf.jsonl.gz", "rt", encoding="utf-8") as opened:
        curves = [json.loads(line) for line in itertools.islice(opened, 40)]

    for curve in curves:
        step, loss, norm = map(list, zip(*(point[:3] for point in curve["train"]), strict=True))
        run = read_metrics({"global_step": step, "loss": loss, "grad_norm": norm}, config=curve["hparams"])

        assert len(run.training) == len(step)
        assert run.steps.empty
        assert "no column of step times" in run.missing["steps"]
        finite = np.isfinite(np.array(loss, dtype=float)) & np.isfinite(np.array(norm, dtype=float))
        assert run.training["finite"].tolist() == finite.tolist()
