"""Timelines that torch's older export wrote: categories and sizes as rows, and files of other shapes refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.errors import SnapshotFormatError
from perfnb.run import Run

PARAMETER, OPTIMIZER_STATE, BATCH, TEMPORARY, ACTIVATION, GRADIENT, _DETAIL, UNKNOWN = range(8)
EXISTING, CREATE, CHANGED, DESTROY = 1, 2, 3, 4


def read(folder: Path, plain: Any, name: str = "memory.raw.json.gz") -> Run:
    path = folder / name
    content = json.dumps(plain).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return perfnb.read_memory_snapshot(path)


def test_single_events_become_rows_with_their_category(tmp_path: Path) -> None:
    events = [
        [-1, EXISTING, 4000, PARAMETER],
        [2_000_000, CREATE, 1000, TEMPORARY],
        [2_005_000, CHANGED, -1000, TEMPORARY],
        [2_005_000, CHANGED, 1000, ACTIVATION],
        [2_009_000, DESTROY, -1000, ACTIVATION],
    ]

    run = read(tmp_path, events)

    rows = run.allocations
    assert rows["action"].tolist() == ["existing", "alloc", "category_changed", "category_changed", "free_requested"]
    assert rows["category"].tolist() == ["parameter", "temporary", "temporary", "activation", "activation"]
    assert rows["bytes"].tolist() == [4000, 1000, -1000, 1000, -1000]
    assert rows["allocated_bytes"].tolist() == [4000, 5000, 4000, 5000, 4000]
    assert rows["sequence"].tolist() == [-1, 0, 1, 2, 3]
    assert rows["time_us"].tolist()[1:] == [0, 5, 5, 9]
    assert "cannot be replayed" in run.missing["memory_start_state"]


def test_totals_by_category_become_their_changes(tmp_path: Path) -> None:
    times = [100, 110, 130]
    sizes = [
        [0, 4000, 0, 0, 0, 0, 0, 0, 0],
        [0, 4000, 0, 500, 0, 900, 0, 0, 0],
        [0, 4000, 0, 500, 0, 0, 300, 0, 0],
    ]

    rows = read(tmp_path, [times, sizes], "memory.json").allocations

    assert list(zip(rows["time_us"], rows["category"], rows["bytes"], strict=True)) == [
        (0, "parameter", 4000),
        (10, "batch", 500),
        (10, "activation", 900),
        (30, "activation", -900),
        (30, "gradient", 300),
    ]
    assert rows["allocated_bytes"].fillna(-1).tolist() == [4000, -1, 5400, -1, 4800]  # known once a moment is complete


@pytest.mark.torch
@pytest.mark.parametrize("name", ["memory.json", "memory.json.gz", "memory.raw.json.gz"])
def test_what_torch_itself_exports_is_read(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    model, batch = torch.nn.Linear(8, 4), torch.ones(2, 8)
    with torch.profiler.profile(profile_memory=True, record_shapes=True, with_stack=True) as profiler:
        model(batch).sum().backward()
    with pytest.warns(FutureWarning, match="export_memory_timeline"):
        profiler.export_memory_timeline(str(tmp_path / name), device="cpu")

    rows = perfnb.read_memory_snapshot(tmp_path / name).allocations

    # 8 x 4 weights and 4 biases of 4 bytes each
    weights = rows.loc[rows["category"].eq("parameter"), "bytes"].sum()
    assert weights == 36 * 4
    assert rows["allocated_bytes"].max() >= weights


@pytest.mark.parametrize(
    ("says", "plain"),
    [
        ("none of torch's memory timelines", [1, 2, 3]),
        ("none of torch's memory timelines", [[1, 2], [[0], [1]]]),
        ("an action or a category that torch does not have", [[0, 9, 1, 0]]),
        ("an action or a category that torch does not have", [[0, CREATE, 1, 8]]),
        ("no whole number", [[0, CREATE, "x", 0]]),
        ("no whole number", [[0, CREATE, 1 << 63, 0]]),
        ("no whole number", [[0, CREATE, None, 0]]),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, says: str, plain: Any) -> None:
    with pytest.raises(SnapshotFormatError, match=says):
        read(tmp_path, plain)
