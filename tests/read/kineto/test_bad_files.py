"""Bad input: each file gets one error that says what is wrong, what is there and what to do."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest

from perfnb.catalogue import detectors
from perfnb.diagnose import diagnose
from perfnb.errors import NoStepsError, NotATraceError, TraceFormatError, TruncatedTraceWarning
from perfnb.ledger import step_ledger
from perfnb.read.kineto import read_kineto
from tests.read.kineto.traces import event, training, write


@pytest.mark.no_cover
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_file_that_is_cut_off_is_read_up_to_its_last_whole_event(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"whole{suffix}", training(100))
    whole, content = read_kineto(path).host_ops, path.read_bytes()
    read = 0
    for length in range(len(content) // 20, len(content), len(content) // 20):
        (tmp_path / f"cut{suffix}").write_bytes(content[:length])

        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                cut = read_kineto(tmp_path / f"cut{suffix}")
        except TraceFormatError as error:
            message = str(error)  # a few bytes hold no whole event
            assert re.search(r"ends early at byte|before (the first|any) event", message)
            continue

        read += 1
        assert [each.category for each in caught] == [TruncatedTraceWarning]
        assert re.search(r"^cut\.json.* ends early at byte [\d,]+ \(uncompressed\)", str(caught[0].message))
        assert "ends early" in cut.notes[0] or any("ends early" in note for note in cut.notes)
        assert not len(cut.steps) or bool(cut.steps["is_edge"].iloc[-1])
        pd.testing.assert_frame_equal(
            cut.host_ops[["start_us", "duration_us"]],
            whole.iloc[: len(cut.host_ops)][["start_us", "duration_us"]],
        )
        assert cut.host_ops["name"].to_list() == whole["name"].to_list()[: len(cut.host_ops)]
    assert read >= 10


def test_json_that_breaks_in_the_middle_names_the_byte_and_the_event(tmp_path: Path) -> None:
    text = json.dumps({"traceEvents": training(2)}).replace('"aten::linear"', '"aten::linear', 1)
    (tmp_path / "t.json").write_text(text)

    with pytest.raises(TraceFormatError, match=r"t\.json is malformed in event 3, \d+ bytes .*near '.*pid.*Expecting"):
        read_kineto(tmp_path / "t.json")
    with pytest.warns(TruncatedTraceWarning):
        assert len(read_kineto(tmp_path / "t.json", partial=True).host_ops) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (gzip.compress(b"", mtime=0), "is empty|no valid JSON|holds nothing"),
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
    of_time = {each.name for each in detectors() if each.unit == "time"}
    unmeasured = diagnosis.not_measured[diagnosis.not_measured["detector"].isin(of_time)]
    assert len(unmeasured) == len(of_time)
    assert unmeasured["reason"].str.contains("no ProfilerStep ranges").all()


def test_only_python_functions_is_an_error_with_what_to_record(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="no complete event"):
        read_kineto(write(tmp_path / "t.json", [event("f", "python_function", 0, 1)]))


def test_what_is_no_trace_can_be_told_from_what_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")

    with pytest.raises(NotATraceError):
        read_kineto(tmp_path / "a.json")


def test_step_numbers_that_repeat_give_way_to_the_order(tmp_path: Path) -> None:
    events = training(3) + training(3, start=2_000_000.0)

    run = read_kineto(write(tmp_path / "t.json", events))

    assert run.steps["step"].to_list() == [0, 1, 2, 3, 4, 5]
    assert any("step numbers repeat" in note for note in run.notes)
    step_ledger(run)


def test_steps_that_a_second_thread_marks_too_count_once(tmp_path: Path) -> None:
    events = [*training(4), event("ProfilerStep#1", "user_annotation", 1_000_130, 20.0, thread=2)]

    assert read_kineto(write(tmp_path / "t.json", events)).steps["step"].to_list() == [0, 1, 2, 3]


def test_a_step_number_too_long_for_a_number_gives_way_to_the_order(tmp_path: Path) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event("ProfilerStep#1" + "0" * 25, "user_annotation", 0, 9.0)]))

    assert run.steps["step"].to_list() == [0]


def test_steps_without_a_duration_are_left_out_and_never_a_finding(tmp_path: Path) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event(f"ProfilerStep#{n}", "user_annotation", n, 0) for n in range(8)]))

    assert run.steps.empty
    assert any("left out 8 steps without a duration" in note for note in run.notes)
    assert diagnose(run).findings.empty


def test_bytes_that_are_no_utf8_are_replaced_and_said(tmp_path: Path) -> None:
    text = write(tmp_path / "t.json", training()).read_bytes().replace(b"aten::linear", b"aten::lin\xffar")
    (tmp_path / "t.json").write_bytes(text)

    run = read_kineto(tmp_path / "t.json")

    assert "aten::lin\ufffdar" in run.host_ops["name"].to_list()
    assert any("no UTF-8" in note for note in run.notes)


def test_arguments_nested_without_end_are_refused(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "t.json").write_text(f'{{"traceEvents": [{{"ph":"X","name":"a","ts":1,"dur":1,"args":{{"device":{deep}}}}}]}}')

    with pytest.raises(TraceFormatError, match="nested too deeply"):
        read_kineto(tmp_path / "t.json")


def test_numbers_past_any_size_are_missing_not_an_error(tmp_path: Path) -> None:
    shapes = {"Input Dims": [[2**40, 2**40]], "Input type": ["float"]}
    events = [*training(), event("gloo:all_reduce", "user_annotation", 1_000_050, 9, thread=2, **shapes)]
    keys = {"distributedInfo": {"rank": 10**30}, "deviceProperties": [{"name": "x", "totalGlobalMem": 10**40}]}

    run = read_kineto(write(tmp_path / "t.json", events, **keys))

    assert run.collectives["elements_in"].isna().all()
    assert run.ranks == (0,)
    assert run.machine.device_memory_bytes == (0,)


def test_a_config_beside_the_trace_is_the_run_s(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", training())
    (tmp_path / "config.json").write_text('{"num_workers": 3}')
    assert read_kineto(path).config == {"num_workers": 3}

    (tmp_path / "config.json").write_text("{")
    assert any("config.json is not JSON" in note for note in read_kineto(path).notes)


def test_a_whole_event_before_what_is_no_json_is_kept(tmp_path: Path) -> None:
    whole = json.dumps({"traceEvents": training(3)}).removesuffix("]}")
    (tmp_path / "t.json").write_text(whole + "{}, ]}")

    with pytest.warns(TruncatedTraceWarning):
        run = read_kineto(tmp_path / "t.json")

    assert len(run.host_ops) == len(training(3))


def test_keys_nested_deeply_after_the_events_are_no_cut(tmp_path: Path) -> None:
    deep = '{"a":' * 500 + "1" + "}" * 500
    (tmp_path / "t.json").write_text('{"traceEvents": ' + json.dumps(training(2)) + ', "other": ' + deep + "}")

    run = read_kineto(tmp_path / "t.json")

    assert not any("ends early" in note for note in run.notes)


def test_ranks_of_thousands_of_digits_are_no_members(tmp_path: Path) -> None:
    named = {"Collective name": "allreduce", "Process Group Ranks": f"[{'9' * 5000}]"}
    kernel = event("ncclKernel_AllReduce", "kernel", 5, 3, **named)

    run = read_kineto(write(tmp_path / "t.json", [*training(2), kernel]))

    assert run.collectives["members"].isna().all()
