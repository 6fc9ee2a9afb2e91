"""The format of a training log is told from its content; what is none says what it is."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from perfnb.errors import LogFormatError
from perfnb.read.training_log import FORMATS, read_training_log
from perfnb.read.training_log.formats import format_of


@pytest.mark.parametrize(
    ("content", "format_name"),
    [
        (b"step,loss\n0,1.0\n", "csv"),
        (b"\xef\xbb\xbfstep\tloss\n0\t1.0\n", "csv"),
        ("step,loss\n0,1.0\n".encode("utf-16"), "csv"),
        (b'{"step": 0, "loss": 1.0}\n{"step": 1, "loss": 0.5}\n', "json"),
        (b'{"step": 0, "loss": 1.0}', "json"),
        (b'[{"step": 0, "loss": 1.0}]', "json"),
        (b'{"step": [0], "loss": [1.0]}', "json"),
    ],
)
def test_tables_are_told_from_their_content_and_read(content: bytes, format_name: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(content)

    assert format_of(file) == format_name
    assert read_training_log(file).training["loss"].iloc[0] == 1.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"loss": 1}), "a pickle, which could run code"),
        (b"PK\x03\x04rest", "a zip archive or a torch checkpoint"),
        (b"\x1f\x8b\x08\0", "compressed with gzip: unpack it first"),
        (b":W&B\0\0", "wandb's own transaction log: export it as JSONL"),
        (b"<html>", "HTML or XML"),
        (b"\x89PNG", "a picture"),
        (b"\x01\x02\0\0\0", "binary, of no kind that is known"),
        (b"Epoch 1 of 3 loss: 2.3\n", "text in lines of no known form"),
        (b"  \n", "is empty"),
    ],
)
def test_what_is_no_log_says_what_it_is_and_what_is_known(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(content)

    with pytest.raises(LogFormatError, match=said):
        read_training_log(tmp_path / "log.csv")


def test_a_folder_without_a_log_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")

    with pytest.raises(LogFormatError, match=r"without a log that is known \(it holds weights\.bin\): known are trainer_state"):
        read_training_log(tmp_path)
    with pytest.raises(LogFormatError, match=r"nothing\.csv does not exist"):
        read_training_log(tmp_path / "nothing.csv")


def test_a_format_can_be_named_and_must_be_known(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("step,loss\n0,1.0\n", encoding="utf-8")

    assert len(read_training_log(tmp_path / "log", format="csv").training) == 1
    with pytest.raises(LogFormatError, match=f"format='excel' is not known: use {', '.join(FORMATS)}"):
        read_training_log(tmp_path / "log", format="excel")


def test_the_history_of_wandb_counts_steps_of_the_training_where_it_has_them(tmp_path: Path) -> None:
    rows = [
        {"_step": n, "_timestamp": 1.79e9 + n, "_runtime": n, "train/global_step": 10 * n, "train/loss": 1.0, "_wandb.runtime": n}
        for n in range(3)
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    run = read_training_log(tmp_path / "history.jsonl")

    assert run.training["step"].to_list() == [0, 10, 20]
    assert run.training["time_us"].to_list() == [0.0, 1e6, 2e6]
    assert "_step" in run.metrics["name"].to_list()


def test_units_are_given_as_for_metrics(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,step_time\n0,0.5\n1,0.25\n", encoding="utf-8")

    with pytest.raises(LogFormatError, match=r'units={"step_time": "s"}'):
        read_training_log(tmp_path / "log.csv")
    assert read_training_log(tmp_path / "log.csv", units={"step_time": "s"}).steps["duration_us"].to_list() == [5e5, 2.5e5]
