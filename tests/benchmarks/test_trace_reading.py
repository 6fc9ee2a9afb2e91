"""The benchmarks of reading: repeated traces hold what they claim, ratios stay within rounds, every side is measured or named."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import trace_analyses, trace_ranks, trace_reading
from benchmarks.reading import scale
from benchmarks.reading.children import ChildError, measured
from benchmarks.reading.repeated import events_of, fresh, repeated
from benchmarks.reading.sides import SIDES
from benchmarks.reading.tables import ratios, targets
from benchmarks.trace_analyses import Cost, per_event, takes_one_run
from perfnb.errors import NoStepsError
from perfnb.launches import launches
from perfnb.ledger import step_ledger
from perfnb.read.kineto import read_kineto
from perfnb.run import Run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A trace of two steps of 1,000 us, each with one kernel."""
    path = tmp_path / "tiny.json.gz"
    scale.write_tiny(path)
    return path


def measurement(side: str, number: int, cpu_s: float, raw_bytes: int = 60_000_000) -> dict[str, object]:
    """A row as a round gives it."""
    cost = {"cpu_s": cpu_s, "wall_s": cpu_s, "peak_growth_bytes": 90_000_000, "startup_cpu_s": 0.1, "rows": 5}
    return {"file": "a", "raw_bytes": raw_bytes, "round": number, "side": side} | cost


def test_a_repeated_trace_holds_the_same_work_again_later_with_its_own_steps_and_launches(tiny: Path, tmp_path: Path) -> None:
    scale.write(scale.source(tiny), tmp_path / "three.json.gz", 3)

    one, three = read_kineto(tiny), read_kineto(tmp_path / "three.json.gz")

    assert three.steps["step"].to_list() == [0, 1, 2, 3, 4, 5]
    assert events_of(three) == 3 * events_of(one)
    assert three.device_ops["correlation"].to_list() == [1, 2, 4, 5, 7, 8]
    assert launches(three)["step"].to_list() == [0, 1, 2, 3, 4, 5]
    # from the first start to the last end 1,900 us, and a millisecond between repetitions
    assert np.diff(three.steps["start_us"]).tolist() == [1000.0, 1900.0, 1000.0, 1900.0, 1000.0]


@pytest.mark.corpus
def test_a_trace_repeated_as_a_file_and_one_repeated_in_memory_are_the_same_run(corpus: Path, tmp_path: Path) -> None:
    original = next((corpus / "traces" / "param" / "dlrm_8rank").glob("worker3*"))
    scale.write(scale.source(original), tmp_path / "twice.json.gz", 2)

    written, memory = read_kineto(tmp_path / "twice.json.gz"), repeated(read_kineto(original), 2)

    for name in ("steps", "host_ops", "device_ops"):
        ours, theirs = getattr(memory, name), getattr(written, name)
        assert len(ours) == len(theirs)
        assert np.allclose(np.sort(ours["duration_us"]), np.sort(theirs["duration_us"]), rtol=0, atol=1e-3)
    assert launches(memory)["call"].notna().sum() == launches(written)["call"].notna().sum()
    step_ledger(memory)


def test_a_run_repeated_in_memory_keeps_launches_apart_and_rows_in_order(tiny: Path) -> None:
    run = repeated(read_kineto(tiny), 4)

    assert run.host_ops["start_us"].is_monotonic_increasing
    assert launches(run)["step"].to_list() == list(range(8))
    assert run.device_ops["correlation"].is_unique


def test_a_fresh_run_is_equal_but_shares_no_table(tiny: Path) -> None:
    run = read_kineto(tiny)

    copy = fresh(run)

    pd.testing.assert_frame_equal(copy.host_ops, run.host_ops)
    assert copy.host_ops is not run.host_ops


def test_a_rank_says_who_it_is_and_keeps_the_keys_around_its_events(tiny: Path, tmp_path: Path) -> None:
    scale.write_rank(scale.source(tiny), tmp_path / "rank_5.json.gz", 2, rank=5, world_size=64)

    keys = json.loads(gzip.decompress((tmp_path / "rank_5.json.gz").read_bytes()))
    run = read_kineto(tmp_path / "rank_5.json.gz")

    assert (keys["schemaVersion"], keys["distributedInfo"]) == (1, {"rank": 5, "world_size": 64})
    assert (run.ranks, run.world_size, len(run.steps)) == ((5,), 64, 4)


def test_a_file_without_an_event_list_cannot_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ValueError, match=r"config\.json has no list traceEvents"):
        scale.source(tmp_path / "config.json")


def test_ratios_are_formed_within_a_round_and_only_where_both_were_measured() -> None:
    rows = [measurement("fast", 0, 1.0), measurement("hta", 0, 10.0), measurement("fast", 1, 3.0), measurement("hta", 1, 6.0)]

    assert ratios([*rows, measurement("fast", 2, 1.0)], "a", "fast", "hta") == [0.1, 0.5]


