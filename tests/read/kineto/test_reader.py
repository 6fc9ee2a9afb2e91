"""read_kineto on small traces: tables, ranks, folders, spellings."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from perfnb.errors import RankConflictError
from perfnb.read.kineto import read_kineto
from tests.read.kineto.traces import event, training, write


def test_a_training_trace_gives_its_steps_and_their_phases(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.json.gz", training())

    run = read_kineto(path)

    assert run.steps[["rank", "step", "start_us", "duration_us", "is_edge"]].to_numpy().tolist() == [
        [0, 0, 0.0, 100.0, True],
        [0, 1, 100.0, 100.0, False],
        [0, 2, 200.0, 100.0, True],
    ]
    walls = run.phases[run.phases["step"].eq(1)].set_index("phase")["wall_us"].to_dict()
    assert walls == {"data": 40.0, "forward": 20.0, "backward": 20.0, "optimizer": 10.0, "communication": 0.0, "other": 10.0}


def test_stamps_beyond_two_to_the_53_keep_every_nanosecond(tmp_path: Path) -> None:
    text = '{"baseTimeNanoseconds": 1700000000000000000, "traceEvents": [%s]}'
    row = '{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":%s,"dur":0.001,"args":{}}'
    (tmp_path / "t.json").write_text(text % ",".join(row % stamp for stamp in ("4559564261716.136", "4559564261716.137")))

    run = read_kineto(tmp_path / "t.json")

    assert run.host_ops["start_us"].tolist() == [0.0, 0.001]
    assert run.host_ops["duration_us"].tolist() == [0.001, 0.001]


@pytest.mark.parametrize("layout", ["compact", "indented", "bare list", "keys after", "two gzip members", "byte-order mark"])
def test_the_layout_of_the_file_does_not_matter(tmp_path: Path, layout: str) -> None:
    plain = read_kineto(write(tmp_path / "plain.json", training()))
    document = {"traceEvents": training(), "traceName": "x"}
    text = {
        "compact": json.dumps(document, separators=(",", ":")).encode(),
        "indented": json.dumps(document, indent=4).encode(),
        "bare list": json.dumps(training()).encode(),
        "keys after": json.dumps({**document, "distributedInfo": {"rank": 0}}).encode(),
        "two gzip members": b"".join(gzip.compress(half) for half in _halves(json.dumps(document).encode())),
        "byte-order mark": b"\xef\xbb\xbf" + json.dumps(document).encode(),
    }[layout]
    (tmp_path / "other.json").write_bytes(text)

    other = read_kineto(tmp_path / "other.json")

    for table in ("steps", "phases", "host_ops", "device_ops", "collectives"):
        pd.testing.assert_frame_equal(getattr(other, table), getattr(plain, table))


def test_chunks_that_split_inside_an_event_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path / "trace.json", [event(f"op {n}", "cpu_op", n, 0.5, nested=[{"a": {"b": n}}, {"c": n}]) for n in range(300)]
    )
    whole = read_kineto(path)

    for size in (37, 256, 1000):
        monkeypatch.setattr("perfnb.read.kineto.source.PIECE_BYTES", size)
        pd.testing.assert_frame_equal(read_kineto(path).host_ops, whole.host_ops)


def test_old_and_new_spellings_of_a_device_row_are_one(tmp_path: Path) -> None:
    old = [event("gemm", "Kernel", 5, 2, process=0, thread="stream 7", device=0, stream=7, correlation=1)]
    new = [event("gemm", "kernel", 5, 2, process=0, thread=7, device=0, stream=7, correlation=1)]

    runs = [read_kineto(write(tmp_path / f"{n}.json", events)) for n, events in enumerate((old, new))]

    pd.testing.assert_frame_equal(runs[0].device_ops, runs[1].device_ops)
    assert runs[0].device_ops[["device", "stream", "correlation", "kind"]].to_numpy().tolist() == [[0, 7, 1, "compute"]]


def test_a_host_operator_with_a_stream_and_a_sync_are_no_device_work(tmp_path: Path) -> None:
    events = [event("triton_poi", "cpu_op", 0, 90, stream=0), event("Stream Sync", "cuda_sync", 0, 50, stream=7, device=0)]

    run = read_kineto(write(tmp_path / "t.json", events))

    assert run.device_ops.empty
    assert run.host_ops["category"].tolist() == ["operator", "synchronization"]


@pytest.mark.parametrize(
    ("stream", "expected"), [(-1, -1), (4294967295, 4294967295), ("0x0", 0), ("", None), (None, None), ("seven", None)]
)
def test_odd_streams_are_whole_numbers_or_missing_never_zero_by_default(
    tmp_path: Path, stream: object, expected: int | None
) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event("k", "kernel", 0, 1, stream=stream, device=0)]))

    found = run.device_ops["stream"].iloc[0]
    assert (found is pd.NA) if expected is None else found == expected


def test_an_unknown_category_is_kept_under_its_name(tmp_path: Path) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event("x", "Quantum_Op", 0, 1)]))

    assert run.host_ops["category"].tolist() == ["quantum_op"]


def test_a_folder_is_read_rank_by_rank_and_what_is_no_trace_is_named(tmp_path: Path) -> None:
    for rank in (1, 0):
        write(tmp_path / f"rank{rank}.json.gz", training(), distributedInfo={"rank": rank, "world_size": 2})
    (tmp_path / "provenance.json").write_text('{"machine": 0}')

    run = read_kineto(tmp_path)

    assert (run.ranks, run.world_size, run.source) == ((0, 1), 2, ("rank0.json.gz", "rank1.json.gz"))
    assert any("skipped provenance.json: JSON with machine and no list traceEvents" in note for note in run.notes)


def test_an_executor_gives_the_same_run(tmp_path: Path) -> None:
    for rank in (0, 1):
        write(tmp_path / f"rank{rank}.json", training(), distributedInfo={"rank": rank, "world_size": 2})

    with ThreadPoolExecutor(2) as executor:
        side_by_side = read_kineto(tmp_path, executor=executor)

    pd.testing.assert_frame_equal(side_by_side.host_ops, read_kineto(tmp_path).host_ops)


def test_ranks_come_from_names_where_the_files_do_not_say(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"worker{rank}.json", training()) for rank in (3, 5)]

    assert read_kineto(*paths).ranks == (3, 5)


def test_files_that_say_nothing_are_numbered_in_order_with_a_note(tmp_path: Path) -> None:
    run = read_kineto(write(tmp_path / "b.json", training()), write(tmp_path / "a.json", training()))

    assert run.source == ("b.json", "a.json")
    assert any("do not say which rank they are" in note for note in run.notes)


@pytest.mark.parametrize(
    ("infos", "message"),
    [
        ([{"rank": 1, "world_size": 2}, {"rank": 1, "world_size": 2}], "a.json and b.json are both rank 1"),
        ([{"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 4}], "different world sizes"),
        ([{"rank": 0, "world_size": 2}, {}], "not b.json"),
    ],
)
def test_files_of_two_jobs_are_refused(tmp_path: Path, infos: list[dict[str, int]], message: str) -> None:
    paths = [
        write(tmp_path / name, training(), distributedInfo=info) for name, info in zip(("a.json", "b.json"), infos, strict=True)
    ]

    with pytest.raises(RankConflictError, match=message):
        read_kineto(*paths)


def test_without_profiler_steps_the_loader_marks_the_edges_and_says_so(tmp_path: Path) -> None:
    events = [each for each in training(4) if not each["name"].startswith("ProfilerStep")]

    run = read_kineto(write(tmp_path / "t.json", events))

    assert run.steps["duration_us"].tolist() == [100.0, 100.0, 100.0]
    assert run.steps["steps_inferred"].all()


def test_entries_that_are_no_events_are_dropped_and_counted(tmp_path: Path) -> None:
    events = [*training(60), {"ph": "X", "cat": "cpu_op", "name": "torn", "ts": "abc", "dur": 1}, "words"]

    run = read_kineto(write(tmp_path / "t.json", events))

    assert len(run.host_ops) == 300
    assert any("1 events without a readable start" in note for note in run.notes)
    assert any("1 entries that are no events" in note for note in run.notes)


def test_a_hostile_name_is_kept_whole(tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)>\u202e\n" + "x" * 5000

    run = read_kineto(write(tmp_path / "t.json", [event(name, "cpu_op", 0, 1)]))

    assert run.host_ops["name"].tolist() == [name]


def test_a_gloo_range_becomes_a_host_collective(tmp_path: Path) -> None:
    shapes = {"Input Dims": [[300, 2]], "Input type": ["float"]}

    run = read_kineto(
        write(tmp_path / "t.json", [*training(), event("gloo:all_reduce", "user_annotation", 1_000_050, 9, thread=2, **shapes)])
    )

    row = run.collectives.iloc[0]
    assert (row["collective"], row["elements_in"], row["bytes"], row["clock"]) == ("all_reduce", 600, 2400, "host")


def test_waiting_in_gloo_counts_as_communication_only_while_the_step_runs_no_operator(tmp_path: Path) -> None:
    events = [*training(1), event("gloo:all_reduce", "user_annotation", 1_000_070, 25, thread=2)]

    run = read_kineto(write(tmp_path / "t.json", events))

    walls = run.phases.set_index("phase")["wall_us"]
    assert walls["communication"] == 5.0  # 70-80 is hidden by backward, 80-90 belongs to the optimizer, 90-95 is waiting
    assert walls.sum() == 100.0


def _halves(text: bytes) -> tuple[bytes, bytes]:
    middle = len(text) // 2
    return text[:middle], text[middle:]
