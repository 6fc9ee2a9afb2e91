"""Recordings through the simulated allocator: repeated exactly, in less memory, and with other settings."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfnb.errors import ConfigError
from perfnb.prediction import Unknown
from perfnb.read.memory_snapshot import read_memory_snapshot
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.run import Run
from perfnb.tables import table_from_text
from perfnb.whatif.allocator_events import AllocatorEvents, allocator_events
from perfnb.whatif.allocator_replay import compare_settings, predict_allocator, replay_events, smallest_capacity
from perfnb.whatif.recorded_replay import replay_recorded

MIB = 1 << 20
SETTINGS = {
    "default": AllocatorSettings(),
    "max_split": AllocatorSettings(max_split_bytes=24 * MIB),
    "rounding": AllocatorSettings(roundup_power2_divisions=(8,) * 16),
    "expandable": AllocatorSettings(expandable_segments=True),
}
SIZES = st.one_of(
    st.integers(1, 5000), st.integers(1, 3 * MIB), st.integers(MIB, 40 * MIB), st.sampled_from([20 * MIB, 30 * MIB])
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 0, 7])),
        st.tuples(st.sampled_from(["free", "free", "request", "complete"]), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    max_size=50,
)


def _reference() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "reference_allocator", Path(__file__).with_name("reference_allocator.py")
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["reference_allocator"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


REFERENCE = _reference()


def recorded(name: str, steps: list[tuple[str, int, int]], capacity: int | None = None) -> Any:
    """The slow allocator after some steps."""
    allocator = REFERENCE.ReferenceAllocator(SETTINGS[name], capacity)
    live: list[int] = []
    waiting: list[int] = []
    for number, (action, value, stream) in enumerate(steps):
        if action == "malloc":
            live += [number] if allocator.malloc(number, value, stream) is not None else []
        elif action == "empty":
            allocator.empty_cache()
        elif action == "complete" and waiting:
            allocator.complete_free(waiting.pop(value % len(waiting)))
        elif action in ("free", "request") and live:
            key = live.pop(value % len(live))
            allocator.request_free(key)
            if action == "free":
                allocator.complete_free(key)
            else:
                waiting.append(key)
    return allocator


def read(allocator: Any, folder: Path, first_event: int = 0) -> Run:
    path = folder / "snapshot.pickle"
    path.write_bytes(pickle.dumps(allocator.snapshot(first_event), 4))
    return read_memory_snapshot(path)


@pytest.mark.parametrize("name", SETTINGS)
@given(steps=STEPS, capacity=st.sampled_from([None, 100 * MIB]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_recording_by_the_rules_is_repeated_address_by_address(
    tmp_path: Path, name: str, steps: list[tuple[str, int, int]], capacity: int | None
) -> None:
    # the addresses of an expandable segment end with the device's memory, which no recording tells
    allocator = recorded(name, steps, None if name == "expandable" else capacity)
    run = read(allocator, tmp_path)

    replay = replay_recorded(run)

    allocations = [event for event in allocator.events if event["action"] == "alloc"]
    if not allocations:
        assert isinstance(replay, Unknown)
        return
    assert not isinstance(replay, Unknown)
    assert replay.divergence is None
    assert replay.matched == replay.allocations == len(allocations)
    assert replay.peak_reserved_bytes == replay.recorded_peak_reserved_bytes


@pytest.mark.parametrize("name", SETTINGS)
@given(steps=STEPS, share=st.floats(0, 1))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_recording_that_lost_its_start_begins_with_the_state_before_it(
    tmp_path: Path, name: str, steps: list[tuple[str, int, int]], share: float
) -> None:
    allocator = recorded(name, steps)
    first = int(share * len(allocator.events))
    run = read(allocator, tmp_path, first)
    rows = run.allocations

    assert "memory_start_state" not in run.missing
    assert int(rows["sequence"].ge(0).sum()) == len(allocator.events) - first
    if len(rows):
        assert rows["reserved_bytes"].iloc[-1] == allocator.reserved
        assert rows["requested_bytes"].where(rows["action"].eq("alloc") | rows["action"].eq("existing"), 0).sum() >= 0
    replay = replay_recorded(run)
    # whether a block that is gone at the end had a tail cannot always be told: then it diverges, and says where
    assert isinstance(replay, Unknown) or replay.matched <= replay.allocations


def test_whole_blocks_and_totals_are_those_of_the_allocator(tmp_path: Path) -> None:
    steps = [("malloc", 19 * MIB, 0), ("malloc", 100, 0), ("malloc", 30 * MIB, 0), ("free", 0, 0), ("malloc", 18 * MIB, 0)]
    allocator = recorded("default", steps)
    rows = read(allocator, tmp_path).allocations

    # 19 MiB take their segment of 20 whole, as the rest of 1 MiB is not split off; 18 MiB leave 2 of it
    changes = rows.loc[rows["action"].isin(["alloc", "free_requested"]), "bytes"].tolist()
    assert changes == [20 * MIB, 512, 30 * MIB, -20 * MIB, 18 * MIB]
    assert rows["allocated_bytes"].iloc[-1] == 48 * MIB + 512 == allocator.total("used")
    assert rows["reserved_bytes"].iloc[-1] == 52 * MIB


def test_a_recording_by_other_rules_says_where_it_diverges(tmp_path: Path) -> None:
    allocator = recorded("default", [("malloc", 20 * MIB, 0), ("free", 0, 0), ("malloc", 20 * MIB, 0)])
    for event in allocator.events[-1:]:
        event["addr"] += 512  # as no allocator would
    allocator.segments[0].pieces[0].start += 512
    allocator.segments[0].pieces[0].size -= 512
    allocator.segments[0].pieces.insert(0, REFERENCE.Piece(allocator.segments[0].start, 512))

    replay = replay_recorded(read(allocator, tmp_path))

    assert not isinstance(replay, Unknown)
    assert replay.divergence is not None
    assert replay.divergence.what == "another address is predicted"
    assert replay.divergence.recorded == (replay.divergence.predicted or 0) + 512
    assert (replay.matched, replay.allocations) == (1, 2)


REUSING = [("malloc", 30 * MIB, 0), ("free", 0, 0), ("malloc", 10 * MIB, 0)]  # 10 MiB of the free 30


@pytest.mark.parametrize(
    ("changed", "steps", "says"),
    [
        ({"expandable_segments": True}, REUSING, "another new segment is predicted"),  # a range of 40 MiB
        ({"max_split_size_mb": 24}, REUSING, "a new segment is predicted, a cached block was recorded"),
        ({"large_segment_size_mb": 40}, [("malloc", 5 * MIB, 0)] * 2, "another new segment is predicted"),
        ({"large_segment_size_mb": 10}, [("malloc", 9 * MIB, 0)] * 2, "another new segment is predicted"),
    ],
)
def test_other_settings_than_the_recorded_ones_diverge(
    tmp_path: Path, changed: dict[str, Any], steps: list[tuple[str, int, int]], says: str
) -> None:
    run = read(recorded("default", steps), tmp_path)

    replay = replay_recorded(replace(run, config={**run.config, **changed}))

    assert not isinstance(replay, Unknown)
    assert replay.divergence is not None
    assert replay.divergence.what == says
    assert not replay.is_exact


def test_an_expandable_segment_with_a_hole_is_seeded_with_it(tmp_path: Path) -> None:
    steps = [("malloc", 30 * MIB, 0)] * 3 + [("free", 1, 0), ("empty", 0, 0)]
    allocator = recorded("expandable", steps)
    first = len(allocator.events)
    allocator.malloc("later", 12 * MIB)  # the hole from 40 to 60 MiB is mapped again, behind 10 MiB that are free

    run = read(allocator, tmp_path, first)
    replay = replay_recorded(run)

    assert run.allocations["action"].tolist()[-2:] == ["segment_map", "alloc"]
    assert not isinstance(replay, Unknown)
    assert (replay.matched, replay.matched_segments, replay.divergence) == (1, 1, None)


# Less memory


FRAGMENTING = [
    ("malloc", 20 * MIB, 0),  # 0
    ("malloc", 40 * MIB, 0),  # 1
    ("free", 0, 0),
    ("malloc", 5 * MIB, 0),  # in the segment of 20
    ("free", 0, 0),  # the 40
    ("malloc", 60 * MIB, 0),
]


def events_of(steps: list[tuple[str, int, int]], folder: Path) -> AllocatorEvents:
    events = allocator_events(read(recorded("default", steps), folder))
    assert not isinstance(events, Unknown)
    return events


def test_the_smallest_capacity_lies_between_what_is_in_use_and_what_was_reserved(tmp_path: Path) -> None:
    events = events_of(FRAGMENTING, tmp_path)

    required = smallest_capacity(events)

    # reserved 120 MiB; 80 suffice: the segment of 40 is given back for the one of 60, that of 20 holds 5 MiB
    assert events.recorded_reserved_bytes == 120 * MIB
    assert 80 * MIB <= required <= 96 * MIB
    assert replay_events(events, capacity=required).out_of_room is None
    assert replay_events(events, capacity=80 * MIB).out_of_room is None


def test_a_replay_in_too_little_memory_says_when_and_why(tmp_path: Path) -> None:
    events = events_of(FRAGMENTING, tmp_path)

    short = replay_events(events, capacity=62 * MIB).out_of_room
    split = replay_events(events, capacity=76 * MIB).out_of_room

    assert short is not None
    assert split is not None
    last = max(step[5] for step in events.steps)
    assert (short.sequence, split.sequence) == (last, last)
    assert short.error.cause == "shortage"  # 5 in use, 15 in holes, 42 free, 60 wanted: 3 missing
    assert short.error.shortage_bytes == (3 * MIB, 3 * MIB)
    assert split.error.cause == "fragmentation"  # 15 in holes and 56 free are enough for 60, but not in one piece
    assert split.error.verdict.startswith("fragmentation: enough memory in all, with 11.0 MiB to spare")


def test_shares_at_the_allocated_peak_sum_to_one(tmp_path: Path) -> None:
    replay = replay_events(events_of(FRAGMENTING, tmp_path))

    # at the peak 65 MiB are in use of 120: 15 in holes, 40 cached
    assert replay.efficiency_share == pytest.approx(65 / 120)
    assert replay.holes_share == pytest.approx(15 / 120)
    assert replay.cache_share == pytest.approx(40 / 120)
    assert replay.rounding_share == 0


def test_memory_that_another_stream_uses_is_held_until_it_is_done(tmp_path: Path) -> None:
    late = events_of([("malloc", 20 * MIB, 0), ("request", 0, 0), ("malloc", 20 * MIB, 0), ("complete", 0, 0)], tmp_path)
    soon = events_of([("malloc", 20 * MIB, 0), ("free", 0, 0), ("malloc", 20 * MIB, 0)], tmp_path)

    assert replay_events(late).peak_reserved_bytes == 40 * MIB
    assert replay_events(soon).peak_reserved_bytes == 20 * MIB


def test_a_request_that_failed_counts_for_what_is_required(tmp_path: Path) -> None:
    allocator = recorded("default", [("malloc", 20 * MIB, 0), ("malloc", 90 * MIB, 0)], capacity=100 * MIB)
    run = read(allocator, tmp_path)
    events = allocator_events(run)

    assert not isinstance(events, Unknown)
    assert smallest_capacity(events) == 110 * MIB
    assert "ran out of memory at event 2: a true shortage of 10.0 MiB" in " ".join(run.notes)


# Other settings


def growing(folder: Path) -> Run:
    """Batches that get longer: each block is a little too large for the last hole."""
    steps = []
    for size in range(20, 60, 4):
        steps += [("malloc", size * MIB, 0), ("malloc", 3 * MIB, 0), ("free", 0, 0)]
    return read(recorded("default", steps), folder)


def test_a_change_of_settings_is_predicted_as_a_difference_of_two_replays(tmp_path: Path) -> None:
    run = growing(tmp_path)

    found = predict_allocator(run, {"expandable_segments": True})

    assert not isinstance(found, Unknown)
    assert found.before_reserved_bytes == run.allocations["reserved_bytes"].max()
    assert found.after_reserved_bytes - found.before_reserved_bytes == (
        found.after.peak_reserved_bytes - found.before.peak_reserved_bytes
    )
    assert found.after_reserved_bytes < found.before_reserved_bytes
    assert found.unvalidated == ("expandable_segments",)
    assert not found.is_validated
    assert found.after_required_bytes is None


def test_settings_are_compared_in_one_table(tmp_path: Path) -> None:
    table = compare_settings(
        growing(tmp_path),
        {
            "as it is": {},
            "expandable": {"expandable_segments": True},
            "capped": {"garbage_collection_threshold": 0.8, "memory_fraction": 0.9},
        },
        capacity_bytes=1 << 30,
    )

    assert not isinstance(table, Unknown)
    assert table["setting"].tolist() == ["as it is", "expandable", "capped"]
    assert table["reserved_change_bytes"].iloc[0] == 0
    assert table["reserved_change_bytes"].iloc[1] < 0
    assert not table["is_validated"].any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_workers": 2}, "no setting of the allocator: num_workers"),
        ({"memory_fraction": 0.5}, "which the snapshot does not tell"),
        ({"garbage_collection_threshold": 0.5}, "without a memory fraction the threshold has no effect"),
    ],
)
def test_what_cannot_be_predicted_says_why(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    found = predict_allocator(growing(tmp_path), changes)

    assert isinstance(found, Unknown)
    assert says in found.reason


@pytest.mark.parametrize("changes", [{"max_split_size_mb": "many"}, {"garbage_collection_threshold": [1]}])
def test_a_value_that_the_allocator_cannot_have_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} of the allocator cannot be"):
        predict_allocator(growing(tmp_path), changes)


def test_a_trace_of_the_profiler_is_not_enough() -> None:
    run = Run(allocations=table_from_text("allocations", "rank device time_us bytes\n0 0 1 512"))

    found = allocator_events(run)

    assert isinstance(found, Unknown)
    assert "memory snapshot" in found.needs
    assert isinstance(allocator_events(Run()), Unknown)
    assert isinstance(allocator_events(run, device=3), Unknown)
    assert isinstance(predict_allocator(run, {}), Unknown)
    assert isinstance(compare_settings(run, {"a": {}}), Unknown)
    assert isinstance(replay_recorded(run), Unknown)
