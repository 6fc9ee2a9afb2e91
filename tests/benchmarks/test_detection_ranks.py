"""Faults of two ranks: what each side trains, how its own time is told, and that no process is left behind."""

import gzip
import json
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import perfnb

pytest.importorskip("torch")

from benchmarks.detection import ranks, ranks_trace
from benchmarks.detection.case import Case, NotPermittedError
from benchmarks.detection.ranks_faults import CONTROLS, FAULTS, config_of, sides_of
from benchmarks.detection.ranks_job import own_us
from benchmarks.detection.ranks_link import in_own_network
from benchmarks.detection.ranks_training import Training

pytestmark = pytest.mark.torch

MLP = Training("mlp", ((16,), (16,)))


def case_of(fault: str) -> Case:
    return Case("ranks", "mlp_ranks", "small", "development", (fault,), seed=3)


def spec_of(training: Training, folder: Path) -> dict[str, object]:
    return {
        "sides": {"with": training.as_json(), "without": replace(training, syncs="none").as_json()},
        "sleep_share": 0.0,
        "repetitions": 1,
        "steps": 4,
        "recorded_steps": 20,
        "traced_steps": 2,
        "config": config_of(training),
        "folder": str(folder),
    }


def test_a_training_told_as_json_is_the_same_training() -> None:
    training = Training("gru", ((1, 3), (3, 1)), seed=5, sleep_s=(0.0, 0.25), views=(2, 1), bucket_cap_mb=0.1)

    assert Training.from_json(json.loads(json.dumps(training.as_json()))) == training


def test_each_case_of_both_splits_has_a_name_of_its_own() -> None:
    names = Counter(case.id for split in ("development", "held_out") for case in ranks.cases(split))

    assert set(names.values()) == {1}
    # 8 faults, one of them with two doses, and 2 controls; two settings of each of 2 and of 3 workloads
    assert len(names) == (9 + 2) * 2 * (2 + 3)


def test_held_out_workloads_share_none_with_development() -> None:
    of = {split: {case.workload for case in ranks.cases(split)} for split in ("development", "held_out")}

    assert not of["development"] & of["held_out"]


def test_random_batches_are_as_many_samples_a_step_as_balanced_ones() -> None:
    faulty, balanced = sides_of(case_of("random_batches"))

    sums = {first + second for first, second in zip(*faulty.batches, strict=True)}
    assert sums == {balanced.batches[0][0] + balanced.batches[1][0]}
    assert {first > second for first, second in zip(*faulty.batches, strict=True)} == {True, False}


def test_an_uneven_rank_has_three_times_the_batch_and_balanced_ones_the_same_sum() -> None:
    faulty, balanced = sides_of(case_of("uneven_rank"))

    assert faulty.batches == ((128,), (384,))
    assert balanced.batches == ((256,), (256,))


@pytest.mark.parametrize(
    ("fault", "field"), [("tiny_buckets", "bucket_cap_mb"), ("sync_each_micro", "syncs"), ("slow_link", "link_bit_per_s")]
)
def test_without_the_cause_only_the_cause_is_gone(fault: str, field: str) -> None:
    faulty, without = sides_of(case_of(fault))

    assert getattr(faulty, field) != getattr(without, field)
    assert replace(faulty, **{field: getattr(without, field)}) == without


def test_batches_of_equal_work_are_uneven_and_compute_as_many_samples() -> None:
    control = next(each for each in CONTROLS if each.id == "equal_work")

    training = control.arrange(MLP)

    (first,), (second,) = training.batches
    assert first != second
    assert first * training.views[0] == second * training.views[1]


def test_two_faults_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="one fault at a time"):
        sides_of(Case("ranks", "mlp_ranks", "small", "development", ("uneven_rank", "tiny_buckets")))


def test_a_steps_own_time_leaves_out_what_the_rank_that_waited_longest_waited() -> None:
    # five steps of 10 us on both ranks; rank 0 waited 1 us for a core, rank 1 3 us
    assert own_us([[[10_000, 0, 1_000]] * 5, [[10_000, 0, 3_000]] * 5]) == 7.0


def test_the_slowest_and_the_fastest_fifth_of_the_steps_count_nothing() -> None:
    walls = [1_000, 10_000, 10_000, 10_000, 500_000]

    assert own_us([[[wall, 0, 0] for wall in walls]] * 2) == 10.0


def test_every_fault_names_a_detector_and_says_what_it_does() -> None:
    for fault in FAULTS:
        assert fault.expects, fault.id
        assert "without" in fault.about, fault.id


@pytest.mark.slow
def test_both_ranks_are_recorded_into_one_folder_with_the_collectives_of_a_window(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    answer = ranks._run(spec_of(MLP, folder), own_network=False)

    whole = sum(len(gzip.decompress(path.read_bytes())) for path in folder.glob("rank*/*.gz"))
    exchanged = len(perfnb.read_run(folder).collectives)
    assert ranks_trace.slim_traces(folder) == ()
    assert sum(path.stat().st_size for path in folder.glob("rank*/*.gz")) < whole / 3

    run = perfnb.read_run(folder)
    assert run.ranks == (0, 1)
    assert len(run.collectives) == exchanged > 0
    assert run.world_size == 2
    assert set(run.collectives["rank"]) == {0, 1}
    assert Counter((block["side"], block["rank"], len(block["steps"])) for block in answer["blocks"]) == Counter(
        {(side, rank, 4): 1 for side in ("with", "without") for rank in (0, 1)}
    )


@pytest.mark.slow
def test_a_rank_that_fails_is_told_with_its_last_words_and_leaves_no_process(tmp_path: Path) -> None:
    broken = spec_of(replace(MLP, batches=((16,), (-1,))), tmp_path / "run")

    with pytest.raises(RuntimeError, match="the ranks ended with 1"):
        ranks._run(broken, own_network=False)

    assert not [each for each in psutil.Process().children(recursive=True) if "ranks_job" in " ".join(each.cmdline())]


def test_a_trace_is_left_whole_where_slim_detectors_say_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"traceEvents": [{"ph": "X", "cat": "fwdbwd", "name": "x", "tid": 1, "ts": 0, "dur": 1}]})
    path = tmp_path / "rank0" / "trace.json.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    monkeypatch.setattr(ranks_trace, "_said", lambda _: len(path.read_text()))

    notes = ranks_trace.slim_traces(tmp_path)

    assert notes == (ranks_trace.WHOLE,)
    assert path.read_text() == text


def test_a_command_in_a_network_of_its_own_sees_its_loopback_device_alone() -> None:
    try:
        command = in_own_network([shutil.which("ip") or "ip", "-brief", "link"])
    except NotPermittedError as error:
        pytest.skip(str(error))

    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20, check=True)

    assert [line.split()[0] for line in done.stdout.splitlines()] == ["lo"]
