"""A run folder keeps what was appended, belongs to one writer and never makes training fail."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from perfnb.errors import RecordingError
from perfnb.record import rank_lock
from perfnb.record.header import header
from perfnb.record.rank_lock import is_held
from perfnb.record.run_folder import FolderSink

_PHASE = (0, "data", 100, 90, 5, None)


def _header(**changes: Any) -> dict[str, Any]:
    return header({}, {"devices": [], "device_memory_bytes": []}, 2.0) | {"rank": 0, "world_size": 1} | changes


def _lines(path: Path) -> list[Any]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def _in_child(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = "import sys\nfrom perfnb.record.header import header\nfrom perfnb.record.run_folder import FolderSink\n"
    start += "head = header({}, {'devices': []}, 1.0) | {'rank': 0, 'world_size': 1}\n"
    command = [sys.executable, "-c", start + textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_rows_are_lines_of_json_in_the_order_they_came(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path / "run", _header())

    sink.append("phases", [_PHASE])
    sink.append("phases", iter([(0, "forward", 7, 7, 0, 1.5)]))
    sink.close("finished", "")

    assert _lines(tmp_path / "run/rank0/phases.jsonl") == [list(_PHASE), [0, "forward", 7, 7, 0, 1.5]]
    assert msgspec.json.decode((tmp_path / "run/rank0/header.json").read_bytes())["schema_version"] == 1
    end = msgspec.json.decode((tmp_path / "run/rank0/end.json").read_bytes())
    assert (end["state"], end["reason"], end["dropped"]) == ("finished", "", {})


def test_values_that_json_lacks_are_written_all_the_same(tmp_path: Path) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError

    odd = [math.nan, math.inf, -math.inf, np.float32(0.5), np.int64(3), np.bool_(True), "\ud800", 2**80, Rude(), np.zeros(3)]  # noqa: FBT003
    sink = FolderSink(tmp_path, _header(config={"limit": math.inf}))

    sink.append("values", [(step, 1, "x", value) for step, value in enumerate(odd)])
    sink.append("values", [3, None])  # type: ignore[list-item]
    sink.close("finished", "")

    read = [row[3] for row in _lines(tmp_path / "rank0/values.jsonl")]
    assert read[:7] == ["NaN", "Infinity", "-Infinity", 0.5, 3, True, "?"]
    assert read[8].startswith("<")
    assert read[9] == "<numpy.ndarray>"
    assert sink.dropped == {"values": 2}


def test_second_writer_of_a_rank_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    first = FolderSink(tmp_path, _header())
    first.append("phases", [_PHASE])
    before = (tmp_path / "rank0/header.json").read_bytes()

    second = _in_child("FolderSink(sys.argv[1], head, overwrite=True)", str(tmp_path))
    first.append("phases", [_PHASE])

    assert "RecordingError" in second.stderr
    assert f"process {os.getpid()} since 20" in second.stderr
    assert len(_lines(tmp_path / "rank0/phases.jsonl")) == 2
    assert (tmp_path / "rank0/header.json").read_bytes() == before


def test_two_ranks_share_a_folder(tmp_path: Path) -> None:
    sinks = [FolderSink(tmp_path, _header(rank=rank, world_size=2)) for rank in (0, 1)]

    assert [is_held(sink.rank_folder) for sink in sinks] == [True, True]
    sinks[0].close("finished", "")
    assert [is_held(sink.rank_folder) for sink in sinks] == [False, True]


def test_earlier_recording_is_only_replaced_on_demand(tmp_path: Path) -> None:
    earlier = FolderSink(tmp_path, _header())
    earlier.append("phases", [_PHASE])
    earlier.close("finished", "")

    with pytest.raises(RecordingError, match=r"holds an earlier recording, one that ended.*overwrite=True"):
        FolderSink(tmp_path, _header())
    assert len(_lines(tmp_path / "rank0/phases.jsonl")) == 1
    new = FolderSink(tmp_path, _header(), overwrite=True)

    assert sorted(each.name for each in (tmp_path / "rank0").iterdir()) == ["header.json", "lock"]
    assert [each.name for each in tmp_path.iterdir()] == ["rank0"]
    assert is_held(new.rank_folder)
    with pytest.raises(RecordingError, match=r"is being written by process"):
        FolderSink(tmp_path, _header(), overwrite=True)


def test_killed_recording_frees_its_folder_but_keeps_its_rows(tmp_path: Path) -> None:
    killed = _in_child(
        """
        import os, signal
        sink = FolderSink(sys.argv[1], head)
        sink.append("phases", [(0, "data", 100, 90, 5, None)])
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(tmp_path),
    )

    assert killed.returncode == -9
    assert not is_held(tmp_path / "rank0")
    assert _lines(tmp_path / "rank0/phases.jsonl") == [list(_PHASE)]
    with pytest.raises(RecordingError, match="one that was killed"):
        FolderSink(tmp_path, _header())


