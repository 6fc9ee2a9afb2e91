"""The command line: one JSON object or aligned text on stdout, one line on stderr and exit code 2 where there is no answer."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import perfnb
from perfnb import json_output, terminal
from perfnb.__main__ import main

LARGEST_TRACE_BYTES = 200_000  # larger ones take seconds each; tests of the reader cover them
STEPS, STEP_US, LOADER_US, KERNEL_US = 6, 1000, 600, 380
Answer = Callable[..., str]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A device job of six steps of 1000 us: 600 us in the loader, 20 us until the kernel starts, 380 us of computing."""
    events = [event for step in range(STEPS) for event in _step(step)]
    return _written(tmp_path / "run" / "trace.json", events)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    """What a command prints; it may print nothing on stderr and must end well."""

    def run(*words: object) -> str:
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        return printed.out

    return run


def test_analyze_prints_one_json_object_of_what_was_found(trace: Path, answer: Answer) -> None:
    found = json.loads(answer("analyze", trace, "--json"))

    (finding,) = found["findings"]
    assert finding["detector"] == "data_stall"
    assert finding["category"] == "data"
    # each of the five used steps waits 600 of its 1000 us, so that resampling them changes nothing
    assert [finding[name] for name in ("severity", "low", "high", "lost_us")] == pytest.approx([0.6, 0.6, 0.6, 600])
    assert finding["ranks"] == [0]
    assert set(finding) == {"detector", "category", "severity", "low", "high", "lost_us", "confidence", "ranks", "summary"}
    assert {"slow_rank"} <= {each["detector"] for each in found["not_measured"]}
    assert {"host_sync"} <= {each["detector"] for each in found["not_limiting"]}
    assert found["step"]["step_us"] == STEP_US


def test_analyze_states_each_suggestion_with_its_change_and_either_a_prediction_or_why_there_is_none(
    trace: Path, answer: Answer
) -> None:
    config = _config(trace, {"num_workers": 0, "batch_size": 8})

    suggestions = json.loads(answer("analyze", trace, "--config", config, "--json"))["suggestions"]

    (raised,) = [each for each in suggestions if each["fix"] == "raise_num_workers"]
    assert (raised["knob"], raised["before"]) == ("num_workers", 0)
    assert raised["after"] > 0
    assert raised["changes"] == [{"knob": "num_workers", "before": 0, "after": raised["after"]}]
    for suggestion in suggestions:
        assert ("prediction" in suggestion) != ("unknown" in suggestion)
    for prediction in [each["prediction"] for each in suggestions if "prediction" in each]:
        assert set(prediction) == {"metric", "before", "after", "low", "high", "basis"}
        assert prediction["low"] <= prediction["after"] <= prediction["high"]


def test_the_config_beside_the_trace_is_read_where_none_is_named(trace: Path, answer: Answer) -> None:
    without = json.loads(answer("analyze", trace, "--json"))["suggestions"]
    _config(trace, {"num_workers": 0, "batch_size": 8}, name="config.json")

    beside_file = json.loads(answer("analyze", trace, "--json"))["suggestions"]
    in_folder = json.loads(answer("analyze", trace.parent, "--json"))["suggestions"]

    assert [each["fix"] for each in without] == []
    assert "raise_num_workers" in [each["fix"] for each in beside_file]
    assert in_folder == beside_file


def test_predict_answers_with_a_prediction_or_with_what_it_would_need(trace: Path, answer: Answer) -> None:
    config = _config(trace, {"num_workers": 0, "batch_size": 8})

    predicted = json.loads(answer("predict", trace, "--config", config, "--set", "num_workers=4", "--json"))
    unknown = json.loads(answer("predict", trace, "--config", config, "--set", "batch_size=16", "--json"))

    prediction = predicted["prediction"]
    assert prediction["metric"] == "step_us"
    assert prediction["before"] == pytest.approx(STEP_US)
    # the loader's time is all that workers can hide: no step gets shorter than its device work
    assert KERNEL_US <= prediction["after"] < STEP_US
    assert prediction["low"] <= prediction["after"] <= prediction["high"]
    assert set(unknown) == {"unknown"}
    assert all(unknown["unknown"][name] for name in ("reason", "needs"))


def test_breakdown_prints_the_rows_of_the_device(trace: Path, answer: Answer) -> None:
    rows = json.loads(answer("breakdown", trace, "--json"))["rows"]

    # from the first kernel's start at 620 us to the last one's end at 6000 us
    (row,) = rows
    assert row["window_us"] == STEPS * STEP_US - 620
    assert row["compute_us"] == STEPS * KERNEL_US
    assert row["idle_us"] == row["window_us"] - row["compute_us"]


