"""The program that says how exactly recordings are repeated: one row per snapshot, a status by those of default settings."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.stages.memory import frameless
from benchmarks.memory.replay_exactness import main

MIB = 1 << 20
BASE = 0x7F00_0000_0000


def snapshot(address: int = BASE, **settings: Any) -> dict[str, Any]:
    """One segment of 20 MiB, of which 5 MiB are handed out at an address."""
    blocks = [(BASE, address - BASE, "inactive"), (address, 5 * MIB, "active_allocated")]
    blocks.append((address + 5 * MIB, BASE + 15 * MIB - address, "inactive"))
    return {
        "segments": [
            {
                "device": 0,
                "address": BASE,
                "total_size": 20 * MIB,
                "stream": 0,
                "segment_type": "large",
                "blocks": [
                    {"address": start, "size": size, "requested_size": 5 * MIB, "state": state}
                    for start, size, state in blocks
                    if size
                ],
            }
        ],
        "device_traces": [
            [
                {"action": "segment_alloc", "addr": BASE, "size": 20 * MIB, "stream": 0},
                {"action": "alloc", "addr": address, "size": 5 * MIB, "stream": 0},
            ]
        ],
        "allocator_settings": {"max_split_size": -1, "expandable_segments": False} | settings,
    }


def test_every_snapshot_below_a_folder_is_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "rank0.pickle").write_bytes(pickle.dumps(snapshot(), 4))
    packed = gzip.compress(json.dumps(frameless(snapshot())).encode())
    (tmp_path / "memory" / "gpt.snapshot.json.gz").write_bytes(packed)
    (tmp_path / "memory" / "gpt.json").write_text("no snapshot, by its name", encoding="utf-8")

    status = main([str(tmp_path), "--csv", str(tmp_path / "rows.csv")])

    said = capsys.readouterr().out
    assert status == 0
    assert "default: 2 of 2 allocations at the real address, 2 of 2 new segments, 2 of 2 recordings exact" in said
    assert len((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_a_divergence_with_default_settings_fails_and_others_are_only_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rank0.pickle"
    path.write_bytes(pickle.dumps(snapshot(BASE + MIB), 4))

    assert main([str(path)]) == 1
    assert "event 1: another address is predicted" in capsys.readouterr().out

    path.write_bytes(pickle.dumps(snapshot(BASE + MIB, max_split_size=64 * MIB), 4))

    assert main([str(path)]) == 0
    assert "max_split_size_mb=64: 0 of 1 allocations at the real address" in capsys.readouterr().out


def test_what_cannot_be_read_or_repeated_has_a_row_that_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, contradictory = tmp_path / "broken.pickle", tmp_path / "other.pickle"
    broken.write_bytes(b"\x80\x04N")
    plain = snapshot()
    plain["device_traces"][0][1]["size"] = 7
    contradictory.write_bytes(pickle.dumps(plain, 4))

    main([str(broken), str(contradictory)])

    said = capsys.readouterr().out
    assert "broken.pickle: ends without the instruction STOP" in said
    assert "events and state at the end disagree at event 1" in said


def test_a_folder_without_snapshots_says_what_was_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert ".snapshot.json.gz" in capsys.readouterr().out
