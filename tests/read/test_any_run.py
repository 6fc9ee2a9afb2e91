"""What a path names, and whose error is said where it cannot be read: that of what lies there."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from perfnb.errors import LogFormatError, TraceFormatError
from perfnb.read.any_run import holds_trace, read_run_or_log

ROWS = pd.DataFrame({"step": [0, 1], "step_time": [0.05, 0.06]})
DAMAGED = '{"schemaVersion": 1, "traceEvents": [{"ph": "X", "ts": 1, "dur": 2, "name": "a"}, {"ph" 3}]}'


def csv(folder: Path) -> Path:
    ROWS.to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def tsv(folder: Path) -> Path:
    ROWS.to_csv(folder / "rows.tsv", index=False, sep="\t")
    return folder / "rows.tsv"


def parquet(folder: Path) -> Path:
    ROWS.to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def json_list(folder: Path) -> Path:
    ROWS.to_json(folder / "rows.json", orient="records")
    return folder / "rows.json"


def jsonl(folder: Path) -> Path:
    ROWS.to_json(folder / "rows.jsonl", orient="records", lines=True)
    return folder / "rows.jsonl"


def lightning(folder: Path) -> Path:
    (folder / "metrics.csv").write_text("epoch,step,step_time\n0,0,0.05\n0,1,0.06\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("make", [csv, tsv, parquet, json_list, jsonl, lightning])
def test_of_rows_what_is_wrong_with_the_rows_is_said(make: object, tmp_path: Path) -> None:
    path = make(tmp_path)  # type: ignore[operator]

    with pytest.raises(LogFormatError, match=r"step_time.*unit"):
        read_run_or_log(path)


def test_of_rows_without_any_row_and_of_units_that_fit_no_column_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "head.csv").write_text("step,step_time_ms\n", encoding="utf-8")

    with pytest.raises(LogFormatError, match="holds no rows"):
        read_run_or_log(tmp_path / "head.csv")
    with pytest.raises(LogFormatError, match="tsep_time"):
        read_run_or_log(csv(tmp_path), units={"tsep_time": "s"})


def test_of_a_trace_what_is_wrong_with_the_trace_is_said(tmp_path: Path) -> None:
    bare = DAMAGED[DAMAGED.index("[") : -1]
    for name, text in (("object.json", DAMAGED), ("list.json", bare)):
        (tmp_path / name).write_text(text, encoding="utf-8")

        with pytest.raises(TraceFormatError, match="malformed in event 2"):
            read_run_or_log(tmp_path / name)


def test_of_a_folder_with_a_trace_and_a_log_the_traces_error_is_said(tmp_path: Path) -> None:
    lightning(tmp_path)
    (tmp_path / "rank0.json").write_text(DAMAGED, encoding="utf-8")

    with pytest.raises(TraceFormatError, match=r"rank0\.json is malformed"):
        read_run_or_log(tmp_path)


def test_of_a_folder_with_neither_both_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_workers": 0}', encoding="utf-8")

    with pytest.raises(
        LogFormatError, match=r"without a log that is known .*holds config\.json.* or a folder of profiler traces"
    ):
        read_run_or_log(tmp_path)


def test_a_trace_is_known_by_its_marks_also_when_it_is_packed_or_damaged(tmp_path: Path) -> None:
    whole = gzip.compress(DAMAGED.encode())
    files = {
        "trace.json.gz": (whole, True),
        "cut.json.gz": (whole[:20], True),
        "config.json.gz": (gzip.compress(b'{"num_workers": 0}'), False),
        "trace.txt": (b"\xef\xbb\xbf " + DAMAGED.encode(), True),
        "far.json": (b'{"deviceProperties": "' + b" " * (1 << 20) + b'", "traceEvents": []}', True),
        "rows.csv": (b"step,ph\n0,1\n", False),
    }

    for name, (content, expected) in files.items():
        (tmp_path / name).write_bytes(content)
        assert holds_trace(tmp_path / name) is expected, name
    assert not holds_trace(tmp_path / "nowhere.json")
