"""Torch's allocator as rows and as snapshots. There is no GPU here: torch's own calls are imitated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.errors import RecordingError
from perfnb.read.memory_snapshot.plain_pickle import load_plain
from perfnb.record import allocator_history
from perfnb.record.allocator import AllocatorCollector
from perfnb.record.rows import COLUMNS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SNAPSHOT = {
    "segments": [],
    "device_traces": [[{"action": "oom", "device_free": 512, "size": 1024, "stream": 0, "time_us": 5, "frames": []}]],
    "allocator_settings": {"max_split_size": -1},
}


class Cuda:
    """One device whose allocator has reserved something; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.peak = 4096
        self.observer: Any = None
        self.is_recording = False

    def stats(self, _device: int) -> dict[str, Any]:
        sizes = {"all": {"current": 1024, "peak": self.peak}}
        return {"allocated_bytes": sizes, "reserved_bytes": sizes, "num_ooms": 1, "num_alloc_retries": 2}

    def reset(self, device: int) -> None:
        self.calls.append(("reset", device))
        self.peak = 1024

    def record(self, **how: Any) -> None:
        self.calls.append(how)
        self.is_recording = how["enabled"] is not None

    def attach(self, observer: Any) -> None:
        self.observer = observer


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """Torch as it is with one GPU."""
    own = Cuda()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", own.stats)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", own.reset)
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", own.record)
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: SNAPSHOT)
    monkeypatch.setattr(torch._C, "_cuda_attach_out_of_memory_observer", own.attach, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", lambda: own.is_recording, raising=False)
    monkeypatch.setattr(allocator_history, "_is_attached", False)
    yield own
    monkeypatch.setattr(allocator_history, "_recording", None)


def column(row: tuple[Any, ...], name: str) -> Any:
    return row[COLUMNS["allocator"].index(name) - 1]  # the step comes first, and is not in it


def test_peaks_are_running_maxima_and_looks_are_a_tenth_of_a_second_apart(cuda: Cuda) -> None:
    collector = AllocatorCollector()

    (first,), rest = list(collector.rows()), list(collector.rows())

    assert rest == []
    assert (column(first, "peak_allocated_bytes"), column(first, "peaks_are_per_step")) == (4096, False)
    assert (column(first, "retries"), column(first, "ooms")) == (2, 1)
    assert cuda.calls == []


def test_where_peaks_are_reset_each_step_has_its_own(cuda: Cuda) -> None:
    collector = AllocatorCollector(reset_peaks=True)

    (first,), (second,) = list(collector.rows()), list(collector.rows())

    assert (column(first, "peak_allocated_bytes"), column(first, "peaks_are_per_step")) == (4096, False)
    assert (column(second, "peak_allocated_bytes"), column(second, "peaks_are_per_step")) == (1024, True)
    assert cuda.calls == [("reset", 0), ("reset", 0)]


def test_a_snapshot_on_demand_is_a_pickle_of_protocol_4_that_reads_back(cuda: Cuda, tmp_path: Path) -> None:
    with perfnb.record_allocations(tmp_path / "new", rank=3) as history:
        first, second = history.dump(), history.dump()

    assert [path.name for path in (first, second)] == ["memory.rank3.0.pickle", "memory.rank3.1.pickle"]
    assert first.read_bytes()[:2] == b"\x80\x04"
    assert load_plain(first.read_bytes()) == SNAPSHOT
    assert "ran out of memory" in perfnb.read_memory_snapshot(first).notes[-1]
    assert [call["enabled"] for call in cuda.calls] == ["all", None]
    assert cuda.calls[0]["max_entries"] == 200_000


def test_a_snapshot_is_written_when_memory_runs_out_and_never_after_the_end(cuda: Cuda, tmp_path: Path) -> None:
    with perfnb.record_allocations(tmp_path) as history:
        cuda.observer(0, 1024, 4096, 512)
    cuda.observer(0, 1024, 4096, 512)

    assert [path.name for path in history.written] == ["out_of_memory.rank0.0.pickle"]
    with pytest.raises(RecordingError, match="call dump"):
        history.dump()


def test_a_history_that_lost_its_start_says_so(cuda: Cuda, tmp_path: Path) -> None:
    with perfnb.record_allocations(tmp_path, max_entries=1) as history:
        history.dump()

    assert cuda.calls[0]["max_entries"] == 1
    assert "the last 1 events only" in history.notes[0]


def test_what_cannot_be_written_is_an_error_on_demand_and_a_note_where_memory_ran_out(cuda: Cuda, tmp_path: Path) -> None:
    with perfnb.record_allocations(tmp_path / "gone") as history:
        (tmp_path / "gone").rmdir()
        with pytest.raises(RecordingError, match="cannot write"):
            history.dump()
        cuda.observer(0, 1024, 4096, 512)

    assert "could not be written" in history.notes[0]
    assert history.written == []


def test_somebodys_own_history_is_left_alone(cuda: Cuda, tmp_path: Path) -> None:
    cuda.is_recording = True

    with pytest.raises(RecordingError, match="is on already"), perfnb.record_allocations(tmp_path):
        pass
    assert cuda.calls == []


def test_a_torch_that_does_not_tell_when_memory_runs_out_gives_snapshots_on_demand(
    cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch._C, "_cuda_attach_out_of_memory_observer", raising=False)

    with perfnb.record_allocations(tmp_path) as history:
        pass

    assert cuda.observer is None
    assert "on demand only" in history.notes[0]


def test_without_a_gpu_or_with_nothing_to_keep_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no GPU"), perfnb.record_allocations(tmp_path):
        pass
    with pytest.raises(RecordingError, match="keeps nothing"):
        perfnb.record_allocations(tmp_path, max_entries=0)
    allocator_history._ran_out(0, 1, 2, 3)  # nothing is recorded: nothing happens
