"""The benchmark of overhead: what it counts and times is there, its shares are those of its blocks, and its claims are earned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import overhead  # noqa: E402 - torch decides whether there is anything to test
from benchmarks.recording import interleaved as timing  # noqa: E402
from benchmarks.recording.background import BackgroundCost, background_cost  # noqa: E402
from benchmarks.recording.direct import CallsOnly, DirectCost, SmallLoop, direct_cost  # noqa: E402
from benchmarks.recording.interleaved import CONTROL, RECORDER, SIDES, Added, added, interleaved  # noqa: E402
from benchmarks.recording.report import added_table, background_table, direct_table, verdicts  # noqa: E402
from benchmarks.recording.statistics import Interval, median_interval  # noqa: E402
from benchmarks.recording.workload import Taken, Workload  # noqa: E402

pytestmark = pytest.mark.torch

NOTHING = Interval(0.0, -0.002, 0.002)


def block(own_ms: float) -> Taken:
    """Five steps, of which the last was disturbed and one waited for a core."""
    own = np.array([own_ms] * 4 + [10 * own_ms])
    return Taken(own + np.array([0.0, 0.0, 5.0, 0.0, 0.0]), own)


def timed(side: str, own: Interval, rounds: int = 12) -> Added:
    """A line of the table for steps of 50 ms."""
    return Added(side, 50.0, 50.0, own, own, own, rounds, 100)


def said(own: Interval, control: Interval = NOTHING, rounds: int = 12, hooks_us: float = 20.0, core_share: float = 0.004) -> str:
    """The verdict on one length of step."""
    direct = DirectCost("a loop", 100.0, Interval(hooks_us, hooks_us, hooks_us), 8.0, 3.0, 100)
    background = BackgroundCost(20, 20.0, core_share, 0.01, 20.0)
    return verdicts([direct], [background], [timed(RECORDER, own, rounds), timed(CONTROL, control, rounds)])[0].split(": ")[1]


def test_the_interval_of_a_median_holds_it_and_is_the_same_each_time() -> None:
    values = np.random.default_rng(7).normal(3.0, 1.0, 50)

    first, second = median_interval(values), median_interval(values)

    assert first == second
    assert first.low < first.value == float(np.median(values)) < first.high


def test_shares_are_those_of_the_blocks_with_over_those_without() -> None:
    rounds = [[block(10.0), block(11.0), block(11.0), block(10.0)]] * 3

    found = added("a tool", 10.0, rounds)

    assert found.own.value == pytest.approx(0.1)
    assert found.mean.value == pytest.approx(0.1)
    assert (found.plain_ms, found.rounds, found.steps) == (10.0, 3, 30)


def test_a_drift_over_a_round_is_no_cost() -> None:
    found = added("a tool", 10.0, [[block(10.0), block(11.0), block(12.0), block(13.0)]] * 3)

    assert found.own.value == pytest.approx(0.0)


def test_one_percent_is_claimed_only_where_counting_and_timing_carry_it() -> None:
    assert said(Interval(0.003, -0.001, 0.008)) == "<= 1 %"
    assert said(Interval(0.003, -0.001, 0.008), core_share=0.02).endswith("no claim")
    assert said(Interval(0.003, -0.001, 0.008), hooks_us=600.0).endswith("no claim")


def test_what_the_machine_cannot_resolve_is_said() -> None:
    unresolved = "this machine cannot resolve 1 %"

    assert said(Interval(0.003, -0.03, 0.04)) == unresolved
    assert said(Interval(0.03, 0.02, 0.04), control=Interval(0.02, 0.01, 0.03)) == unresolved
    assert said(Interval(0.003, -0.001, 0.008), rounds=2) == unresolved
    assert said(Interval(0.03, 0.02, 0.04)) == "more than 1 %"


@pytest.mark.parametrize("loop", [CallsOnly(), SmallLoop()], ids=["calls", "training"])
def test_hooks_are_counted_with_all_their_marks(loop: CallsOnly | SmallLoop) -> None:
    cost = direct_cost(loop, 3)

    assert cost.marks == pytest.approx(8.0, abs=0.1)  # data, forward, backward: two each; optimizer, and the edge
    assert cost.notes == pytest.approx(3.0, abs=0.1)  # batch, loss, learning rate
    assert 0 < cost.added_us.high < 1000  # of three pairs: on a busy machine one may say less than nothing
    assert cost.steps == 600


def test_the_background_thread_is_counted_while_something_trains() -> None:
    cost = background_cost(20, 0.5)

    assert 0 < cost.core_share < 0.5
    assert cost.made_per_s == pytest.approx(20, rel=0.5)


def test_every_side_is_timed_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_FIRST_MS", 0.0)
    workload = Workload(1.0, 8)
    next_batch = torch.utils.data.dataloader._BaseDataLoaderIter.__next__

    found = interleaved(workload, tuple(SIDES), 2, 4)

    assert [(one.side, one.rounds, one.steps) for one in found] == [(side, 2, 16) for side in SIDES]
    assert torch.utils.data.dataloader._BaseDataLoaderIter.__next__ is next_batch


def test_the_program_prints_its_tables_and_writes_its_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny = overhead.Effort(2, 0.1, (1, 1), (2, 1), (RECORDER, CONTROL))
    monkeypatch.setattr(overhead, "QUICK", tiny)
    monkeypatch.setattr(overhead, "_TARGETS_MS", (1.0, 2.0))
    monkeypatch.setattr(timing, "_FIRST_MS", 0.0)

    status = overhead.main(["--quick", "-o", str(tmp_path / "overhead.json")])
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "overhead.json").read_text())

    assert status == 0
    assert "did not run (no --traceml-python)" in printed
    assert len(told["added"]) == 4
    assert len(told["verdicts"]) == 2
    assert all("this machine cannot resolve 1 %" in verdict for verdict in told["verdicts"])


def test_tables_show_targets_met_and_missed() -> None:
    met = DirectCost("a loop", 100.0, Interval(15.0, 14.0, 16.0), 8.0, 3.0, 100)
    missed = DirectCost("another", 100.0, Interval(30.0, 25.0, 35.0), 8.0, 3.0, 100)

    direct = direct_table([met, missed])
    background = background_table([BackgroundCost(0, 0.0, 0.004, 0.01, 20.0), BackgroundCost(200, 199.7, 0.01, 0.01, 20.0)])

    assert "| a loop | 100.0 | 15.0 us (14.0 to 16.0) | <= 20 us | met |" in direct
    assert "| another | 100.0 | 30.0 us (25.0 to 35.0) | <= 20 us | NOT MET |" in direct
    assert "| nothing trains | 20 | 0.40% | <= 0.5% | met |" in background
    assert "| 200 steps/s | 20 | 1.00% | <= 0.5% | NOT MET |" in background
    assert "+0.5% (+0.1% to +0.9%)" in added_table([timed(RECORDER, Interval(0.005, 0.001, 0.009))])
