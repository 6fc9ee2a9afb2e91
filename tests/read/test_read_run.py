"""A run folder is read whether it runs, ended, was killed or is damaged, and a large one faster the second time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from perfnb import tables
from perfnb.errors import RunFolderError
from perfnb.read import run_cache
from perfnb.read.recorded import run_of
from perfnb.read.run_folder import read_run
from perfnb.record.header import header
from perfnb.record.run_folder import FolderSink
from perfnb.record.sink import MemorySink, Sink
from perfnb.run import Run

_MS = 1_000_000
_SAMPLE = Path(__file__).parents[2] / "data/samples/healthy"


def sink_of(folder: Path, rank: int = 0, world_size: int = 1, **changes: Any) -> FolderSink:
    told = header({"limit": float("inf")}, {"devices": [], "device_memory_bytes": []}, 2.0)
    return FolderSink(folder, told | {"rank": rank, "world_size": world_size} | changes)


def train(sink: Sink, count: int = 3) -> None:
    start = int(sink.header["monotonic_ns"]) + _MS
    edges = [(start + step * 2 * _MS, start + (step + 1) * 2 * _MS) for step in range(count)]
    sink.append("steps", [(step, low, high, False, 0, 1) for step, (low, high) in enumerate(edges)])
    sink.append("phases", [(step, phase, _MS, _MS // 2, 0, None) for step in range(count) for phase in ("data", "forward")])
    sink.append("values", [(step, high, "loss", 1.5) for step, (_, high) in enumerate(edges)])


def finished(folder: Path, count: int = 3) -> Path:
    sink = sink_of(folder)
    train(sink, count)
    sink.close("finished", "")
    return folder


def assert_same(one: Run, two: Run) -> None:
    for name in tables.SCHEMAS:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))
    for name in ("config", "machine", "signals", "missing", "notes", "world_size", "source", "recordings"):
        assert getattr(one, name) == getattr(two, name)


def test_finished_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(finished(tmp_path / "exp1"))

    assert run.steps["duration_us"].to_list() == [2000.0] * 3
    assert run.training["loss"].to_list() == [1.5] * 3
    assert run.config == {"limit": float("inf")}
    assert run.source == ("exp1",)
    assert run.recordings[0].state == "finished"
    assert run.notes == ()


def test_run_that_goes_on_is_read_up_to_now_and_the_folder_of_one_rank_too(tmp_path: Path) -> None:
    sink = sink_of(tmp_path)
    train(sink)

    run = read_run(tmp_path / "rank0")

    assert run.recordings[0].state == "running"
    assert run.notes == ("the recording is still running: read up to step 2, 6.00 ms after the start",)
    sink.close("failed", "KeyboardInterrupt")
    assert read_run(tmp_path).notes[0].startswith("the recording failed (KeyboardInterrupt)")


def test_folder_and_memory_give_the_same_tables(tmp_path: Path) -> None:
    sink = sink_of(tmp_path)
    memory = MemorySink(sink.header)
    for each in (sink, memory):
        train(each)
        each.append("values", [(2, int(sink.header["monotonic_ns"]), "loss", value) for value in (1.0, float("nan"))])
        each.append("gaps", [("gpu_samples", None, None, "no driver", 5, 1)])
        each.close("finished", "")

    assert_same(read_run(tmp_path), run_of([memory], source=[tmp_path.name]))


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    (folder / "rank0/end.json").unlink()
    with (folder / "rank0/values.jsonl").open("ab") as file:
        file.write(b'[3,99,"loss",1')

    run = read_run(folder)

    assert run.training["step"].to_list() == [0, 1, 2]
    assert run.recordings[0].state == "killed"
    assert "values.jsonl: the last line was not written whole and is left out" in run.notes


@pytest.mark.parametrize(
    "damage",
    [b"\x00\xff\xfe", b"[1,2", b"[1,2]", b'{"a":1}', b"[0,1][2,3]", b"[" * 5000, b'[0,1,"loss",NaN]'],
    ids=["bytes", "torn", "short", "object", "two", "deep", "not JSON"],
)
def test_damaged_line_in_the_middle_is_left_out_and_named(tmp_path: Path, damage: bytes) -> None:
    folder = finished(tmp_path)
    path = folder / "rank0/values.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, *lines[1:]]) + b"\n")

    run = read_run(folder)

    assert run.training["loss"].to_list() == [1.5] * 3
    assert run.notes == ("values.jsonl: line 2 is damaged and left out",)


def test_line_that_ends_in_the_next_one_makes_no_row(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    path = folder / "rank0/values.jsonl"
    path.write_bytes(path.read_bytes() + b'[3,7,"loss"\n,9.0]\n')

    run = read_run(folder)

    assert run.training["step"].to_list() == [0, 1, 2]
    assert run.notes == ("values.jsonl: 2 lines (4, 5) are damaged and left out",)


def test_tables_and_columns_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    path = folder / "rank0/header.json"
    told = msgspec.json.decode(path.read_bytes())
    told["columns"]["values"] = ["unit", *told["columns"]["values"], "source"]
    told["columns"]["moods"] = ["mood"]
    path.write_bytes(msgspec.json.encode(told))
    rows = folder / "rank0/values.jsonl"
    lines = [msgspec.json.decode(line) for line in rows.read_bytes().splitlines()]
    rows.write_bytes(b"".join(msgspec.json.encode(["nat", *line, "log"]) + b"\n" for line in lines))
    (folder / "rank0/moods.jsonl").write_bytes(b'["good"]\n')

    run = read_run(folder)

    assert run.training["loss"].to_list() == [1.5] * 3
    assert run.notes == ()


def test_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    path = folder / "rank0/header.json"
    told = msgspec.json.decode(path.read_bytes()) | {"schema_version": 2, "versions": {"perfnb": "9.1"}}
    path.write_bytes(msgspec.json.encode(told))

    with pytest.raises(RunFolderError, match=r"version 2 of the format, by perfnb 9\.1; .* up to version 1: upgrade"):
        read_run(folder)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"[" * 9999, b'{"schema_version": 1, "rank": -1}'])
def test_rank_without_a_usable_header_is_skipped_or_refused_if_it_is_the_only_one(tmp_path: Path, content: bytes | None) -> None:
    finished(tmp_path)
    broken = tmp_path / "rank1"
    broken.mkdir()
    if content is not None:
        (broken / "header.json").write_bytes(content)

    run = read_run(tmp_path)

    assert run.ranks == (0,)
    assert run.notes[0].startswith("skipped rank1: it")
    shutil.rmtree(tmp_path / "rank0")
    with pytest.raises(RunFolderError, match="can be read: skipped rank1"):
        read_run(tmp_path)


def test_other_folders_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="holds no recording: perfnb"):
        read_run(tmp_path)
    (tmp_path / "trace.json.gz").write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"perfnb\.read_trace"):
        read_run(tmp_path)
    with pytest.raises(RunFolderError, match=r"perfnb\.read_trace"):
        read_run(tmp_path / "trace.json.gz")


def test_eight_ranks_on_two_machines_are_one_run(tmp_path: Path) -> None:
    for rank in range(8):
        boot = "first" if rank < 4 else "second"
        sink = sink_of(tmp_path, rank, 8, boot=boot, host=f"node-{boot}", monotonic_ns=10**12 * (1 + rank // 4))
        train(sink)
        sink.close("finished", "")

    run = read_run(tmp_path)

    assert run.ranks == tuple(range(8))
    assert len(run.steps) == 24
    assert run.steps["start_us"].max() < 60e6  # headers were written within seconds of each other
    assert [note[:10] for note in run.notes] == ["ranks 4-7 "]
    assert set(run.training["rank"]) == set(range(8))


def test_rank_that_an_earlier_larger_job_left_is_not_mixed_in(tmp_path: Path) -> None:
    for rank, world_size in ((1, 2), (0, 1)):
        sink = sink_of(tmp_path, rank, world_size)
        train(sink)
        sink.close("finished", "")

    run = read_run(tmp_path)

    assert run.ranks == (0,)
    assert run.notes == ("skipped rank1: it is of another recording, of 2 ranks, not of 1",)


def test_rows_that_could_not_be_written_are_gaps(tmp_path: Path) -> None:
    sink = sink_of(tmp_path)
    train(sink)
    sink._drop("host_samples", 7, "No space left on device")
    sink.close("finished", "")

    run = read_run(tmp_path)

    assert run.gaps[["table", "reason", "count"]].to_numpy().tolist() == [
        ["host_samples", "rows could not be written: No space left on device", 7]
    ]
    assert run.missing["host_samples"] == "rows could not be written: No space left on device"
    assert "No space left" in run.notes[0]


def test_hostile_names_in_a_header_are_data(tmp_path: Path) -> None:
    sink = sink_of(tmp_path, host="<script>", process="x" * 100_000, boot={"a": []}, versions=[])
    train(sink)
    sink.close("failed", "<script>\x1b[31m" * 1000)

    run = read_run(tmp_path)

    assert len(run.steps) == 3
    assert len(run.notes[0]) < 400
    assert "\x1b" not in run.notes[0]


def test_window_of_the_profiler_is_on_the_recorders_clock(tmp_path: Path) -> None:
    trace = next(_SAMPLE.glob("*.json.gz"))
    sink = sink_of(tmp_path)
    train(sink)
    shutil.copy(trace, sink.rank_folder / "trace.json.gz")
    shutil.copy(trace, sink.rank_folder / "trace2.json.gz")
    start = int(sink.header["monotonic_ns"]) + 3 * _MS  # where step 1 starts
    sink.append("windows", [(1, 2, start, start + _MS, "trace.json.gz"), (7, 8, start, start, "gone.json.gz")])
    sink.close("finished", "")

    run = read_run(tmp_path)

    steps = run.host_ops[run.host_ops["name"].astype(str).str.startswith("ProfilerStep")]
    assert steps["start_us"].min() == pytest.approx(2000.0, abs=1e-3)
    assert run.steps["is_profiled"].to_list() == [False, True, True]
    assert "host_ops" in run.signals
    assert "the trace of steps 7 to 8 is not there" in run.notes
    assert "trace2.json.gz belongs to no window that was noted: read it with perfnb.read_trace" in run.notes


def test_damaged_trace_of_a_window_costs_only_the_trace(tmp_path: Path) -> None:
    sink = sink_of(tmp_path)
    train(sink)
    (sink.rank_folder / "trace.json.gz").write_bytes(b"no gzip")
    sink.append("windows", [(1, 2, 1, 2, "trace.json.gz")])
    sink.close("finished", "")

    run = read_run(tmp_path)

    assert len(run.steps) == 3
    assert "the trace of steps 1 to 2 cannot be read" in run.notes[0]


class TestCache:
    """Kept tables: the same run, never a stale one."""

    @pytest.fixture(autouse=True)
    def small_runs_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("pyarrow")
        monkeypatch.setattr(run_cache, "SMALLEST_BYTES", 0)

    def test_second_reading_gives_the_same_run(self, tmp_path: Path) -> None:
        first = read_run(finished(tmp_path))
        kept = list((tmp_path / ".cache").iterdir())

        (tmp_path / "rank0/values.jsonl").rename(tmp_path / "rank0/values.jsonl.away")
        (tmp_path / "rank0/values.jsonl.away").rename(tmp_path / "rank0/values.jsonl")
        second = read_run(tmp_path)

        assert len(kept) == 1
        assert list((tmp_path / ".cache").iterdir()) == kept
        assert_same(first, second)
        assert run_cache.load(kept[0]) is not None

    def test_changed_file_is_read_anew(self, tmp_path: Path) -> None:
        folder = finished(tmp_path)
        read_run(folder)
        path = folder / "rank0/values.jsonl"
        path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
        os.utime(path, ns=(1, 1))  # of the same size

        run = read_run(folder)

        assert run.training["loss"].to_list() == [2.5] * 3
        assert len(list((tmp_path / ".cache").iterdir())) == 1

    @pytest.mark.parametrize("damage", [b"", b"no parquet", b"PAR1" * 50])
    def test_damaged_cache_is_passed_over_and_made_anew(self, tmp_path: Path, damage: bytes) -> None:
        first = read_run(finished(tmp_path))
        for path in (tmp_path / ".cache").glob("*/*"):
            path.write_bytes(damage)

        second = read_run(tmp_path)

        assert_same(first, second)
        (place,) = (tmp_path / ".cache").iterdir()
        assert run_cache.load(place) is not None

    def test_flipped_bytes_in_the_cache_never_change_a_number(self, tmp_path: Path) -> None:
        first = read_run(finished(tmp_path, 50))
        (path,) = (tmp_path / ".cache").glob("*/phases.parquet")
        whole = path.read_bytes()

        for place in range(8, len(whole), max(len(whole) // 25, 1)):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            pd.testing.assert_frame_equal(read_run(tmp_path).phases, first.phases)

    def test_run_that_goes_on_is_not_kept(self, tmp_path: Path) -> None:
        train(sink_of(tmp_path))

        read_run(tmp_path)

        assert not (tmp_path / ".cache").exists()

    def test_folder_that_cannot_be_written_is_read_all_the_same(self, tmp_path: Path) -> None:
        folder = finished(tmp_path)
        (folder / ".cache").write_bytes(b"a file where the folder would be")

        assert len(read_run(folder).steps) == 3
        assert len(read_run(folder).steps) == 3

    def test_without_pyarrow_nothing_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_cache, "find_spec", {}.get)

        read_run(finished(tmp_path))

        assert not (tmp_path / ".cache").exists()


def test_small_run_leaves_no_cache(tmp_path: Path) -> None:
    read_run(finished(tmp_path))

    assert [each.name for each in tmp_path.iterdir()] == ["rank0"]


def test_reading_needs_neither_torch_nor_psutil_nor_nvml(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    code = "import sys, perfnb.read.run_folder as reader; reader.read_run(sys.argv[1]); "
    code += "print({'torch', 'psutil', 'pynvml'} & set(sys.modules))"

    told = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, timeout=60)

    assert told.stdout.strip() == "set()"
