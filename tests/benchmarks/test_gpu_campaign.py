"""The GPU campaign: its order, its limits, what a crash leaves, what it packs, what it collects, and a whole rehearsal."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import results
from benchmarks.gpu.campaign import Campaign, Child, main
from benchmarks.gpu.collect import CollectError, collect
from benchmarks.gpu.stages import memory, pairs
from benchmarks.gpu.units import Unit, in_order, missing_package, next_unit, stage, stage_names

ROOT = Path(__file__).resolve().parents[2]
MOST_FILES, MOST_FILE_BYTES = 8, 16 << 20
REHEARSAL_S = 180.0


def unit(name: str, value: int = 1, expected_s: float = 5.0, stage_name: str = "pairs") -> Unit:
    return Unit(stage_name, name, value, expected_s, 30.0)


def line(name: str, state: str = "ok", stage_name: str = "pairs", **more: Any) -> dict[str, Any]:
    return {"stage": stage_name, "unit": name, "state": state, "seconds": 1.0, **more}


def test_the_most_valuable_units_come_first_and_of_those_the_long_ones() -> None:
    ordered = in_order([unit("late", 3), unit("short", 1, 2.0), unit("long", 1, 9.0), unit("middle", 2)])

    assert [each.name for each in ordered] == ["long", "short", "middle", "late"]


def test_a_stage_that_used_its_share_waits_until_the_others_used_theirs() -> None:
    waiting = [unit("first"), unit("second", stage_name="memory")]
    shares = {"pairs": 0.5, "memory": 0.5}

    chosen = [
        next_unit(waiting, used, shares, 100.0) for used in ({"pairs": 49.0}, {"pairs": 51.0}, {"pairs": 51.0, "memory": 51.0})
    ]

    assert [each.name for each in chosen if each] == ["first", "second", "first"]
    assert next_unit([], {}, shares, 100.0) is None


def test_the_parent_and_the_stages_import_neither_torch_nor_pandas_nor_perfnb() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.gpu import campaign, units\n"
        "for name in units.stage_names():\n    units.stage(name).units(rehearse=True)\n"
        "print(sorted({'torch', 'pandas', 'perfnb', 'pynvml'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-I", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("words", [["-I", str(ROOT / "benchmarks/gpu/campaign.py")], ["-m", "benchmarks.gpu.campaign"]])
def test_it_runs_as_a_file_and_as_a_module(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words, "--list"], cwd=ROOT, capture_output=True, text=True, check=True)

    first, *_, last = done.stdout.splitlines()
    assert first.startswith("1 ")
    assert last.endswith("s expected")


def test_every_stage_has_what_a_stage_needs_and_its_units_have_names_of_their_own() -> None:
    assert stage_names() == ["faults", "memory", "nvml_fixtures", "overhead", "pairs"]
    for name in stage_names():
        module = stage(name)
        for rehearse in (False, True):
            units = module.units(rehearse=rehearse)
            assert {each.stage for each in units} == {name}
            assert len({each.name for each in units}) == len(units)
            assert all(each.expected_s < each.limit_s for each in units)
    assert sum(stage(name).SHARE for name in stage_names()) == pytest.approx(1.1, abs=0.11)


def test_there_are_thirty_pairs_of_every_transform_and_thirty_configurations_of_memory() -> None:
    assert len(pairs.PLAN) >= 30
    assert {transform for transform, _, _ in pairs.PLAN} == set(pairs.TRANSFORMS)
    assert {transform for transform, _, value in pairs.PLAN if value == 1} == set(pairs.TRANSFORMS) - {"bf16_and_compile"}
    assert len(memory.CONFIGS) >= 30
    assert sum(bool(knobs.get("snapshot")) for _, _, knobs in memory.CONFIGS.values()) == 2
    assert all(each.environment for each in memory.units(rehearse=False) if "expandable" in each.name)


def test_a_torn_or_skipped_result_is_run_again_and_the_last_of_a_unit_counts(tmp_path: Path) -> None:
    for each in (line("a"), line("b", "failed"), line("c", "skipped"), line("d", "lacks a package"), line("b")):
        results.append_line(tmp_path, each)
    path = tmp_path / "pairs" / results.LINES
    path.write_bytes(path.read_bytes() + b'{"stage":"pairs","unit":"e","sta')
    results.append_line(tmp_path, line("f", "timed out"))

    done = results.finished(tmp_path)

    assert {name: each["state"] for (_, name), each in done.items()} == {"a": "ok", "b": "ok", "f": "timed out"}


def test_a_result_that_is_no_number_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.append_line(tmp_path, line("a", result=float("nan")))

    assert results.finished(tmp_path) == {}


def test_units_that_find_no_time_say_so_and_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign = Campaign(tmp_path, tmp_path / "packed", 3.0, rehearse=True)

    campaign.run([unit("bf16_gpt"), unit("tf32_gpt")], {"pairs": 1.0})

    assert [each["state"] for each in results.lines(tmp_path)] == ["skipped", "skipped"]
    assert results.finished(tmp_path) == {}
    assert "no time left: 3 s were given" in capsys.readouterr().out


def test_a_unit_past_its_limit_is_killed_with_its_group(tmp_path: Path) -> None:
    child = Child(Unit("nvml_fixtures", "idle_load_idle", 1, 1.0, 0.0), tmp_path, rehearse=True)
    group = child._process.pid

    told = child.result(left_s=120.0)

    assert told["state"] in ("timed out", "lacks a package")
    assert told["error"].startswith("timed out after")
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_process_that_leaves_no_result_is_a_failed_unit_with_what_it_printed(tmp_path: Path) -> None:
    told = Child(unit("no_such_unit"), tmp_path, rehearse=True).result(left_s=120.0)

    assert told["state"] == "failed"
    assert "StopIteration" in told["error"]


def test_a_stage_names_the_first_package_that_it_lacks() -> None:
    class Lacking:
        PACKAGES = ("json", "no_such_package", "neither_this")

    assert missing_package(Lacking) == "no_such_package"


def test_a_packed_stage_leaves_its_largest_files_out_and_unpacks_to_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "MOST_PACKED_BYTES", 8000)
    loose = tmp_path / "loose"
    (loose / "pairs" / "logs").mkdir(parents=True)
    (loose / "pairs" / "small.json").write_bytes(os.urandom(2000))
    (loose / "pairs" / "large.json").write_bytes(os.urandom(6000))
    (loose / "pairs" / "logs" / "x.txt").write_text("a log")
    (loose / results.CAMPAIGN).write_text("{}")
    results.append_line(loose, line("a"))

    left_out = results.pack(loose, tmp_path / "packed")
    again = results.unpack(tmp_path / "packed", tmp_path / "again")

    assert left_out == {"pairs": ["large.json"]}
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == [results.CAMPAIGN, "pairs.tar.gz"]
    assert (again / "pairs" / "small.json").read_bytes() == (loose / "pairs" / "small.json").read_bytes()
    assert sorted(path.name for path in (again / "pairs").iterdir()) == [results.LINES, "small.json"]


def test_a_rehearsal_and_a_recording_never_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / results.CAMPAIGN).write_text(json.dumps({"rehearsed": False}))

    with pytest.raises(SystemExit, match="other kind"):
        main(["--rehearse", "--out", str(tmp_path), "--only", "memory"])


def test_an_unknown_stage_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "probe", "--list"])

    assert "no stage probe: there are faults, memory" in capsys.readouterr().err


# --- collecting -------------------------------------------------------------------------------------------------------


def campaign_folder(folder: Path, *, rehearsed: bool = False, device: str = "NVIDIA H200") -> Path:
    """What a campaign leaves: two pairs that start from one config, a fault and one that costs too little."""
    environment = {"device": device, "torch": "2.11.0"}
    (folder / "pairs").mkdir(parents=True)
    (folder / results.CAMPAIGN).write_text(json.dumps({"rehearsed": rehearsed, "recorded_at": "2026-01-01"}))
    for transform, changes in (("bf16", {"precision": "bf16"}), ("tf32", {"matmul_precision": "high"})):
        traces = {side: {"file": f"{transform}.{side}.json.gz"} for side in ("before", "after")}
        for each in traces.values():
            (folder / "pairs" / each["file"]).write_bytes(os.urandom(1000))
        before = {"precision": "fp32", "matmul_precision": "highest"}
        told = {"transform": transform, "workload": "gpt", "before": before, "changes": changes, "traces": traces}
        results.append_line(folder, line(f"{transform}_gpt", result={**told, "environment": environment}))
    for name, clean_us in (("item_every_step", 50.0), ("emptied_cache", 99.0)):
        times = {"clean": {"wall_us": [clean_us, clean_us + 2]}, "faulty": {"wall_us": [100.0, 100.0]}}
        truth = {"of": "step", "share": 1 - clean_us / 100}
        fault = {"detector": "host_sync", "truth": truth, "times": times, "environment": environment}
        results.append_line(folder, line(name, stage_name="faults", result=fault, said="see /" + "root/x/y.py"))
    (folder / "faults" / "item_every_step").mkdir()
    (folder / "faults" / "item_every_step" / "rows.jsonl").write_text("[]\n")
    return folder


def test_a_sample_holds_each_trace_of_a_config_once_and_a_row_for_each_fault_that_costs_enough(tmp_path: Path) -> None:
    found = campaign_folder(tmp_path / "campaign")

    target = collect(found, tmp_path / "samples")

    assert target.name == "gpu_nvidia_h200"
    assert sorted(path.name for path in (target / "pairs").iterdir()) == [
        "bf16.after.json.gz",
        "bf16.before.json.gz",
        "tf32.after.json.gz",
    ]
    lines = [json.loads(text) for text in gzip.decompress((target / "pairs.jsonl.gz").read_bytes()).splitlines()]
    assert {each["result"]["traces"]["before"]["file"] for each in lines} == {"bf16.before.json.gz"}
    assert (target / "expected.csv").read_text().splitlines() == [
        "run,detector,severity,tolerance",
        "faults/item_every_step/faulty,host_sync,0.5000,0.0200",
    ]
    assert "/root" not in gzip.decompress((target / "faults.jsonl.gz").read_bytes()).decode()
    provenance = json.loads((target / "provenance.json").read_text())
    assert provenance["machine"]["device"] == "NVIDIA H200"
    assert provenance["units"]["pairs"] == {"ok": 2}


def test_traces_that_find_no_room_are_named_those_after_the_change_first(tmp_path: Path) -> None:
    found = campaign_folder(tmp_path / "campaign")

    target = collect(found, tmp_path / "samples", most_bytes=2000)

    assert json.loads((target / "provenance.json").read_text())["left_out"] == [
        "pairs/bf16.after.json.gz",
        "pairs/tf32.after.json.gz",
    ]
    assert [path.name for path in (target / "pairs").iterdir()] == ["bf16.before.json.gz"]


def test_a_packed_campaign_makes_the_same_sample(tmp_path: Path) -> None:
    found = campaign_folder(tmp_path / "campaign")
    results.pack(found, tmp_path / "packed")

    loose, packed = collect(found, tmp_path / "one"), collect(tmp_path / "packed", tmp_path / "two")

    assert {path.relative_to(loose): path.read_bytes() for path in loose.rglob("*") if path.is_file()} == {
        path.relative_to(packed): path.read_bytes() for path in packed.rglob("*") if path.is_file()
    }


def test_a_rehearsal_results_without_a_gpu_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectError, match="is a rehearsal"):
        collect(campaign_folder(tmp_path / "rehearsal", rehearsed=True), tmp_path / "samples")
    with pytest.raises(CollectError, match="of 0 cards"):
        collect(campaign_folder(tmp_path / "cpu", device="cpu"), tmp_path / "samples")
    with pytest.raises(CollectError, match=r"holds no campaign\.json"):
        collect(tmp_path, tmp_path / "samples")
    assert not (tmp_path / "samples").exists()


# --- snapshots of the allocator ---------------------------------------------------------------------------------------


def test_a_snapshot_is_kept_without_frames_names_and_times() -> None:
    frames = [{"filename": "secret.py", "line": 1, "name": "f"}]
    block = {"size": 512, "requested_size": 500, "state": "active_allocated", "frames": frames}
    free = {"size": 1024, "requested_size": 0, "state": "inactive", "address": 4608, "frames": []}
    segment = {
        "address": 4096,
        "total_size": 1536,
        "stream": 0,
        "segment_type": "small",
        "blocks": [block, free],
        "frames": frames,
    }
    event = {"action": "alloc", "addr": 4096, "size": 512, "stream": 0, "frames": frames, "time_us": 5}

    slim = memory.frameless(
        {"segments": [segment], "device_traces": [[event]], "allocator_settings": {"expandable_segments": False}}
    )

    assert slim == {
        "segments": [
            {
                "address": 4096,
                "total_size": 1536,
                "stream": 0,
                "segment_type": "small",
                "blocks": [[4096, 512, 500, "active_allocated"], [4608, 1024, 0, "inactive"]],
            }
        ],
        "event_columns": ["action", "addr", "size", "stream"],
        "events": [[["alloc", 4096, 512, 0]]],
        "allocator_settings": {"expandable_segments": False},
    }


# --- the whole rehearsal ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.torch
def test_the_whole_rehearsal_passes_within_three_minutes_packs_few_small_files_and_is_not_run_twice(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, str(ROOT / "benchmarks/gpu/campaign.py"), "--rehearse", "--out", str(tmp_path / "out")]
    started = time.monotonic()

    first = subprocess.run([*command, "--seconds", str(REHEARSAL_S)], capture_output=True, text=True, check=False, cwd=tmp_path)
    took = time.monotonic() - started
    second = subprocess.run([*command, "--seconds", "20"], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert first.returncode == 0, first.stdout[-4000:]
    assert took <= REHEARSAL_S
    lines = list(results.lines(tmp_path / "out"))
    assert {each["state"] for each in lines} <= {"ok", "needs CUDA"}
    assert {each["stage"] for each in lines} == set(stage_names())
    packed = [path for path in (tmp_path / "out" / "packed").iterdir() if path.is_file()]
    assert len(packed) <= MOST_FILES
    assert max(path.stat().st_size for path in packed) <= MOST_FILE_BYTES
    assert second.returncode == 0
    assert f"{len(lines)} of {len(lines)} units have a result already" in second.stdout
    for path in packed:
        if path.suffix == ".gz":
            with tarfile.open(path) as archive:
                assert all(member.isfile() and member.uname == "" for member in archive.getmembers())