def test_child_that_was_forked_writes_nothing_and_holds_nothing(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, _header())
    sink.append("phases", [_PHASE])

    child = os.fork()
    if child == 0:
        sink.append("phases", [_PHASE])
        sink.close("finished", "")
        os._exit(0 if sink._lock.descriptor is None else 1)
    _, status = os.waitpid(child, 0)

    assert status == 0
    assert is_held(sink.rank_folder)
    assert len(_lines(tmp_path / "rank0/phases.jsonl")) == 1
    assert not (tmp_path / "rank0/end.json").exists()
    sink.append("phases", [_PHASE])
    assert len(_lines(tmp_path / "rank0/phases.jsonl")) == 2


def test_child_that_outlives_a_killed_recording_does_not_hold_its_folder(tmp_path: Path) -> None:
    killed = _in_child(
        """
        import os, signal, time
        sink = FolderSink(sys.argv[1], head)
        worker = os.fork()
        if worker == 0:
            os.close(1), os.close(2)
            time.sleep(20)
            os._exit(0)
        print(worker, flush=True)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(tmp_path),
    )
    worker = int(killed.stdout)

    try:
        os.kill(worker, 0)  # it lives
        assert not is_held(tmp_path / "rank0")
    finally:
        os.kill(worker, signal.SIGKILL)


def test_full_disk_drops_whole_rows_counts_them_and_raises_nothing(tmp_path: Path) -> None:
    told = _in_child(
        """
        import resource
        sink = FolderSink(sys.argv[1], head)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
        for step in range(200):
            sink.append("phases", [(step, "data", 100, 90, 5, None), (step, "forward", 100, 90, 5, None)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sink.append("phases", [(999, "data", 1, 1, 0, None)])
        sink.close("finished", "")
        print(sink.dropped["phases"], sink.failed_with)
        """,
        str(tmp_path),
    )

    rows = _lines(tmp_path / "rank0/phases.jsonl")
    dropped, why = told.stdout.split(maxsplit=1)
    assert told.stderr == ""
    assert len(rows) + int(dropped) == 401
    assert rows[-1][0] == 999
    assert rows[-2][0] == rows[-3][0]
    assert why.strip() in ("no space left for all rows", "File too large")
    assert msgspec.json.decode((tmp_path / "rank0/end.json").read_bytes())["dropped"] == {"phases": int(dropped)}


def test_folder_that_cannot_be_written_is_said_before_training_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RecordingError, match=r"cannot record into .*choose a folder"):
        FolderSink(tmp_path / "file", _header())


def test_rows_after_the_end_and_of_unknown_tables_are_counted(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, _header())

    sink.append("../outside", [(1,)])
    sink.close("failed", "ValueError: no")
    sink.append("phases", [_PHASE])
    sink.close("finished", "")

    assert sink.dropped == {"../outside": 1, "phases": 1}
    assert msgspec.json.decode((tmp_path / "rank0/end.json").read_bytes())["reason"] == "ValueError: no"
    assert not list(tmp_path.glob("**/outside*"))


def test_without_file_locks_a_file_with_the_process_number_stands_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_lock, "fcntl", None)  # as on Windows
    sink = FolderSink(tmp_path, _header())

    assert is_held(sink.rank_folder)
    with pytest.raises(RecordingError, match=f"written by process {os.getpid()} since .*delete"):
        FolderSink(tmp_path, _header(), overwrite=True)
    sink.close("finished", "")
    assert not is_held(sink.rank_folder)

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = {"process": dead.pid, "since_ns": 1, "place": rank_lock._place()}
    (sink.rank_folder / "lock.pid").write_bytes(msgspec.json.encode(name))
    assert not is_held(sink.rank_folder)
    replaced = FolderSink(tmp_path, _header(), overwrite=True)
    assert is_held(replaced.rank_folder)
