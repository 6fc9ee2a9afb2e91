"""The programs that measure memory: that they count what they say, on small inputs."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

import perfnb
from benchmarks.memory import __main__ as program
from benchmarks.memory import fuzz, leak, speed
from perfnb.memory_ledger import HeldBlocks, memory_peak
from perfnb.whatif.recorded_replay import RecordedReplay, replay_recorded

SAMPLE = Path(__file__).parents[2] / "data" / "samples" / "memory"


def test_kinds_of_series_are_counted_by_their_truth() -> None:
    table = leak.table(series=1, lengths=(200,)).set_index("kind")

    assert table.loc[table["is_leak"], "leaks_200"].sum() >= 5  # of six the one in correlated noise takes 1,000 steps
    assert table.loc["flat", ["leaks_200", "watches_200", "line_200"]].to_list() == [0, 0, 0]
    assert table.loc["warm-up", "line_200"] == 1


def test_so_many_damaged_snapshots_are_loaded_and_none_does_what_it_must_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--mutants", "40", "--seed", "3"]) == 0
    assert capsys.readouterr().out.startswith("40 damaged snapshots: ")


def test_the_made_snapshot_is_one_that_reads_and_replays_exactly(tmp_path: Path) -> None:
    path = tmp_path / "made.pickle"
    path.write_bytes(pickle.dumps(speed.made(1500), 4))

    run = perfnb.read_memory_snapshot(path)
    held, replay = memory_peak(run), replay_recorded(run)

    assert isinstance(held, HeldBlocks)
    assert isinstance(replay, RecordedReplay)
    assert replay.is_exact
    assert speed.analysed(path)[2] == len(run.allocations)
    assert speed.what_if(path)[1] > 500


def test_parts_have_names_and_their_own_limits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "PARTS", {"loader": ("benchmarks.memory.fuzz", ("--mutants", "5"))})

    assert program.main([]) == 0
    assert capsys.readouterr().out.startswith("== loader\n5 damaged")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_real_training_through_the_simulated_allocator_is_a_snapshot_that_replays() -> None:
    pytest.importorskip("torch")
    from benchmarks.memory.record_snapshot import MIB, recorded  # noqa: PLC0415 - torch

    ended, failed = (
        recorded(64 * MIB, [4], batch_size=1, width=8, depth=1),
        recorded(4 * MIB, [4], batch_size=1, width=64, depth=1),
    )

    events = [event["action"] for event in ended["device_traces"][0]]
    assert events[:2] == ["segment_alloc", "alloc"]
    assert not {"oom"} & set(events)
    last = failed["device_traces"][0][-1]
    assert (last["action"], last["device_free"] < last["size"]) == ("oom", True)
    assert all(
        not frame["filename"].startswith("/")
        for event in events and ended["device_traces"][0]
        for frame in event.get("frames", ())
    )


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_others_say_of_a_model_is_beside_ours() -> None:
    pytest.importorskip("torch")
    from benchmarks.memory.baselines import accelerate_peak, mem_tracker_peak  # noqa: PLC0415 - torch
    from benchmarks.memory.dry_run_families import BUILT_WITH  # noqa: PLC0415 - torch

    layers = BUILT_WITH["layers"]
    numbers = sum(one.numel() for one in layers.model().parameters())

    assert accelerate_peak(layers, {}) in (16 * numbers, "accelerate is not installed")  # weights, gradients, two states
    assert int(mem_tracker_peak(layers, {"optimizer": "sgd"}, 2)) >= 2 * 4 * numbers


def test_the_committed_sample_says_what_its_provenance_says() -> None:
    told = json.loads((SAMPLE / "provenance.json").read_text(encoding="utf-8"))["truth"]
    plain = json.loads(gzip.decompress((SAMPLE / "simulated_out_of_memory.json.gz").read_bytes()))

    last = plain["device_traces"][0][-1]

    assert (last["action"], last["size"], last["device_free"]) == ("oom", told["wanted_bytes"], told["free_bytes"])
    reserved = sum(segment["total_size"] for segment in plain["segments"])
    assert reserved + told["free_bytes"] == told["capacity_bytes"]
    allocated = sum(
        block["size"] for segment in plain["segments"] for block in segment["blocks"] if block["state"] == "active_allocated"
    )
    assert reserved - allocated + told["free_bytes"] > told["wanted_bytes"]  # enough in all: fragmentation
