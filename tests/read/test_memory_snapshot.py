"""Memory snapshots as table allocations: rows, whole blocks, the state before the first event, and files that are none."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfnb
from benchmarks.gpu.stages.memory import frameless
from perfnb.analyses.memory_timeline import memory_peaks, memory_timeline
from perfnb.errors import PerfnbError, SnapshotFormatError, UnsafePickle
from perfnb.read.memory_snapshot.frames import Stacks
from perfnb.read.memory_snapshot.plain_pickle import Limits
from perfnb.run import Run

MIB = 1 << 20
BASE = 0x7F00_0000_0000
FRAMES = [
    {"name": "torch::unwind::unwind()", "filename": "??", "line": 0},
    {"name": "forward", "filename": "model.py", "line": 12},
    {"name": "main", "filename": "train.py", "line": 3},
]
SETTINGS = {
    "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64",
    "max_split_size": 64 * MIB,
    "garbage_collection_threshold": 0.0,
    "expandable_segments": False,
    "roundup_power2_divisions": {str(1 << place): 0 for place in range(16)},
}


def event(action: str, address: int, size: int, time_us: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": time_us, **more}


def snapshot() -> dict[str, Any]:
    """A small segment with two blocks at its end; a block of 700 bytes was freed, one of 600 is there from before."""
    blocks = [
        {"address": BASE, "size": 1024, "requested_size": 600, "state": "active_allocated", "frames": []},
        {"address": BASE + 1024, "size": 512, "requested_size": 10, "state": "active_allocated", "frames": FRAMES},
        {"address": BASE + 1536, "size": 2 * MIB - 1536, "requested_size": 0, "state": "inactive"},
    ]
    return {
        "segments": [
            {
                "device": 0,
                "address": BASE,
                "total_size": 2 * MIB,
                "allocated_size": 1536,
                "active_size": 1536,
                "stream": 0,
                "segment_type": "small",
                "segment_pool_id": (0, 0),
                "is_expandable": False,
                "blocks": blocks,
            }
        ],
        "device_traces": [
            [
                event("free_requested", BASE + 1024, 700, 5_000),
                event("free_completed", BASE + 1024, 700, 5_000),
                event("alloc", BASE + 1024, 10, 5_007, frames=FRAMES),
            ]
        ],
        "allocator_settings": SETTINGS,
        "external_annotations": [],
    }


def read(folder: Path, plain: Any, **options: Any) -> Run:
    path = folder / "rank0.pickle"
    path.write_bytes(pickle.dumps(plain, 4))
    return perfnb.read_memory_snapshot(path, **options)


def _changed(**values: Any) -> dict[str, Any]:
    return snapshot() | values


def _segment(**values: Any) -> dict[str, Any]:
    plain = snapshot()
    plain["segments"][0] |= values
    return plain


def test_rows_hold_the_state_before_the_first_event_and_then_every_event(tmp_path: Path) -> None:
    rows = read(tmp_path, snapshot(), rank=3).allocations

    columns = ["sequence", "action", "address", "bytes", "requested_bytes", "allocated_bytes", "reserved_bytes"]
    assert rows[columns].astype(object).where(rows[columns].notna(), None).to_numpy().tolist() == [
        [-3, "segment_existing", BASE, 2 * MIB, None, 0, 2 * MIB],
        [-2, "existing", BASE, 1024, 600, 1024, 2 * MIB],
        [-1, "existing", BASE + 1024, 1024, 700, 2048, 2 * MIB],
        [0, "free_requested", BASE + 1024, -1024, 700, 1024, 2 * MIB],
        [1, "free_completed", BASE + 1024, 0, 700, 1024, 2 * MIB],
        [2, "alloc", BASE + 1024, 512, 10, 1536, 2 * MIB],
    ]
    assert rows["time_us"].tolist()[3:] == [0, 0, 7]
    assert rows["time_us"].isna().tolist() == [True] * 3 + [False] * 3
    assert set(rows["rank"]) == {3}
    assert set(rows["device"]) == {0}
    assert set(rows["pool"]) == {"small"}
    assert rows["stack"].tolist()[5] == "model.py:12:forward;train.py:3:main"  # the recorder's own frame is left out


def test_settings_stand_in_the_config_under_the_names_of_knobs(tmp_path: Path) -> None:
    run = read(tmp_path, snapshot())

    assert run.config["max_split_size_mb"] == 64
    assert run.config["expandable_segments"] is False
    assert run.signals == {"allocations"}
    assert run.notes == ()
    assert run.source == ("rank0.pickle",)


def test_without_settings_nothing_is_claimed(tmp_path: Path) -> None:
    plain = snapshot()
    del plain["allocator_settings"]

    run = read(tmp_path, plain)

    assert run.config == {}
    assert "the snapshot does not tell the allocator's settings: torch's defaults are assumed" in run.notes


def test_the_form_without_frames_gives_the_same_rows(tmp_path: Path) -> None:
    from_pickle = read(tmp_path, snapshot()).allocations
    path = tmp_path / "gpt.snapshot.json.gz"
    path.write_bytes(gzip.compress(json.dumps(frameless(snapshot())).encode()))

    from_json = perfnb.read_memory_snapshot(path).allocations

    for column in set(from_pickle.columns) - {"time_us", "stack"}:
        assert from_json[column].astype(object).equals(from_pickle[column].astype(object)), column


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_gzip_are_read(tmp_path: Path, protocol: int) -> None:
    for content in (pickle.dumps(snapshot(), protocol), gzip.compress(pickle.dumps(snapshot(), protocol))):
        path = tmp_path / "any name"
        path.write_bytes(content)

        assert len(perfnb.read_memory_snapshot(path).allocations) == 6


def test_old_snapshots_without_requested_sizes_times_and_addresses_of_blocks_are_read(tmp_path: Path) -> None:
    plain = snapshot()
    for block in plain["segments"][0]["blocks"]:
        del block["requested_size"], block["address"]
    for row in plain["device_traces"][0]:
        del row["time_us"]

    rows = read(tmp_path, plain).allocations

    assert rows["time_us"].isna().all()
    assert rows["bytes"].tolist() == [2 * MIB, 1024, 1024, -1024, 0, 512]


def test_a_block_that_waits_for_another_stream_is_active_and_not_allocated(tmp_path: Path) -> None:
    plain = snapshot()
    plain["device_traces"] = [[event("free_completed", BASE + 1024, 10, 9)]]
    plain["segments"][0]["blocks"][1:] = [
        {"address": BASE + 1024, "size": 2 * MIB - 1024, "requested_size": 0, "state": "inactive"}
    ]

    rows = read(tmp_path, plain).allocations

    assert rows["action"].tolist() == ["segment_existing", "existing", "existing", "free_requested", "free_completed"]
    assert rows["sequence"].tolist() == [-4, -3, -2, -1, 0]
    assert rows["allocated_bytes"].tolist() == [0, 1024, 1536, 1024, 1024]


def test_events_that_contradict_the_end_leave_totals_unknown(tmp_path: Path) -> None:
    plain = snapshot()
    plain["device_traces"][0][2]["size"] = 11

    run = read(tmp_path, plain)

    said = f"device 0: events and state at the end disagree at event 2 (alloc at {BASE + 1024:#x})"
    assert run.missing["memory_start_state"] == said
    assert run.allocations["allocated_bytes"].isna().all()
    assert run.allocations["action"].tolist() == ["free_requested", "free_completed", "alloc"]


@pytest.mark.parametrize(
    "impossible",
    [
        event("alloc", BASE + 4096, 10, 1),  # nothing is there at the end
        event("free_requested", BASE, 600, 1),  # it is still in use
        event("free_completed", BASE, 600, 1),
        event("segment_alloc", BASE, 20 * MIB, 1),  # the segment has another size
        event("segment_free", BASE, 2 * MIB, 1),  # it is still there
        event("segment_map", BASE - 1, 512, 1),  # nothing is mapped there
    ],
)
def test_each_event_that_cannot_have_been_last_is_named(tmp_path: Path, impossible: dict[str, Any]) -> None:
    run = read(tmp_path, _changed(device_traces=[[impossible]]))

    assert f"event 0 ({impossible['action']} at" in run.missing["memory_start_state"]


def test_blocks_that_no_rule_explains_are_counted(tmp_path: Path) -> None:
    # a block of another size than its request: as of an allocator that rounds otherwise than its settings say
    plain = snapshot()
    plain["segments"][0]["blocks"] = [
        {"address": BASE, "size": 4096, "requested_size": 600, "state": "active_allocated"},
        {"address": BASE + 4096, "size": 2 * MIB - 4096, "requested_size": 10, "state": "active_allocated"},
    ]
    plain["device_traces"] = [[event("alloc", BASE, 600, 1), event("alloc", BASE + 4096, 10, 2)]]

    run = read(tmp_path, plain)

    assert run.notes == ("device 0: 1 events have no block where the rules put one: theirs are requests, rounded",)
    assert run.allocations["bytes"].tolist() == [2 * MIB, 1024, 512]


def test_settings_are_also_read_from_their_text(tmp_path: Path) -> None:
    text = (
        "roundup_power2_divisions:[64:8,128:2,256:4,512:2,1024:4,>:1],max_non_split_rounding_mb:30,expandable_segments:True,x:y"
    )
    plain = _changed(allocator_settings={"PYTORCH_CUDA_ALLOC_CONF": text})

    config = read(tmp_path, plain).config

    # as torch reads it (c10/core/AllocatorConfig.h): 1 to 64 MiB in eighths, above 1 GiB not at all
    assert config["roundup_power2_divisions"] == [8] * 7 + [2, 4, 2, 4, 1, 1, 1, 1, 1]
    assert (config["max_non_split_rounding_mb"], config["expandable_segments"]) == (30, True)


def test_an_out_of_memory_event_is_explained(tmp_path: Path) -> None:
    plain = snapshot()
    failed = {"action": "oom", "device_free": 3 * MIB, "size": 40 * MIB, "stream": 0, "time_us": 6_000}
    plain["device_traces"][0].append(failed)

    run = read(tmp_path, plain)

    assert run.allocations["action"].iloc[-1] == "oom"
    assert run.allocations["bytes"].iloc[-1] == 40 * MIB
    assert run.allocations["allocated_bytes"].iloc[-1] == 1536
    # 40 MiB less 3 free and 2 MiB - 1.5 KiB in holes
    (note,) = run.notes
    assert note == (
        "device 0 ran out of memory at event 3: a true shortage of 35.0 MiB: "
        "40.0 MiB wanted, 3.00 MiB free on the device, 2.00 MiB held by torch in holes"
    )


def test_unknown_actions_are_counted_and_private_pools_are_named(tmp_path: Path) -> None:
    plain = snapshot()
    plain["device_traces"][0] += [
        {"action": "snapshot", "addr": 0, "size": 0, "stream": 0},
        {"action": "user_defined", "addr": 0, "size": 0, "stream": 0},
        {"action": 7},
    ]
    plain["device_traces"][0][2]["pool_id"] = (0, 4)

    run = read(tmp_path, plain)

    assert run.notes == ("left out what is not known or too much: action user_defined (1), action 7 (1)",)
    assert run.allocations["pool"].iloc[-1] == "private:0.4"


def test_devices_have_their_own_rows(tmp_path: Path) -> None:
    plain = snapshot()
    other = deepcopy(plain["segments"][0]) | {"device": 2}
    plain["segments"].append(other)
    plain["device_traces"] += [[], deepcopy(plain["device_traces"][0])]

    rows = read(tmp_path, plain).allocations

    assert rows.groupby("device").size().to_dict() == {0: 6, 2: 6}
    assert rows.loc[rows["device"].eq(2), "allocated_bytes"].iloc[-1] == 1536


def test_a_snapshot_without_events_has_only_its_state(tmp_path: Path) -> None:
    plain = snapshot()
    plain["device_traces"] = [[]]

    run = read(tmp_path, plain)

    assert run.allocations["action"].tolist() == ["segment_existing", "existing", "existing"]
    assert run.notes[0].startswith("the snapshot has a state and no events: call torch.cuda.memory._record_memory_history()")


def test_the_timeline_of_memory_counts_what_was_there_before_as_its_baseline(tmp_path: Path) -> None:
    timeline = memory_timeline(read(tmp_path, snapshot()))

    assert timeline["bytes"].tolist() == [-1024, 512]
    assert timeline["baseline_bytes"].tolist() == [2048, 2048]
    assert timeline["allocated_bytes"].tolist() == [1024, 1536]
    assert memory_peaks(timeline).loc[0, "unseen_bytes"] == 0


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'made'}",)

    with pytest.raises(UnsafePickle, match=r"rank0\.pickle: byte"):
        read(tmp_path, snapshot() | {"external_annotations": [Runs()]})

    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("says", "plain"),
    [
        ("holds a int, no snapshot", 5),
        ("no 'device_traces' (found: segments): call torch.cuda.memory._record_memory_history()", {"segments": []}),
        ("no 'segments' (found: nothing)", {}),
        ("segments is no list", _changed(segments=5)),
        ("a segment is no dictionary", _changed(segments=[5])),
        ("a device's trace is no list", _changed(device_traces=[5])),
        ("an event is no dictionary", _changed(device_traces=[[5]])),
        ("an event's 'size' is no whole number", _changed(device_traces=[[event("alloc", 1, "x", 1)]])),  # type: ignore[arg-type]
        ("an event's 'size' is outside of 0 to 2**62", _changed(device_traces=[[event("alloc", 1, 1 << 62, 1)]])),
        ("an event's 'addr' is outside of 0 to 2**62", _changed(device_traces=[[event("alloc", -5, 1, 1)]])),
        ("an event alloc has no 'addr'", _changed(device_traces=[[{"action": "alloc", "size": 1}]])),
        ("'total_size' is outside of 0 to 2**62", _segment(total_size=-1)),
        ("'address' is no whole number below 2**62", _segment(address=1 << 70)),
        ("the blocks of the segment at 0x7f0000000000 do not follow one another", _segment(total_size=1000)),
        ("a segment's blocks is no list", _segment(blocks=None)),
        ("a block is no dictionary", _segment(blocks=[3])),
    ],
)
def test_what_is_no_snapshot_says_what_is_wrong(tmp_path: Path, says: str, plain: Any) -> None:
    with pytest.raises(SnapshotFormatError) as caught:
        read(tmp_path, plain)

    assert str(caught.value).startswith("rank0.pickle: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("says", "content"),
    [
        ("is empty", b""),
        ("is neither a pickle of protocol 2 to 5 nor JSON", b"hello"),
        ("is neither a pickle of protocol 2 to 5 nor JSON", b"(lp0\n."),
        ("is a profiler trace, no memory snapshot: read it with perfnb.read_trace", b'{"traceEvents": []}'),
        ("is a page with a picture of a timeline", b"<html><body><img src='data:...'/></body></html>"),
        ("is no JSON", b'{"segments": ['),
        ("is no JSON", b"[" * 100_000),
        ("is a damaged gzip file", gzip.compress(b"x" * 1000, mtime=0)[:20]),
        ("is a damaged gzip file", b"\x1f\x8b" + b"x" * 50),
        ("event_columns is no list", b'{"segments": [], "events": []}'),
        ("an event is no list of 2 values", b'{"segments": [], "event_columns": ["action", "addr"], "events": [[[1]]]}'),
    ],
)
def test_other_files_say_what_they_are(tmp_path: Path, says: str, content: bytes) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)

    with pytest.raises(SnapshotFormatError, match=rf"some\.file: {says}"):
        perfnb.read_memory_snapshot(path)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFormatError, match=r"gone\.pickle: cannot be read: No such file"):
        perfnb.read_memory_snapshot(tmp_path / "gone.pickle")


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))

    with pytest.raises(SnapshotFormatError, match="over the limit of 1,000,000 bytes"):
        perfnb.read_memory_snapshot(path, limits=Limits(file_bytes=1_000_000))
    path.write_bytes(gzip.compress(b"[" + b"[]," * 10_000 + b"0]"))
    with pytest.raises(SnapshotFormatError, match="more than 1,000 values"):
        perfnb.read_memory_snapshot(path, limits=Limits(opcodes=1_000))


def test_the_same_trace_named_again_and_again_is_refused(tmp_path: Path) -> None:
    trace = snapshot()["device_traces"][0] * 50_000

    with pytest.raises(SnapshotFormatError, match="more than 20,000,000 events"):
        read(tmp_path, _changed(device_traces=[trace] * 200))


def test_long_names_shared_by_many_frames_do_not_grow(tmp_path: Path) -> None:
    plain = snapshot()
    plain["device_traces"][0][2]["frames"] = [{"name": "f" * 1_000_000, "filename": "\ud800;x" * 1000, "line": -1}] * 1000

    stack = read(tmp_path, plain).allocations["stack"].iloc[-1]

    assert len(stack) < 64 * 410
    assert stack.count(";") == 63


def test_more_text_of_stacks_than_the_limit_is_left_out() -> None:
    stacks = Stacks(most_characters=20)
    frame = {"name": "f", "filename": "a.py", "line": 1}

    first, again, other = stacks.text([frame]), stacks.text([dict(frame)]), stacks.text([frame, frame, frame])

    assert (first, other) == ("a.py:1:f", None)
    assert again is first
    assert stacks.left_out == 1


ODD = st.sampled_from(
    [None, True, -1, 0, 7, (1 << 62) - 1, 1 << 63, 1 << 70, 2.5, float("nan"), "", "alloc", "\ud800", [], {}, [1], {"a": 1}]
)


@given(seed=st.integers(0, 1 << 30), odd=ODD, count=st.integers(1, 3))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_values_anywhere_end_in_a_run_or_in_an_error_of_ours(tmp_path: Path, seed: int, odd: Any, count: int) -> None:
    plain = snapshot()
    choose = random.Random(seed)
    for _ in range(count):
        node: Any = plain
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = choose.choice(keys)
            if isinstance(node[key], dict | list) and choose.random() < 0.85:
                node = node[key]
                continue
            if choose.random() < 0.15:
                del node[key]
            else:
                node[key] = odd
            break

    try:
        run = read(tmp_path, plain)
    except PerfnbError:
        return
    assert len(run.allocations) <= 12
