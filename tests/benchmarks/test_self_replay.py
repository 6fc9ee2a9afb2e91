"""The table of unchanged replays: every trace is there, replayed within half a percent or refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.self_replay import LARGEST_ERROR, SAMPLES, Replayed, main, replayed, table, traces


def test_ranks_of_one_job_are_one_trace() -> None:
    found = dict(traces(Path("nowhere"), SAMPLES))

    assert [path.name for path in found["slow_rank"]] == ["rank0.pt.trace.json.gz", "rank1.pt.trace.json.gz"]


def test_a_cpu_job_is_modelled_from_its_phases() -> None:
    files = dict(traces(Path("nowhere"), SAMPLES))["slow_loader"]

    (row,) = replayed("slow_loader", files)

    assert not row.refused
    assert row.error <= LARGEST_ERROR
    assert row.steps > 1


def test_the_table_counts_what_was_refused() -> None:
    told = table([Replayed("one", 5, 0.001, 0.0), Replayed("two", refused="no steps")])

    assert told.splitlines()[-1] == "2 ranks of traces, 1 refused, 1 replayed, 1 within 0.5%; worst 0.1000%"
    assert "refused: no steps" in told


def test_nothing_to_replay_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpus", str(tmp_path), "--samples", str(tmp_path)]) == 2
    assert "PERFNB_CORPUS" in capsys.readouterr().out


@pytest.mark.corpus
def test_steps_of_a_device_job_are_replayed_exactly(corpus: Path) -> None:
    found = dict(traces(corpus, Path("nowhere")))
    name = next(name for name in found if "event_sync_trace.json" in name)

    (row,) = replayed(name, found[name])

    assert row.error <= LARGEST_ERROR


@pytest.mark.corpus
def test_ranks_without_launches_are_refused_each_for_itself(corpus: Path) -> None:
    rows = replayed("param/dlrm_8rank", dict(traces(corpus, Path("nowhere")))["param/dlrm_8rank"])

    assert [bool(row.refused) for row in rows] == [False, True, False, True, False, False, False, False]
    assert all("no launch call" in row.refused for row in rows if row.refused)
