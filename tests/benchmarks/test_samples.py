"""The committed samples are complete, name no machine, and state the truth that their own step times give."""

import csv
import gzip
import json
import lzma
import re
import socket
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from benchmarks.samples import limits

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "samples"
RANKS = {"slow_loader": 1, "cpu_transform": 1, "slow_rank": 2, "python_logging": 1, "healthy": 1}
FOLDERS = sorted([*RANKS, *(f"{name}/after" for name in RANKS if name != "healthy")])
KNOBS = {
    "batch_size",
    "num_workers",
    "prefetch_factor",
    "persistent_workers",
    "pin_memory",
    "cache_samples",
    "log_every_n_steps",
    "balance_batches",
    "learning_rate",
    "torch_num_threads",
    "world_size",
    "seed",
    "model",
}
PROVENANCE_FIELDS = {
    "run",
    "variant",
    "program",
    "command",
    "recorded_at",
    "noise_accepted",
    "versions",
    "machine",
    "seed",
    "profiled",
    "truth",
    "files",
}
TRUTH_FIELDS = {
    "detector",
    "category",
    "share",
    "before_step_us",
    "after_step_us",
    "removed_step_us",
    "before_median_step_us",
    "after_median_step_us",
    "removed_median_step_us",
    "spread_share",
    "repetitions",
}


def read_json(path: Path) -> Any:
    """Content of a JSON file, compressed or not."""
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def read_text(path: Path) -> str:
    """Text of a file, compressed or not."""
    raw = path.read_bytes()
    read = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    return read(raw).decode()


def names_of(trace: dict[str, Any]) -> list[str]:
    """Names of all complete events of a trace."""
    return [event["name"] for event in trace["traceEvents"] if event.get("ph") == "X"]


