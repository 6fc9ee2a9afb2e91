"""Communication: transfers without waiting, what the config alone tells, and what a window of another rank must not do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.analyses.gradient_syncs import repeated_syncs
from perfnb.analyses.size_model import SizeModel, size_model
from perfnb.analyses.transfers import transfers
from perfnb.catalogue import detectors
from perfnb.detector import ConfigHint, Detector, Unmeasured
from perfnb.run import Run
from perfnb.tables import table_from_text


def named(name: str) -> Detector:
    return next(each for each in detectors() if each.name == name)


def bare(**config: object) -> Run:
    """A recorded run without a profiler's window: two ranks, 4 micro-batches a step, with this config."""
    run = named("redundant_gradient_sync").examples[0].run
    return dataclasses.replace(run, config=config, signals=frozenset({"steps", "phases"}))


@pytest.mark.corpus
def test_the_waiting_of_eight_ranks_is_what_the_corpus_says(corpus: Path) -> None:
    found = transfers(perfnb.read_trace(corpus / "traces/param/dlrm_8rank"))

    assert len(found) == 8 * 8
    assert found["wait_us"].sum() == pytest.approx(46_843, rel=0.01)  # by durations here, by arrivals there
    assert not found["is_lower_bound"].any()


def test_the_shortest_duration_over_the_ranks_is_the_transfer_and_ends_the_call() -> None:
    calls = """rank group collective group_size bytes start_us duration_us clock
               0    dp    all_reduce 2          100   10       50          device
               1    dp    all_reduce 2          100   40       20          device"""
    steps = "rank step start_us duration_us\n0 1 0 100\n1 1 0 100"

    found = transfers(Run(steps=table_from_text("steps", steps), collectives=table_from_text("collectives", calls)))

    assert found["transfer_us"].to_list() == [20, 20]
    assert found["wait_us"].to_list() == [30, 0]
    assert found["start_us"].to_list() == [40, 40]
    assert found["bus_bytes"].to_list() == [100, 100]


def test_windows_that_begin_at_another_step_on_each_rank_do_not_match_calls_of_two_steps() -> None:
    steps = table_from_text(
        "steps", "rank step start_us duration_us\n" + "\n".join(f"{r} {s} {100 * s} 100" for r in (0, 1) for s in (1, 2, 3))
    )
    rows = [(0, 1, 0), (0, 2, 1), (1, 2, 0), (1, 3, 1)]  # rank, step, place in its own trace
    calls = table_from_text(
        "collectives",
        "rank group sequence collective bytes start_us duration_us clock\n"
        + "\n".join(f"{rank} gloo {place} all_reduce 100 {100 * step + 10} {10 * step} host" for rank, step, place in rows),
    )

    found = transfers(Run(steps=steps, collectives=calls))

    assert found[["rank", "step", "transfer_us"]].to_numpy().tolist() == [[0, 2, 20], [1, 2, 20]]


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([], "calls of no sizes, 3 are needed"),
        ([100], "calls of 1 size, 3 are needed"),
        ([100, 200], "calls of 2 sizes, 3 are needed"),
        ([100, 120, 140], "sizes of calls differ by 40% only"),
    ],
)
def test_too_few_or_too_near_sizes_give_no_model(sizes: list[int], reason: str) -> None:
    assert reason in str(size_model(np.array(sizes, dtype=float), np.ones(len(sizes))))


def test_times_that_do_not_follow_the_size_give_no_model() -> None:
    assert "do not follow their size" in str(size_model(np.array([100.0, 200, 400, 800]), np.array([1.0, 90, 2, 95])))


def test_a_line_through_zero_has_no_fixed_time_and_a_flat_one_nothing_else() -> None:
    through_zero = size_model(np.array([100.0, 200, 400]), np.array([10.0, 20, 40]))
    falling = size_model(np.array([100.0, 200, 400]), np.array([12.0, 11, 10]))

    assert isinstance(through_zero, SizeModel)
    assert through_zero.alpha_us == pytest.approx(0.0, abs=1e-9)
    assert isinstance(falling, SizeModel)
    assert np.isinf(falling.bytes_per_us)
    assert falling.fixed_share(np.array([100.0])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "config", "hint"),
    [
        ("host_staged_collectives", {"backend": "gloo", "device": "cuda"}, "backend is gloo with tensors on a GPU"),
        ("single_process_parallelism", {"parallelism": "dp"}, "parallelism is dp: one process drives all devices"),
        ("redundant_gradient_sync", {"sync_every_micro_batch": True, "gradient_accumulation_steps": 8}, "7 of 8 exchanges"),
        ("redundant_gradient_sync", {"sync_every_micro_batch": True}, "3 of 4 exchanges"),
        ("redundant_gradient_sync", {"find_unused_parameters": True}, "DDP searches the graph in each forward"),
    ],
)
def test_the_config_alone_gives_a_hint(name: str, config: dict[str, object], hint: str) -> None:
    found = named(name)

    with pytest.raises(ConfigHint, match=hint):
        found.evidence(bare(**config))


@pytest.mark.parametrize("name", ["host_staged_collectives", "single_process_parallelism", "redundant_gradient_sync"])
def test_without_a_window_and_without_a_sign_in_the_config_the_window_is_asked_for(name: str) -> None:
    found = named(name)

    with pytest.raises(Unmeasured, match=r"record\(trace=5\)"):
        found.evidence(bare())


def test_a_search_that_was_seen_is_hinted_at_with_its_time() -> None:
    found = named("redundant_gradient_sync")
    run = found.examples[2].run
    search = table_from_text(
        "host_ops",
        """rank process thread category name                                                       start_us duration_us
           0    1       1      operator torch.distributed.ddp.reducer::search_unused_parameters 5        6""",
    )
    host = pd.concat([run.host_ops.astype({"name": object}), search.astype({"name": object})]).astype({"name": "category"})

    with pytest.raises(ConfigHint, match=r"in each forward for 6\.00 us"):
        found.evidence(dataclasses.replace(run, host_ops=host, config={"find_unused_parameters": True}))


def test_calls_of_one_size_without_ranges_of_ddp_are_ambiguous() -> None:
    steps = table_from_text("steps", "rank step start_us duration_us micro_batches\n0 1 0 100 2")
    calls = table_from_text(
        "collectives",
        """rank group collective group_size bytes start_us duration_us clock
           0    dp    all_reduce 2          100   40       5           device
           0    dp    all_reduce 2          100   90       5           device""",
    )
    run = Run(steps=steps, collectives=calls)

    assert "calls of one size" in str(repeated_syncs(run, transfers(run), None))


def test_a_link_that_is_not_known_is_asked_for() -> None:
    found = named("slow_interconnect")
    run = dataclasses.replace(found.examples[0].run, machine=perfnb.Run().machine)

    with pytest.raises(Unmeasured, match="which link the ranks use is not known"):
        found.evidence(run)


def test_ranks_whose_exchange_nobody_saw_are_not_cleared_of_communication() -> None:
    steps, phases = (
        "rank step start_us duration_us\n0 1 0 100\n1 1 0 100",
        "rank step phase wall_us\n0 1 forward 100\n1 1 forward 100",
    )
    run = Run(
        steps=table_from_text("steps", steps),
        phases=table_from_text("phases", phases),
        signals=frozenset({"steps", "phases"}),
        world_size=2,
    )

    with pytest.raises(Unmeasured, match=r"nothing was seen of what the ranks exchange: record\(trace=5\) on every rank"):
        named("exposed_communication").evidence(run)
    assert named("exposed_communication").evidence(dataclasses.replace(run, world_size=1)).empty
