"""Imbalance between ranks: a published job with a known slow worker, and what the rows of one detector must leave to another."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import perfnb
from perfnb.analyses.pipeline_stages import stage_of_ranks
from perfnb.analyses.rank_excess import rank_excess, slow_rank_of, why_not_comparable
from perfnb.catalogue import detectors
from perfnb.detector import Detector, Unmeasured
from perfnb.run import Run
from perfnb.tables import conform, table_from_text
from perfnb.work import rank_work

_STAGES = 4
_COMPUTE = {"forward-compute": "forward", "backward-compute": "backward", "optimizer": "optimizer", "gc": "other"}


def pipeline_run(parquet: Path) -> Run:
    """A job of ByteDance's StragglerAnalysis, one rank per (stage, data-parallel rank), numbered as Megatron does.

    Its tensor-parallel ranks are recorded once. The recording lists every operation that computes, so a rank that is in none
    waits for its peers, whether or not in a recorded send or collective: that is `communication`. A step lasts from the first
    start to the last end on any rank, so that it is the same step on all of them.
    """
    table = pd.read_parquet(parquet)
    table = table.assign(
        rank=table["stage"].astype("int64") * _STAGES + table["dp_rank"].astype("int64"),
        start=table["start_ts"].astype("float64") * 1e6,
        duration_us=table["duration"].astype("float64") * 1e6,
        phase=table["optype"].astype(object).map(_COMPUTE),
    )
    steps: list[tuple[Any, ...]] = []
    phases: list[tuple[Any, ...]] = []
    begins = 0.0
    for step, rows in table.groupby("step"):
        length = float((rows["start"] + rows["duration_us"]).max() - rows["start"].min())
        for rank, own in rows.groupby("rank"):
            walls = own.groupby("phase")["duration_us"].sum()  # operations that compute do not overlap
            steps.append((rank, step, begins, length))
            phases += [(rank, step, phase, wall) for phase, wall in walls.items()]
            phases.append((rank, step, "communication", length - walls.sum()))
        begins += length
    return Run(
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
        phases=conform("phases", pd.DataFrame(phases, columns=["rank", "step", "phase", "wall_us"])),
        config={"pipeline_parallel_size": _STAGES},
        signals=frozenset({"steps", "phases"}),
        world_size=len(set(table["rank"])),
    )


def named(name: str) -> Detector:
    return next(each for each in detectors() if each.name == name)


def work_of(rows: str) -> pd.DataFrame:
    """Rows of `rank_work` from text: rank, step, work_us, input_us; each step of 100 us."""
    table = pd.DataFrame(
        [[float(cell) for cell in row.split()] for row in rows.splitlines()], columns=["rank", "step", "work_us", "input_us"]
    )
    most = table.groupby("step")["work_us"].transform("max")
    return table.assign(duration_us=100.0, with_peers_us=100.0 - table["work_us"], is_critical=table["work_us"].eq(most))


@pytest.mark.corpus
def test_the_published_job_wastes_what_its_authors_say_and_the_slow_worker_is_named(corpus: Path) -> None:
    published = json.loads((corpus / "stragglers/result-AR.json").read_text(encoding="utf-8"))
    waste = 1.0 - 1.0 / published["blocking_slowdown"]  # .493

    found = perfnb.diagnose(pipeline_run(corpus / "stragglers/trace-AR.parquet")).found

    assert [finding.detector for finding in found] == ["slow_rank"]
    assert found[0].severity == pytest.approx(waste, abs=0.05)
    assert found[0].severity == pytest.approx(0.5200, abs=0.0005)  # without a replay of the pipeline the bubble counts too
    assert found[0].ranks == (0,)  # stage 0, data-parallel rank 0


@pytest.mark.corpus
def test_seven_ranks_that_wait_in_one_step_are_too_few_steps_to_blame_a_rank(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/param/dlrm_8rank")

    answers = perfnb.diagnose(run).not_measured.set_index("detector")["reason"]

    assert answers["slow_rank"] == "1 step of all ranks, 10 are needed: record more"


def test_a_slow_rank_is_named_with_its_host_where_that_was_sampled() -> None:
    found = named("slow_rank")
    run = found.examples[0].run
    samples = table_from_text("host_samples", "rank host time_us\n0 here 1\n1 there 1")

    evidence = found.evidence(dataclasses.replace(run, host_samples=samples, signals=run.signals | {"host_samples"}))

    assert set(evidence["rank"]) == {1}
    assert set(evidence["host"]) == {"there"}


def test_batches_are_not_blamed_where_one_rank_is_always_worst_though_its_batches_are_larger() -> None:
    run = named("slow_rank").examples[0].run
    rows = "\n".join(f"{rank} {step} {step} {(60, 100)[rank]}" for step in range(12) for rank in range(2))
    training = table_from_text("training", f"rank step time_us batch_size\n{rows}")

    evidence = named("uneven_batches").evidence(dataclasses.replace(run, training=training, signals=run.signals | {"training"}))

    assert evidence.empty


def test_without_tokens_or_batch_sizes_batches_cannot_be_blamed() -> None:
    run = named("uneven_batches").examples[0].run
    training = run.training.assign(batch_size=float("nan"))

    with pytest.raises(Unmeasured, match=r"neither tokens nor batch sizes were recorded: recorder.log\(tokens=...\)"):
        named("uneven_batches").evidence(dataclasses.replace(run, training=training))


def test_a_stage_of_one_rank_is_not_told_from_a_slow_rank() -> None:
    run = dataclasses.replace(named("slow_rank").examples[0].run, config={"pipeline_parallel_size": 2})

    with pytest.raises(Unmeasured, match="a stage has one rank"):
        named("uneven_stages").evidence(run)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"pipeline_parallel_size": 3}, "pipeline_parallel_size is 3 for 4 ranks"),
        ({"pipeline_parallel_size": 1}, "the pipeline has one stage"),
        ({"pipeline_parallel_size": "2"}, "pipeline_parallel_size is '2'"),
        ({"pipeline_stages": [0, 1]}, "does not list the stage of each of the 4 ranks"),
        ({"pipeline_stages": "0011"}, "does not list the stage"),
    ],
)
def test_stages_that_do_not_fit_the_ranks_are_refused(config: dict[str, Any], reason: str) -> None:
    assert reason in str(stage_of_ranks(config, 4, 4))


def test_steps_that_one_rank_lacks_are_left_out() -> None:
    work = work_of("0 1 50 0\n1 1 90 0\n0 2 50 0")

    assert rank_excess(work)["step"].to_list() == [1]
    assert why_not_comparable(work, 2) == "1 step of all ranks, 10 are needed: record more"


def test_ranks_that_were_never_seen_to_exchange_anything_are_not_compared() -> None:
    work = pd.concat([work_of(f"0 {step} 50 0\n1 {step} 90 0") for step in range(10)])

    assert why_not_comparable(work, 2) == ""
    assert "who waits for whom is not known" in why_not_comparable(work.assign(with_peers_us=0.0), 2)


def test_input_is_the_cause_of_the_rank_whose_data_is_late_not_of_another_that_is_slow() -> None:
    late = [work_of(f"0 {step} 50 0\n1 {step} 90 36\n2 {step} 50 0") for step in range(6)]
    slow = [work_of(f"0 {step} 90 0\n1 {step} 50 0\n2 {step} 50 0") for step in range(6, 9)]

    causes = rank_excess(pd.concat([*late, *slow])).groupby("rank")["causes"].first()

    assert causes.to_dict() == {0: "changing", 1: "input"}


def test_ten_thousand_steps_do_not_overflow_the_binomial() -> None:
    assert slow_rank_of(pd.Series([1] * 9_000 + [0] * 1_000), 2) == 1
    assert slow_rank_of(pd.Series([1, 0] * 5_000), 2) is None


def test_work_on_the_host_is_cpu_time_and_time_blocked_on_own_affairs() -> None:
    parts = {
        "data.cpu": 1,
        "data.runqueue": 2,
        "data.blocked": 4,
        "forward.cpu": 8,
        "forward.runqueue": 16,
        "forward.blocked": 32,
        "communication.cpu": 64,
        "communication.blocked": 128,
        "other.blocked": 256,
        "optimizer.wall": 512,
    }
    ledger = pd.DataFrame(
        {"rank": 0, "step": 1, "clock": "host", "device": pd.NA, "part": list(parts), "time_us": list(parts.values())}
    )

    row = rank_work(ledger).iloc[0]

    assert row["duration_us"] == 1023
    assert row["work_us"] == 1 + 4 + 8 + 256 + 512
    assert row["with_peers_us"] == 64 + 128
    assert row["input_us"] == 1 + 4


def test_work_on_the_device_is_what_is_neither_communication_nor_idling_on_peers() -> None:
    parts = {
        "compute": 1,
        "exposed_communication": 2,
        "exposed_copy": 4,
        "idle.data": 8,
        "idle.dependency": 16,
        "idle.python": 32,
    }
    ledger = pd.DataFrame(
        {"rank": 0, "step": 1, "clock": "device", "device": 0, "part": list(parts), "time_us": list(parts.values())}
    )

    row = rank_work(ledger).iloc[0]

    assert row["work_us"] == 1 + 4 + 8 + 32
    assert row["input_us"] == 8
