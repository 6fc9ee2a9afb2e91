"""Many ranks, each summarised where its file lies: the same tables by every executor, and no rank lost in silence."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from perfnb import read_trace
from perfnb.analyses import kernel_summary, stragglers
from perfnb.device_time import device_breakdown
from perfnb.errors import PerfnbError, RankConflictError, TraceFormatError, TruncatedTraceWarning
from perfnb.run import Run
from perfnb.summarize import RankSummary, summarize_ranks

DLRM = "traces/param/dlrm_8rank"


def same(one: RankSummary, other: RankSummary) -> bool:
    for name, frame in one.frames.items():
        pd.testing.assert_frame_equal(frame, other.frames[name])
    for table in ("steps", "phases", "collectives"):
        pd.testing.assert_frame_equal(getattr(one.run, table), getattr(other.run, table))
    return one.run.notes == other.run.notes and dict(one.failed) == dict(other.failed)


@pytest.fixture
def dask_executor() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'perfnb[dask]'")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


@pytest.fixture
def ranks(corpus: Path, tmp_path: Path) -> Path:
    """Copies of the eight ranks, so that a test may damage some of them."""
    return Path(shutil.copytree(corpus / DLRM, tmp_path / "ranks"))


@pytest.mark.corpus
def test_a_spawned_pool_gives_the_tables_of_one_process(corpus: Path) -> None:
    alone = summarize_ranks(corpus / DLRM)

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pooled = summarize_ranks(corpus / DLRM, executor=pool)

    assert same(alone, pooled)


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # distributed warns of ports in use and of its own event loop
def test_dask_workers_give_the_tables_of_one_process(corpus: Path, dask_executor: Executor) -> None:
    alone = summarize_ranks(corpus / DLRM)

    spread = summarize_ranks(corpus / DLRM, executor=dask_executor)

    assert same(alone, spread)


@pytest.mark.corpus
def test_summaries_stand_on_the_clock_of_the_whole_run(corpus: Path) -> None:
    whole = read_trace(corpus / DLRM)

    summary = summarize_ranks(corpus / DLRM)

    pd.testing.assert_frame_equal(summary.run.steps, whole.steps)
    pd.testing.assert_frame_equal(summary.run.collectives, whole.collectives)
    pd.testing.assert_frame_equal(summary.frames["device_breakdown"], device_breakdown(whole))
    assert summary.run.host_ops.empty
    assert summary.run.device_ops.empty


@pytest.mark.corpus
def test_stragglers_of_a_summary_are_those_of_the_run(corpus: Path) -> None:
    whole = stragglers(read_trace(corpus / DLRM))

    summarized = stragglers(summarize_ranks(corpus / DLRM).run)

    pd.testing.assert_frame_equal(whole, summarized)


@pytest.mark.corpus
def test_a_failed_rank_is_named_and_the_others_go_on(ranks: Path) -> None:
    broken = sorted(ranks.iterdir())[3]
    broken.write_text('{"distributedInfo": {"rank": 3}, "traceEvents": [{"ph": "X", oops}, {"ph": "X"}]}')

    summary = summarize_ranks(ranks)

    assert summary.run.ranks == (0, 1, 2, 4, 5, 6, 7)
    assert list(summary.failed) == [broken.name]
    assert "malformed in event 1" in summary.failed[broken.name]
    assert any("7 of 8 ranks" in note for note in summary.run.notes)
    assert summary.frames["device_breakdown"]["rank"].tolist() == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.corpus
def test_an_analysis_that_fails_on_a_rank_fails_that_rank_alone(ranks: Path) -> None:
    summary = summarize_ranks(ranks, analyses=[fails_on_rank_two])

    assert summary.run.ranks == (0, 1, 3, 4, 5, 6, 7)
    assert list(summary.failed.values()) == ["ZeroDivisionError: rank 2"]


@pytest.mark.corpus
def test_a_rank_cut_off_is_read_up_to_there_with_a_warning(ranks: Path) -> None:
    cut = sorted(ranks.iterdir())[5]
    cut.write_bytes(cut.read_bytes()[:400_000])

    with pytest.warns(TruncatedTraceWarning, match=cut.name):
        summary = summarize_ranks(ranks)

    assert not summary.failed
    assert any(cut.name in note and "ends early" in note for note in summary.run.notes)


@pytest.mark.corpus
def test_two_files_of_one_rank_are_a_conflict(ranks: Path) -> None:
    first = sorted(ranks.iterdir())[0]
    shutil.copy(first, ranks / "again.json")

    with pytest.raises(RankConflictError, match="both rank 0"):
        summarize_ranks(ranks)


@pytest.mark.corpus
def test_a_pattern_chooses_ranks(corpus: Path) -> None:
    summary = summarize_ranks(corpus / DLRM / "worker[01]_*.json", analyses=[kernel_summary])

    assert summary.run.ranks == (0, 1)
    assert list(summary.frames) == ["kernel_summary"]


def test_files_that_are_no_traces_are_an_error_that_names_each(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps([]).encode()))

    with pytest.raises(TraceFormatError, match=r"none of 2 files can be summarised: .*b\.json\.gz.*a\.json"):
        summarize_ranks(tmp_path)


def test_two_analyses_of_one_name_are_refused() -> None:
    with pytest.raises(PerfnbError, match="different names"):
        summarize_ranks("data/samples/slow_rank", analyses=[device_breakdown, device_breakdown])


def fails_on_rank_two(run: Run) -> pd.DataFrame:
    if run.source[0].startswith("worker2"):
        message = "rank 2"
        raise ZeroDivisionError(message)
    return device_breakdown(run)
