"""Many ranks, each summarised where its file lies: the same tables by every executor, and no rank lost in silence."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from perfnb import read_trace
from perfnb.analyses import arrivals, bus_bandwidth, idle_gaps, kernel_summary, launch_statistics, stragglers
from perfnb.device_time import device_breakdown
from perfnb.errors import PerfnbError, RankConflictError, TraceFormatError, TruncatedTraceWarning
from perfnb.ledger import step_ledger
from perfnb.run import Run
from perfnb.summarize import Analysis, RankSummary, summarize_ranks

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


def job(folder: Path) -> Path:
    """Two ranks whose clocks' bases differ by 5 ms; the device runs a step behind the host."""
    for rank, base in ((0, 1_000_000_000), (1, 1_005_000_000)):
        events = [
            {"ph": "X", "cat": "user_annotation", "name": f"ProfilerStep#{n}", "pid": 1, "tid": 1, "ts": 100 * n, "dur": 100}
            for n in range(4)
        ]
        for n in range(4):
            call = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 100 * n + 5, "dur": 3}
            kernel = {
                "ph": "X",
                "cat": "kernel",
                "name": "ncclKernel_AllReduce",
                "pid": 0,
                "tid": 7,
                "ts": 100 * n + 120,
                "dur": 30,
            }
            events.append(call | {"args": {"correlation": n + 1}})
            events.append(kernel | {"args": {"device": 0, "stream": 7, "correlation": n + 1}})
        document = {"distributedInfo": {"rank": rank, "world_size": 2}, "baseTimeNanoseconds": base, "traceEvents": events}
        (folder / f"rank{rank}.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("analysis", [step_ledger, idle_gaps, launch_statistics, bus_bandwidth], ids=lambda each: each.__name__)
def test_no_duration_depends_on_the_clock_of_a_rank(tmp_path: Path, analysis: Analysis) -> None:
    folder = job(tmp_path)

    together = summarize_ranks(folder, analyses=[analysis]).frames[analysis.__name__]

    for rank in (0, 1):
        alone = analysis(read_trace(folder / f"rank{rank}.json"))
        own = together[together["rank"].eq(rank)].reset_index(drop=True)
        pd.testing.assert_frame_equal(own.astype("object"), alone.reset_index(drop=True).astype("object"), check_dtype=False)


def test_calls_of_a_summary_keep_the_step_of_their_launch(tmp_path: Path) -> None:
    folder = job(tmp_path)

    whole = arrivals(read_trace(folder))
    summarized = arrivals(summarize_ranks(folder).run)

    pd.testing.assert_frame_equal(whole, summarized)
    assert whole["step"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] or whole.empty


def test_a_summary_says_where_its_large_tables_are(tmp_path: Path) -> None:
    run = summarize_ranks(job(tmp_path)).run

    assert "left where the files lie" in run.missing["device_ops"]
    assert "device_ops" not in run.signals
    assert "collectives" in run.signals


class NoBatchError(Exception):
    """An exception that pickles and cannot be unpickled."""

    def __init__(self, rank: int, why: str) -> None:
        super().__init__(f"{rank}: {why}")


def raises_what_cannot_travel(run: Run) -> pd.DataFrame:
    if run.source[0] == "rank1.json":
        raise NoBatchError(1, "odd")
    return device_breakdown(run)


def test_an_exception_that_cannot_travel_fails_its_own_rank_only(tmp_path: Path) -> None:
    summary = summarize_ranks(job(tmp_path), analyses=[raises_what_cannot_travel])

    assert summary.run.ranks == (0,)
    assert dict(summary.failed) == {"rank1.json": "NoBatchError: 1: odd"}


def test_threads_leave_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    folder = job(tmp_path)
    before = list(warnings.filters)

    with ThreadPoolExecutor(4) as pool:
        summarize_ranks(folder, executor=pool)

    assert warnings.filters == before
