"""Bad input: each file gets one error that says what is wrong, what is there and what to do."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from perfnb.diagnose import diagnose
from perfnb.errors import NoStepsError, NotATraceError, TraceFormatError
from perfnb.ledger import step_ledger
from perfnb.read.kineto import read_kineto
from tests.read.kineto.traces import event, training, write


def test_a_gzip_file_that_is_cut_off_says_where(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.json.gz", training(400)).read_bytes()
    for share in (0.3, 0.6, 0.9, 0.999):
        (tmp_path / "cut.json.gz").write_bytes(whole[: int(len(whole) * share)])

        with pytest.raises(TraceFormatError, match=r"cut\.json\.gz ends early.*record or copy it again"):
            read_kineto(tmp_path / "cut.json.gz")


def test_a_plain_file_that_is_cut_off_names_the_event(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.json", training(10)).read_bytes()
    for length in range(60, len(whole), 97):
        (tmp_path / "cut.json").write_bytes(whole[:length])

        with pytest.raises(TraceFormatError, match=r"cut\.json (ends early|is no valid JSON)"):
            read_kineto(tmp_path / "cut.json")


def test_json_that_breaks_in_the_middle_names_the_byte_and_the_event(tmp_path: Path) -> None:
    text = json.dumps({"traceEvents": training(2)}).replace('"aten::linear"', '"aten::linear', 1)
    (tmp_path / "t.json").write_text(text)

    with pytest.raises(TraceFormatError, match=r"malformed in event 3, \d+ bytes into the text"):
        read_kineto(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (gzip.compress(b""), "is empty|no valid JSON|holds nothing"),
        (
            b'{"num_workers": 4, "batch_size": 8}',
            "is no profiler trace: JSON with num_workers, batch_size and no list traceEvents",
        ),
        (b"{}", "no key and no list traceEvents"),
        (b'{"traceEvents": []}', "empty event list"),
        (b"[]", "empty event list"),
        (b"[1, 2, 3]", "3 entries, none of them an event"),
        (b'{"note": "traceEvents: ["', "no valid JSON"),
        (b"<!doctype html><html></html>", "HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (pickle.dumps({"segments": []}), "a pickle"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x1f\x8bnot gzip at all", "damaged|ends early"),
        (b"rank step\n0 1", "no JSON"),
    ],
)
def test_a_file_that_is_no_trace_is_named_for_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.json").write_bytes(content)

    with pytest.raises(TraceFormatError, match=message):
        read_kineto(tmp_path / "file.json")


def test_a_folder_without_traces_lists_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(TraceFormatError, match=r"holds no \*\.json or \*\.json\.gz file \(it holds notes\.txt\)"):
        read_kineto(tmp_path)

    (tmp_path / "config.json").write_text('{"num_workers": 4}')
    with pytest.raises(TraceFormatError, match=r"no profiler trace in .*config.json: JSON with num_workers"):
        read_kineto(tmp_path)


def test_a_damaged_rank_in_a_folder_is_an_error_never_skipped(tmp_path: Path) -> None:
    good = write(tmp_path / "rank0.json.gz", training(300), distributedInfo={"rank": 0})
    (tmp_path / "rank1.json.gz").write_bytes(good.read_bytes()[:200])

    with pytest.raises(TraceFormatError, match=r"rank1\.json.gz ends early"):
        read_kineto(tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"missing\.json does not exist"):
        read_kineto(tmp_path / "missing.json")


def test_a_trace_without_steps_answers_whole_window_questions_and_refuses_step_questions(tmp_path: Path) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event("k", "kernel", 0, 1, device=0), event("aten::add", "cpu_op", 0, 1)]))

    with pytest.raises(NoStepsError, match=r"no ProfilerStep ranges: call prof\.step\(\) once per iteration"):
        step_ledger(run)
    diagnosis = diagnose(run)
    assert diagnosis.findings.empty
    assert diagnosis.not_measured["reason"].str.contains("no ProfilerStep ranges").all()


def test_only_python_functions_is_an_error_with_what_to_record(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="no complete event"):
        read_kineto(write(tmp_path / "t.json", [event("f", "python_function", 0, 1)]))


def test_what_is_no_trace_can_be_told_from_what_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")

    with pytest.raises(NotATraceError):
        read_kineto(tmp_path / "a.json")