def test_breakdown_by_step_has_a_row_per_step(trace: Path, answer: Answer) -> None:
    rows = json.loads(answer("breakdown", trace, "--by", "step", "--json"))["rows"]

    assert [row["step"] for row in rows] == list(range(STEPS))
    assert {row["compute_us"] for row in rows} == {KERNEL_US}


def test_breakdown_of_a_job_without_device_says_why_it_has_no_rows(tmp_path: Path, answer: Answer) -> None:
    host_only = _written(tmp_path / "host.json", [event for event in _step(0) if event["cat"] != "kernel"])

    said = json.loads(answer("breakdown", host_only, "--json"))
    text = answer("breakdown", host_only)

    assert said["rows"] == []
    assert said["missing"]
    assert said["missing"] in text


def test_plain_text_names_what_was_found_what_is_fine_and_what_was_not_measured(trace: Path, answer: Answer) -> None:
    config = _config(trace, {"num_workers": 0, "batch_size": 8})

    text = answer("analyze", trace, "--config", config)

    for word in ("Found", "data_stall", "60 %", "Suggested", "num_workers: 0 -> ", "not limiting", "Not measured", "slow_rank"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_plain_text_of_a_prediction_states_the_change_the_interval_and_the_basis(trace: Path, answer: Answer) -> None:
    config = _config(trace, {"data": {"num_workers": 0}, "batch_size": 8})

    text = answer("predict", trace, "--config", config, "--set", "num_workers=4")

    assert text.splitlines()[:2] == ["  knob         before  after", "  num_workers  0       4"]
    assert "80 %" in text
    assert "Basis: " in text


def test_a_run_without_steps_is_an_error_that_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = _written(tmp_path / "stepless.json", [event for event in _step(0) if "ProfilerStep" not in event["name"]][1:])

    code = main(["analyze", str(without), "--json"])

    _is_one_error_line(capsys, code, "stepless.json", "prof.step()")


def test_breakdown_by_step_of_a_run_without_steps_says_why_it_has_no_rows(tmp_path: Path, answer: Answer) -> None:
    without = _written(tmp_path / "stepless.json", [event for event in _step(0) if "ProfilerStep" not in event["name"]][1:])

    said = json.loads(answer("breakdown", without, "--by", "step", "--json"))

    assert said["rows"] == []
    assert "prof.step()" in said["missing"]


@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "words", [("analyze",), ("breakdown", "--by", "step"), ("predict", "--set", "num_workers=4"), ("doctor",)]
)
def test_a_trace_of_others_is_answered_or_refused_in_one_line(
    words: tuple[str, ...], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = [file for file in sorted((corpus / "traces").rglob("*.json*")) if file.stat().st_size < LARGEST_TRACE_BYTES]

    assert traces
    for trace in traces:
        code = main([words[0], str(trace), *words[1:]])
        printed = capsys.readouterr()
        assert (code == 0) == bool(printed.out), trace
        assert printed.err.count("\n") == (0 if code == 0 else 1), trace


@pytest.mark.parametrize("command", ["analyze", "breakdown", "predict", "doctor"])
def test_a_missing_file_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--set", "num_workers=4"] if command == "predict" else []

    code = main([command, str(tmp_path / "gone.json"), *more])

    _is_one_error_line(capsys, code, "gone.json")


def test_a_file_that_is_no_trace_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.json"
    file.write_text("not a trace\nat all", encoding="utf-8")

    code = main(["analyze", str(file)])

    _is_one_error_line(capsys, code, "notes.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not JSON"), ("[1]", "holds a list"), (None, "cannot be read as a config")],
    ids=["broken", "list", "gone"],
)
def test_a_config_that_cannot_be_read_is_one_line(
    content: str | None, said: str, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trace.with_name("own.json")
    if content is not None:
        config.write_text(content, encoding="utf-8")

    code = main(["predict", str(trace), "--set", "num_workers=4", "--config", str(config)])

    _is_one_error_line(capsys, code, "own.json", said)


@pytest.mark.parametrize(
    "words", [[], ["predict", "x"], ["predict", "x", "--set", "=3"], ["analyse"], ["breakdown", "x", "--by", "day"]]
)
def test_wrong_words_end_with_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert "usage: perfnb" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(trace: Path) -> None:
    writer = [sys.executable, "-m", "perfnb", "analyze", str(trace)]
    with subprocess.Popen(writer, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        complaint = process.stderr.read()

    assert complaint == ""


def test_a_name_that_the_terminal_cannot_show_is_no_error(tmp_path: Path) -> None:
    trace = _written(tmp_path / "größe.json", [event for step in range(STEPS) for event in _step(step)])
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    done = subprocess.run(
        [sys.executable, "-m", "perfnb", "analyze", str(trace)],
        capture_output=True,
        encoding="ascii",
        env=environment,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe.json" in done.stdout


def test_control_characters_of_a_trace_are_shown_and_not_sent(tmp_path: Path, answer: Answer) -> None:
    trace = _written(tmp_path / "run\x1b[31m.json", [event for step in range(STEPS) for event in _step(step)])

    assert "\x1b" not in answer("analyze", trace)


def test_doctor_names_what_is_there_and_a_remedy_for_what_is_not(answer: Answer) -> None:
    text = answer("doctor")

    for word in ("perfnb", perfnb.__version__, "Python", "pandas", "torch", "NVIDIA GPU", "schedstat", "jupyterlab", "Chromium"):
        assert word in text
    missing = [line for line in text.splitlines() if line.startswith("  --")]
    assert all("install" in line or "here" in line or "system" in line for line in missing)


def test_doctor_says_which_questions_a_trace_can_answer(trace: Path, answer: Answer) -> None:
    lines = answer("doctor", trace).splitlines()

    assert any(line.split()[:2] == ["ok", "data_stall"] for line in lines)
    assert any(line.split()[:2] == ["--", "slow_rank"] and "one rank" in line for line in lines)


def test_a_folder_that_was_recorded_is_answered_like_a_trace(tmp_path: Path, answer: Answer) -> None:
    with perfnb.record(tmp_path / "run", hooks=False) as recorder:
        for _ in recorder.steps(range(20)):
            time.sleep(0.001)

    analyzed = answer("analyze", tmp_path / "run")
    predicted = json.loads(answer("predict", tmp_path / "run", "--set", "num_workers=2", "--json"))
    told = answer("doctor", tmp_path / "run")

    assert "Mean step" in analyzed
    assert set(predicted) <= {"prediction", "unknown"}
    assert "python_overhead" in told


def test_doctor_imports_neither_torch_nor_a_chart_or_widget_library() -> None:
    code = (
        "import sys; from perfnb.__main__ import main; main(['doctor']);"
        "print([name for name in ('torch', 'altair', 'ipywidgets', 'IPython', 'vl_convert') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_number_that_json_lacks_becomes_null() -> None:
    rows = json_output.rows(pd.DataFrame({"rank": [0], "idle_us": [math.nan], "most_us": [math.inf], "step": [pd.NA]}))

    assert json.loads(json_output.as_json(rows)) == {"rows": [{"rank": 0, "idle_us": None, "most_us": None, "step": None}]}


def test_a_table_is_aligned_and_its_prose_wrapped_below_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    text = terminal.table(("what", "why"), [("slow_rank", "the job has one rank, and " * 2), ("host_sync", "no device")])

    assert text.splitlines() == [
        "  what       why",
        "  slow_rank  the job has one rank, and the job has one rank,",
        "             and",
        "  host_sync  no device",
    ]


def _is_one_error_line(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> None:
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("perfnb: ")
    assert printed.err.count("\n") == 1
    for word in words:
        assert word in printed.err


def _config(trace: Path, knobs: dict[str, Any], name: str = "own.json") -> Path:
    file = trace.with_name(name)
    file.write_text(json.dumps(knobs), encoding="utf-8")
    return file


def _written(file: Path, events: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}), encoding="utf-8")
    return file


def _step(number: int) -> list[dict[str, Any]]:
    start = STEP_US * number
    kernel = {"correlation": number + 1, "device": 0, "stream": 7}
    return [
        _event("user_annotation", f"ProfilerStep#{number}", start, STEP_US),
        _event("user_annotation", "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", start, LOADER_US),
        _event("cpu_op", "aten::linear", start + 600, 50),
        _event("cuda_runtime", "cudaLaunchKernel", start + 610, 5, args={"correlation": number + 1}),
        _event("kernel", "gemm", start + STEP_US - KERNEL_US, KERNEL_US, pid=0, tid=7, args=kernel),
    ]


def _event(category: str, name: str, start: int, duration: int, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": start, "dur": duration, **more}


def test_a_report_of_a_trainers_log_tells_of_its_curve(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = Path(__file__).parents[1] / "data" / "samples" / "logs" / "trainer_state.json"

    code = main(["report", str(log), "-o", str(tmp_path / "log.md")])

    assert (code, capsys.readouterr().out) == (0, f"wrote {tmp_path / 'log.md'}\n")
    assert "a Hugging Face log has no time of each step" in (tmp_path / "log.md").read_text(encoding="utf-8")


def test_what_is_neither_a_run_nor_a_log_gets_no_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of a training", encoding="utf-8")

    code = main(["report", str(tmp_path / "notes.txt"), "-o", str(tmp_path / "out.md")])

    _is_one_error_line(capsys, code, "notes.txt")
    assert not (tmp_path / "out.md").exists()