def measured(truth: dict[str, Any], variant: str) -> list[dict[str, Any]]:
    """Repetitions of one variant."""
    return [repetition for repetition in truth["repetitions"] if repetition["variant"] == variant]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_run_has_one_trace_per_rank_its_config_and_its_provenance(folder: str) -> None:
    name = folder.split("/", maxsplit=1)[0]

    found = {path.name for path in (SAMPLES / folder).iterdir() if path.is_file()}

    traces = {f"rank{rank}.pt.trace.json.gz" for rank in range(RANKS[name])}
    assert found == traces | {"config.json", "provenance.json"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_config_has_every_knob(folder: str) -> None:
    config = read_json(SAMPLES / folder / "config.json")

    assert set(config) >= KNOBS
    assert config["world_size"] == RANKS[folder.split("/", maxsplit=1)[0]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_provenance_says_what_was_recorded_on_what_and_with_what_truth(folder: str) -> None:
    provenance = read_json(SAMPLES / folder / "provenance.json")

    assert set(provenance) >= PROVENANCE_FIELDS
    assert set(provenance["truth"]) >= TRUTH_FIELDS
    assert set(provenance["versions"]) == {"python", "torch", "numpy"}
    assert set(provenance["machine"]) == {"cpu_model", "logical_cpus", "memory_gb", "capacity_cores"}
    assert not provenance["noise_accepted"]
    for name, size in provenance["files"].items():
        assert (SAMPLES / folder / name).stat().st_size == size


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_true_share_follows_from_the_measured_step_times(folder: str) -> None:
    truth = read_json(SAMPLES / folder / "provenance.json")["truth"]

    assert truth["share"] == pytest.approx(1 - truth["removed_step_us"] / truth["before_step_us"], abs=1e-9)
    for variant in ("before", "after", "removed"):
        repetitions = measured(truth, variant)
        if repetitions:
            assert len(repetitions) >= 4
            assert min(repetition["steps"] for repetition in repetitions) >= 50
            mean_us = fmean(repetition["mean_step_us"] for repetition in repetitions)
            assert truth[f"{variant}_step_us"] == pytest.approx(mean_us, rel=1e-9)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_trace_marks_steps_loader_waits_and_optimizer_steps(folder: str) -> None:
    steps = read_json(SAMPLES / folder / "provenance.json")["profiled"]["steps"]

    for path in (SAMPLES / folder).glob("rank*.gz"):
        names = names_of(read_json(path))

        assert sum(name.startswith("ProfilerStep#") for name in names) == steps >= 12
        assert sum(re.match(r"enumerate\(DataLoader\)#.*__next__", name) is not None for name in names) >= steps
        assert sum(name.startswith("Optimizer.step#") for name in names) >= steps


def test_both_traces_of_the_slow_rank_say_which_rank_they_are() -> None:
    folders = [SAMPLES / "slow_rank", SAMPLES / "slow_rank" / "after"]

    for folder in folders:
        for rank in (0, 1):
            distributed = read_json(folder / f"rank{rank}.pt.trace.json.gz")["distributedInfo"]

            assert (distributed["rank"], distributed["world_size"]) == (rank, 2)


def test_the_profile_shows_the_true_share_within_the_tolerance() -> None:
    expected = {row["run"]: row for row in csv.DictReader((SAMPLES / "expected.csv").read_text().splitlines())}

    for name, row in expected.items():
        profiled = read_json(SAMPLES / name / "provenance.json")["profiled"]

        assert profiled["share"] == pytest.approx(float(row["severity"]), abs=float(row["tolerance"]))


def test_the_healthy_run_loses_under_three_percent() -> None:
    provenance = read_json(SAMPLES / "healthy" / "provenance.json")

    assert abs(provenance["truth"]["share"]) < 0.03
    assert provenance["profiled"]["share"] < 0.03


def test_the_expected_severities_are_the_measured_shares() -> None:
    truths = {name: read_json(SAMPLES / name / "provenance.json")["truth"] for name in RANKS}

    rows = list(csv.DictReader((SAMPLES / "expected.csv").read_text().splitlines()))

    assert {row["run"] for row in rows} == {name for name, truth in truths.items() if truth["detector"]}
    for row in rows:
        assert row["detector"] == truths[row["run"]]["detector"]
        assert float(row["severity"]) == pytest.approx(truths[row["run"]]["share"], abs=5e-5)
        assert float(row["tolerance"]) == 0.02


def test_no_file_holds_a_machine_path_or_a_host_name() -> None:
    # The host's name counts as a whole quoted value: names such as "vm" are also parts of ordinary words.
    secrets = re.compile(rf'/(?:work|tmp|root|home)\b|"{re.escape(socket.gethostname())}"|"host_name": "[^"]')

    for path in SAMPLES.rglob("*"):
        if path.is_file() and path.suffix != ".md":
            assert not secrets.search(read_text(path)), path


def test_all_samples_together_stay_small() -> None:
    assert limits.exceeded(SAMPLES) == []


def test_a_folder_that_grew_too_large_is_named_with_its_size_and_what_is_allowed(tmp_path: Path) -> None:
    for name, size in (("prediction", limits.APART["prediction"] + 1), ("other", limits.REST)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "a").open("wb") as file:
            file.truncate(size)  # sparse: it takes no room

    assert limits.exceeded(tmp_path) == ["prediction: 2,600,001 bytes, 2,600,000 allowed"]


@pytest.mark.torch
def test_a_tiny_recording_reads_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = [
        "cpu_transform",
        "--accept-noise",
        "--out",
        str(tmp_path),
        "--repeats",
        "1",
        "--steps",
        "20",
        "--profiled-steps",
        "3",
    ]

    subprocess.run([sys.executable, "-m", "benchmarks.samples.record", *words], cwd=ROOT, check=True)

    provenance = read_json(tmp_path / "cpu_transform" / "provenance.json")
    before = read_json(tmp_path / "cpu_transform" / "rank0.pt.trace.json.gz")
    after = read_json(tmp_path / "cpu_transform" / "after" / "config.json")
    assert sum(name.startswith("ProfilerStep#") for name in names_of(before)) == 3
    assert before["traceName"] == "rank0.pt.trace.json"
    assert after["cache_samples"] == "memory"
    assert 0.2 < provenance["truth"]["share"] < 0.9
    assert str(tmp_path) not in json.dumps([provenance, before])
    assert (tmp_path / "expected.csv").read_text().startswith("run,detector,severity,tolerance\ncpu_transform,")