def test_targets_say_met_not_met_or_not_measured() -> None:
    rows = [measurement("default", 0, 2.0), measurement("hta", 0, 10.0), measurement("json", 0, 1.0)]

    lines = targets(rows, {side.name: side.title for side in SIDES}).splitlines()

    verdicts = {
        (line.split(" | ")[0].strip("| "), line.split(" | ")[1]): line.split(" | ")[-1].rstrip("| ") for line in lines[2:]
    }
    assert verdicts[("perfnb, msgspec", "CPU / HTA")] == "met"  # 0.2 of the peer's, a third is allowed
    assert verdicts[("perfnb, msgspec", "peak memory / raw")] == "met"  # 90 MB for 60 MB: 1.5, 2.5 are allowed
    assert verdicts[("perfnb, numba", "CPU / HTA")] == "not measured"
    slower = targets([measurement("default", 0, 6.0), measurement("hta", 0, 10.0)], {})
    assert "NOT MET" in slower


def test_a_fresh_process_measures_a_side(tiny: Path) -> None:
    answer = measured("measured.py", ["json", str(tiny), str(tiny)])

    assert isinstance(answer, dict)
    assert answer["rows"] == 8
    assert 0 <= answer["cpu_s"] < 5


def test_a_side_that_is_not_installed_says_so(tiny: Path) -> None:
    assert "no HTA" in str(measured("measured.py", ["hta", str(tiny), str(tiny)]))


def test_a_side_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{")

    with pytest.raises(ChildError, match=r"exit status 1: .*JSONDecodeError"):
        measured("measured.py", ["json", str(tmp_path / "t.json"), str(tmp_path / "t.json")])


def test_the_reading_benchmark_prints_every_side_and_writes_every_measurement(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tiny), "--repeats", "1", "--scale-bytes", "5000", "--out", str(tmp_path / "results.csv")]

    status = trace_reading.main(words)

    printed = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "results.csv")
    assert status == 0
    assert "| tiny.json.gz | 0.0 | perfnb, msgspec |" in printed
    assert "synthetic (repeated in time)" in printed
    assert "HTA: absent (no --peer-python)" in printed
    assert {"default", "json"} <= set(rows["side"])
    assert rows.loc[rows["side"].eq("default"), "rows"].to_list()[1] > 8


def test_a_peer_without_hta_is_absent_not_a_failure(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tiny), "--repeats", "1", "--scale-bytes", "0", "--peer-python", sys.executable]

    assert trace_reading.main(words) == 0
    assert "HTA: absent (this interpreter has no HTA" in capsys.readouterr().out


def test_cost_per_event_is_one_where_it_is_linear() -> None:
    assert per_event(Cost((0.2, 0.1)), 100, Cost((0.4,)), 400) == 1.0


def test_only_answers_that_need_nothing_but_a_run_are_asked() -> None:
    def needs_a_step(run: Run, step: int) -> None: ...
    def has_a_choice(run: Run, by: str = "window", *, top: int = 3) -> None: ...
    def compares(before: Run, after: Run) -> None: ...

    assert [takes_one_run(each) for each in (needs_a_step, has_a_choice, compares)] == [False, True, False]


def test_an_answer_that_is_refused_or_fails_has_no_cost_but_a_reason(tiny: Path) -> None:
    run = read_kineto(tiny)

    def refuses(_run: Run) -> None:
        message = "no steps here"
        raise NoStepsError(message)

    def fails(_run: Run) -> None:
        raise KeyError

    assert trace_analyses.cost(refuses, run, 2) == Cost(refusal="no steps here")
    assert trace_analyses.cost(fails, run, 2).failure.startswith("KeyError")
    assert len(trace_analyses.cost(launches, run, 2).cpu_s) == 2


def test_the_benchmark_of_answers_prints_their_cost_and_linearity(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tiny), "--events", "60", "240", "--repeats", "1", "--only", "device_breakdown", "launches"]

    status = trace_analyses.main(words)

    printed = capsys.readouterr().out
    assert status == 0
    assert "repeated 8 and 30 times: 64 and 240 events" in printed
    assert "| device_breakdown | 0.0" in printed


def test_ranks_read_in_this_process_are_linear_and_counted(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tiny), "--ranks", "1", "2", "--raw-bytes", "3000", "--ways", "in-process"]

    status = trace_ranks.main(words)

    printed = capsys.readouterr().out
    assert status == 0
    assert "| in-process | 2 |" in printed
    assert "2 ranks: tables of all ways equal" in printed


@pytest.mark.slow
def test_a_pool_gives_the_same_tables_as_this_process(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = trace_ranks.main([str(tiny), "--ranks", "2", "--raw-bytes", "3000", "--ways", "in-process", "process pool"])

    assert status == 0
    assert "2 ranks: tables of all ways equal" in capsys.readouterr().out
