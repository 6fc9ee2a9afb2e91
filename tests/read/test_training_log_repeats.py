"""A step that is there twice in a file: rows of several ranks are refused as in a list, a training that went back is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perfnb.errors import LogFormatError
from perfnb.read.metrics import read_metrics
from perfnb.read.training_log import read_training_log

FORMS = ["csv", "tsv", "jsonl", "json", "parquet"]
Log = list[dict[str, Any]]


def written(folder: Path, form: str, rows: Log) -> Path:
    file = folder / f"log.{form}"
    if form == "parquet":
        pytest.importorskip("pyarrow")
        pd.DataFrame(rows).to_parquet(file)
    elif form in ("csv", "tsv"):
        pd.DataFrame(rows).to_csv(file, index=False, sep="," if form == "csv" else "\t")
    else:
        file.write_text("\n".join(map(json.dumps, rows)) if form == "jsonl" else json.dumps(rows), encoding="utf-8")
    return file


def rows_at(steps: list[int], **more: list[Any]) -> Log:
    """Rows of steps, each 1 ms longer than the row before."""
    return [
        {"step": step, "step_time_ms": 100.0 + row, **{name: values[row] for name, values in more.items()}}
        for row, step in enumerate(steps)
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 2, 2, 1, 1, 2, 2]])
def test_rows_of_two_ranks_are_refused_in_each_form(form: str, steps: list[int], tmp_path: Path) -> None:
    rows = rows_at(steps)

    for read in (lambda: read_metrics(rows), lambda: read_training_log(written(tmp_path, form, rows))):
        with pytest.raises(LogFormatError, match=r"step 0 is there 2 times.*for a log of several ranks add a column rank"):
            read()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("steps", "times", "said"),
    [
        ([0, 1, 2, 3, 2, 3, 4], [100, 101, 104, 105, 106], "went back to step 2: 2 rows up to step 3"),
        ([0, 1, 2, 0, 1, 2, 3], [103, 104, 105, 106], "went back to step 0: 3 rows up to step 2"),
    ],
)
def test_a_training_that_went_back_keeps_its_later_rows(
    form: str, steps: list[int], times: list[int], said: str, tmp_path: Path
) -> None:
    run = read_training_log(written(tmp_path, form, rows_at(steps)))

    assert run.steps["duration_us"].to_list() == [1e3 * time for time in times]
    assert said in " ".join(run.notes)


def test_rows_that_go_back_in_time_are_those_of_another_rank(tmp_path: Path) -> None:
    moments = [1_790_000_000.0 + second for second in (1, 2, 3, 2, 3, 4)]

    with pytest.raises(LogFormatError, match="step 1 is there 2 times"):
        read_training_log(written(tmp_path, "csv", rows_at([0, 1, 2, 1, 2, 3], timestamp=moments)))


def test_two_times_of_one_step_are_refused_under_the_name_of_lightnings_file_too(tmp_path: Path) -> None:
    file = written(tmp_path, "csv", rows_at([0, 0, 1, 1], epoch=[0] * 4))

    with pytest.raises(LogFormatError, match="step 0 is there 2 times"):
        read_training_log(file.rename(tmp_path / "metrics.csv"))


def test_rows_of_a_trainer_that_contradict_one_another_are_joined_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,val_loss\n0,0,2.0\n0,0,1.5\n", encoding="utf-8")

    run = read_training_log(tmp_path / "metrics.csv")

    assert run.training["validation_loss"].to_list() == [1.5]
    assert "rows of one step contradict one another: of each column the last value counts" in run.notes


def test_counters_that_go_on_within_a_step_are_no_contradiction(tmp_path: Path) -> None:
    rows = [
        {
            "_step": n,
            "_timestamp": 1.79e9 + n,
            "_runtime": n,
            "train/global_step": n // 2,
            "eval/loss" if n % 2 else "train/loss": 1.5,
        }
        for n in range(4)
    ]

    run = read_training_log(written(tmp_path, "jsonl", rows))

    assert run.training[["step", "loss", "validation_loss"]].to_numpy().tolist() == [[0, 1.5, 1.5], [1, 1.5, 1.5]]
