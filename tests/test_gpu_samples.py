"""What the GPU campaign measured, replayed: predictions by transform, detectors, device breakdown, memory, recorded runs."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.collect import collect
from benchmarks.gpu.replay import (
    Sample,
    Score,
    breakdown_problems,
    by_transform,
    finding_problems,
    memory_problems,
    recorded_problems,
    samples,
    score_problems,
    score_rows,
    scores,
    snapshot_problems,
    write_scores,
)

ROOT = Path(__file__).resolve().parent.parent
CARDS = samples(ROOT / "data" / "samples")
CHECKS = (score_problems, finding_problems, breakdown_problems, memory_problems, recorded_problems)
REHEARSED = (
    "pairs/workers_cnn",
    "pairs/bf16_gpt",
    "memory/gpt",
    "overhead/recorded_run",
    "faults/synchronize_every_operator",
    "faults/healthy_gpt",
)

Check = Callable[[Sample], list[str]]


@pytest.mark.skipif(not CARDS, reason="no GPU campaign recorded yet")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("sample", CARDS, ids=[sample.folder.name for sample in CARDS])
def test_what_a_card_measured_is_what_perfnb_says(sample: Sample, check: Check) -> None:
    assert check(sample) == []


@pytest.mark.skipif(not CARDS, reason="no GPU campaign recorded yet")
@pytest.mark.parametrize("sample", CARDS, ids=[sample.folder.name for sample in CARDS])
def test_a_card_has_a_score_for_every_pair_and_no_rehearsal_among_the_samples(sample: Sample) -> None:
    assert not sample.provenance["rehearsed"]
    assert len(scores(sample)) == len(sample.lines("pairs")) > 0


# --- the replay itself, on a rehearsal and on what is wrong on purpose -------------------------------------------------


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample of a rehearsal on this machine."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("rehearsal")
    command = [sys.executable, "benchmarks/gpu/campaign.py", "--rehearse", "--out", str(folder / "out"), "--only", *REHEARSED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    target = collect(folder / "out" / "packed", folder / "samples", accept_rehearsal=True)
    write_scores(Sample(target))
    return target


@pytest.fixture
def copy(rehearsed: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(rehearsed, tmp_path / "sample"))


def with_result(folder: Path, stage: str, change: Callable[[dict[str, Any]], None]) -> Sample:
    """The sample with the results of a stage changed."""
    path = folder / f"{stage}.jsonl.gz"
    lines = [json.loads(text) for text in gzip.decompress(path.read_bytes()).splitlines()]
    for line in lines:
        change(line)
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return Sample(folder)


@pytest.mark.slow
@pytest.mark.torch
def test_every_pair_of_a_rehearsal_is_scored_by_its_transform(rehearsed: Path) -> None:
    sample = Sample(rehearsed)

    scored = scores(sample)

    assert [(each.transform, each.workload) for each in scored] == [("bf16", "gpt"), ("workers", "cnn")]
    assert "how fast this machine computes so is not known" in scored[0].reason
    assert all((each.predicted is None) == bool(each.reason) for each in scored)  # a noisy machine may refuse the workers too
    assert score_problems(sample) == []


def test_a_score_compares_ratios_and_the_table_counts_refusals_too() -> None:
    scored = [
        Score("workers", "cnn", 0.5, 0.6, 0.45, 0.7, ""),
        Score("workers", "gpt", 0.5, 0.4, 0.35, 0.45, ""),
        Score("bf16", "gpt", 0.6, None, None, None, "no model"),
    ]

    assert [each.error for each in scored[:2]] == [pytest.approx(0.2), pytest.approx(-0.2)]
    assert [each.is_inside for each in scored] == [True, False, None]
    assert [row.split() for row in by_transform(scored).splitlines()[1:]] == [
        ["workers", "2", "2", "1", "20.0%"],
        ["bf16", "1", "0", "0", "-"],
    ]
    assert score_rows(scored)[3] == ["bf16", "gpt", "0.6000", "", "", "", "", "", "no model"]


@pytest.mark.slow
@pytest.mark.torch
def test_scores_fail_where_a_measured_time_is_another_or_none_are_stated(copy: Path) -> None:
    def slower(line: dict[str, Any]) -> None:
        line["result"]["times"]["after"]["median_wall_us"] *= 2

    assert len(score_problems(with_result(copy, "pairs", slower))) == 2
    (copy / "scores.csv").unlink()
    assert "scores.csv is not there" in score_problems(Sample(copy))[0]


@pytest.mark.slow
@pytest.mark.torch
def test_findings_fail_where_a_detector_says_something_else_than_was_measured(copy: Path) -> None:
    rows = [
        ["run", "detector", "severity", "tolerance"],
        ["faults/synchronize_every_operator/faulty", "host_sync", "0.9", "0.02"],
    ]
    with (copy / "expected.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

    wrong = finding_problems(Sample(copy))

    assert wrong[0].startswith("faults/synchronize_every_operator/faulty: host_sync not found")


@pytest.mark.slow
@pytest.mark.torch
def test_the_run_that_a_rehearsal_records_lacks_all_that_only_a_gpu_fills(rehearsed: Path) -> None:
    assert recorded_problems(Sample(rehearsed)) == [
        "the recorded run has no device time of phases",
        "the recorded run has no rows of the allocator",
        "the recorded run has no GPU samples",
        "the recorded run has no device work in the profiler's window",
    ]


@pytest.mark.slow
@pytest.mark.torch
def test_memory_fails_where_nothing_was_measured_or_peaks_contradict_each_other(copy: Path) -> None:
    assert memory_problems(Sample(copy)) == ["no configuration was measured"]

    def measured(line: dict[str, Any]) -> None:
        line["state"] = "ok"
        line["result"]["phases"] = [[0, "forward", 10, 20, 5], [0, "backward", 30, 20, 5]]

    assert memory_problems(with_result(copy, "memory", measured)) == ["gpt: step 0, backward: held 5, peaks 30 and 20"]


@pytest.mark.slow
@pytest.mark.torch
def test_a_trace_without_device_work_is_no_trace_of_a_gpu(rehearsed: Path) -> None:
    wrong = breakdown_problems(Sample(rehearsed))

    assert len(wrong) == len(list(Sample(rehearsed).traces())) == 4
    assert all("no device work was recorded" in each for each in wrong)


def made_sample(folder: Path, kernels: list[tuple[float, float]], category: str = "kernel") -> Sample:
    """A sample that holds one trace, of these kernels."""
    (folder / "pairs").mkdir(parents=True)
    (folder / "provenance.json").write_text("{}", encoding="utf-8")
    events: list[dict[str, Any]] = [
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 0.0, "dur": 5.0, "args": {}}
    ]
    for number, (start, duration) in enumerate(kernels):
        place = {"device": 0, "stream": 7, "correlation": number}
        kind = category if number else "kernel"
        events.append({"ph": "X", "cat": kind, "name": "k", "pid": 0, "tid": 7, "ts": start, "dur": duration, "args": place})
    text = json.dumps({"schemaVersion": 1, "traceEvents": events})
    (folder / "pairs" / "a.before.json.gz").write_bytes(gzip.compress(text.encode()))
    return Sample(folder)


def test_the_device_breakdown_is_what_a_sweep_over_the_events_gives(tmp_path: Path) -> None:
    sample = made_sample(tmp_path / "right", [(10.0, 20.0), (25.0, 10.0), (50.0, 5.0)])

    assert breakdown_problems(sample) == []


def test_the_device_breakdown_fails_where_perfnb_counts_events_that_the_sweep_does_not_know(tmp_path: Path) -> None:
    sample = made_sample(tmp_path / "wrong", [(10.0, 20.0), (50.0, 5.0)], category="memset")

    wrong = breakdown_problems(sample)

    assert [each.split(":")[1].split()[0] for each in wrong] == ["window_us", "busy_us", "idle_us"]


def test_blocks_that_do_not_tile_their_segment_and_a_snapshot_without_events_are_named() -> None:
    segment = {"address": 0, "total_size": 1024, "blocks": [[0, 512, 500, "active_allocated"], [512, 512, 0, "inactive"]]}
    torn = {"address": 2048, "total_size": 1024, "blocks": [[2048, 256, 256, "inactive"], [2560, 256, 256, "inactive"]]}

    right = snapshot_problems({"segments": [segment], "events": [[["alloc", 0, 512, 0]]]}, "gpt")
    wrong = snapshot_problems({"segments": [segment, torn], "events": [[]]}, "gpt")

    assert right == []
    assert wrong == [
        "gpt: the snapshot has no event",
        "gpt: a block at 0xa00, where 0x900 comes next",
        "gpt: the blocks of the segment at 0x800 end at 0xb00",
    ]
