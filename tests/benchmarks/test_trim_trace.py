"""A trimmed trace reads like those steps of the whole one, and nothing in it was written anew."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.trim_trace import TrimError, Trimmed, main, trim
from perfnb.read.kineto import read_kineto
from perfnb.run import Run

CORPUS = (
    "kineto/resnet50_pair_A/before_num_workers_0",
    "hta/ns_resolution",
    "hta/cpu_only",
    "hta/amd_trace",
    "tracelens/mi300x_resnet_act_checkpoint",
    "param/dlrm_8rank",
)
CONTEXT = ("rank", "is_edge", "correlation", "kind_source")
"""Columns that may differ: a rank or an edge depends on other events of the file."""


def event(name: str, category: str, start: str, duration: str, thread: int = 1, **args: object) -> str:
    shown = json.dumps(args)
    place = f'"pid": 1, "tid": {thread}, "ts": {start}, "dur": {duration}'
    return f'{{"ph": "X", "cat": "{category}", "name": "{name}", {place}, "args": {shown}}}'


def flow(phase: str, number: int, at: str, thread: int) -> str:
    return f'{{"ph": "{phase}", "id": {number}, "cat": "ac2g", "name": "ac2g", "pid": 1, "tid": {thread}, "ts": {at}, "bp": "e"}}'


def memory(number: int, at: str) -> str:
    args = f'{{"Bytes": 512, "Device Type": 0, "Device Id": -1, "Addr": {number}, "Ev Idx": {number}}}'
    return (
        f'{{"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": {at}, "s": "t", "args": {args}}}'
    )


def trace_text(steps: int = 4) -> str:
    """Steps of 100 us with one kernel each, which runs 60 us after its launch: in the next step."""
    lines = ['{"name": "process_name", "ph": "M", "ts": 0.000, "pid": 1, "tid": 0, "args": {"name": "python"}}']
    lines.append(event("PyTorch Profiler (0)", "Trace", "1000.000", str(steps * 100 + 200), thread=9))
    for step in range(steps):
        at = 1000 + 100 * step
        lines += [
            event(f"ProfilerStep#{step + 7}", "user_annotation", f"{at}.125", "99.5"),
            event("aten::mm", "cpu_op", f"{at + 10}.001", "20.000", **{"Sequence number": step}),
            event("cudaLaunchKernel", "cuda_runtime", f"{at + 60}.500", "5.250", correlation=100 + step),
            event("gemm", "kernel", f"{at + 120}.007", "30.000", thread=7, correlation=100 + step, device=0, stream=7),
            event(f"ProfilerStep#{step + 7}", "gpu_user_annotation", f"{at + 120}.007", "30.000", thread=7),
            flow("s", 100 + step, f"{at + 60}.500", 1),
            flow("f", 100 + step, f"{at + 120}.007", 7),
            memory(step, f"{at + 15}.000"),
        ]
    head = (
        '{"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "card"}], "distributedInfo": {"rank": 0, "world_size": 1},\n'
    )
    return head + '"traceEvents": [\n' + ",\n  ".join(lines) + '\n], "baseTimeNanoseconds": 1770000000123456789\n}'


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.json"
    path.write_text(trace_text(), encoding="utf-8")
    return path


def document(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    read: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return read


def names(path: Path, phase: str = "X") -> list[str]:
    return [each["name"] for each in document(path)["traceEvents"] if each["ph"] == phase]


def rows_of_steps(run: Run, steps: tuple[int, ...], sources: str) -> pd.DataFrame:
    """Rows of a table that belong to the steps, on a clock that starts with the first of them."""
    chosen = run.steps[run.steps["step"].isin(steps)]
    low, high = chosen["start_us"].min(), (chosen["start_us"] + chosen["duration_us"]).max()
    table = getattr(run, sources)
    moment = "time_us" if sources == "allocations" else "start_us"
    if sources == "device_ops":
        calls = run.host_ops.dropna(subset=["correlation"]).groupby("correlation")["start_us"].min()
        launched = table["correlation"].map(calls).astype("float64")
        at = launched.where(launched.notna(), table["start_us"])
    else:
        at = table[moment]
    own = (at >= low) & (at < high)
    if sources == "host_ops":
        own |= (table["start_us"] < low) & (table["start_us"] + table["duration_us"] > high)
    rows = table[own].drop(columns=[name for name in CONTEXT if name in table])
    rows = rows.assign(**{moment: (rows[moment] - low).round(3)})
    for name in rows.columns:
        if rows[name].dtype == "category":
            rows[name] = rows[name].astype(object)
    return rows.sort_values([moment, *(name for name in ("duration_us", "name", "bytes") if name in rows)]).reset_index(drop=True)


def assert_the_same_rows(whole: Path, trimmed: Path, made: Trimmed) -> None:
    before, after = read_kineto(whole), read_kineto(trimmed)

    assert tuple(after.steps["step"]) == made.steps
    for table in ("steps", "host_ops", "device_ops", "allocations"):
        pd.testing.assert_frame_equal(
            rows_of_steps(after, made.steps, table), rows_of_steps(before, made.steps, table), check_dtype=False
        )
    assert len(after.host_ops) == len(rows_of_steps(before, made.steps, "host_ops"))
    assert len(after.device_ops) == len(rows_of_steps(before, made.steps, "device_ops"))


def test_the_first_step_is_left_out_where_there_are_enough_and_the_others_read_as_before(whole: Path, tmp_path: Path) -> None:
    made = trim(whole, tmp_path / "two.json.gz", steps=2)

    assert made.steps == (8, 9)
    assert_the_same_rows(whole, tmp_path / "two.json.gz", made)


def test_a_kernel_stays_with_the_step_that_launched_it_though_it_runs_in_the_next(whole: Path, tmp_path: Path) -> None:
    trim(whole, tmp_path / "one.json", steps=1)

    kernels = [each for each in document(tmp_path / "one.json")["traceEvents"] if each.get("cat") == "kernel"]
    assert [each["args"]["correlation"] for each in kernels] == [101]
    assert kernels[0]["ts"] == Decimal("1220.007")


def test_every_event_that_stays_is_the_text_that_it_was(whole: Path, tmp_path: Path) -> None:
    trim(whole, tmp_path / "two.json", steps=2)

    lines = (tmp_path / "two.json").read_text(encoding="utf-8")
    before = whole.read_text(encoding="utf-8")
    events = lines.partition('"traceEvents": [')[2].rpartition("]")[0]
    assert all(line.strip().rstrip(",") in before for line in events.strip().splitlines())
    assert '"ts": 1160.500, "dur": 5.250' in lines


def test_all_that_the_file_says_beside_its_events_stays(whole: Path, tmp_path: Path) -> None:
    trim(whole, tmp_path / "one.json", steps=1)

    kept, before = document(tmp_path / "one.json"), document(whole)
    for key in ("schemaVersion", "deviceProperties", "distributedInfo", "baseTimeNanoseconds"):
        assert kept[key] == before[key]
    assert names(tmp_path / "one.json", "M") == ["process_name"]
    assert "PyTorch Profiler (0)" in names(tmp_path / "one.json")


def test_a_flow_stays_only_with_both_its_ends(whole: Path, tmp_path: Path) -> None:
    trim(whole, tmp_path / "one.json", steps=1)

    flows = [(each["ph"], each["id"]) for each in document(tmp_path / "one.json")["traceEvents"] if each["ph"] in "sf"]
    assert flows == [("s", 101), ("f", 101)]


def test_every_kind_of_event_stays_that_the_steps_have(whole: Path, tmp_path: Path) -> None:
    made = trim(whole, tmp_path / "one.json", steps=1)

    def kinds(path: Path) -> set[tuple[str, str]]:
        return {(each["ph"], each.get("cat", "")) for each in document(path)["traceEvents"]}

    assert kinds(tmp_path / "one.json") == kinds(whole)
    assert made.kinds_lost == ()


def test_fewer_steps_stay_where_they_would_be_too_large_and_none_is_an_error(whole: Path, tmp_path: Path) -> None:
    size = trim(whole, tmp_path / "two.json", steps=2).bytes

    made = trim(whole, tmp_path / "fits.json", steps=2, most_bytes=size - 1)

    assert made.steps == (8,)
    with pytest.raises(TrimError, match="one step alone takes"):
        trim(whole, tmp_path / "none.json", steps=2, most_bytes=10)
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no trace in valid JSON"),
        ('{"traceEvents": [{"ph": "X"', "no trace in valid JSON"),
        ('{"traceEvents": [3]}', "an event is no object"),
        ('{"other": 1}', "no trace in valid JSON"),
        ('{"traceEvents": []}', "no ProfilerStep#"),
    ],
)
def test_what_is_no_whole_trace_with_steps_is_refused(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")

    with pytest.raises(TrimError, match=what):
        trim(tmp_path / "bad.json", tmp_path / "out.json", steps=1)


def test_the_command_says_what_stayed_or_why_nothing_was_trimmed(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([str(whole), str(tmp_path / "out.json.gz"), "--steps", "2"])
    bad = main([str(tmp_path / "nothing.json"), str(tmp_path / "out.json.gz"), "--steps", "2"])

    said = capsys.readouterr()
    assert (code, bad) == (0, 1)
    assert said.out.startswith("steps 8, 9: ")
    assert "not trimmed" in said.err


@pytest.mark.no_cover
@given(steps=st.integers(1, 6), wanted=st.integers(1, 7))
def test_any_number_of_steps_of_any_trace_reads_as_before(
    tmp_path_factory: pytest.TempPathFactory, steps: int, wanted: int
) -> None:
    folder = tmp_path_factory.mktemp("trim")
    (folder / "whole.json").write_text(trace_text(steps), encoding="utf-8")

    made = trim(folder / "whole.json", folder / "trimmed.json", steps=wanted)

    assert len(made.steps) == min(steps, wanted)
    assert_the_same_rows(folder / "whole.json", folder / "trimmed.json", made)


def files(corpus: Path) -> Iterator[Path]:
    for name in CORPUS:
        yield min((corpus / "traces" / name).glob("*.json*"), key=lambda path: (path.stat().st_size, path.name))


@pytest.mark.corpus
@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_steps_of_real_traces_read_as_before(number: int, corpus: Path, tmp_path: Path) -> None:
    source = list(files(corpus))[number]

    made = trim(source, tmp_path / "trimmed.json.gz", steps=2, most_bytes=20_000_000)

    assert_the_same_rows(source, tmp_path / "trimmed.json.gz", made)


@pytest.mark.torch
def test_a_trace_made_on_the_spot_reads_as_before(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile, schedule  # noqa: PLC0415 - skipped above where there is none

    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = schedule(wait=0, warmup=1, active=5, repeat=1)
    with profile(activities=[ProfilerActivity.CPU], schedule=plan, profile_memory=True, record_shapes=True) as profiler:
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).sum().backward()
            optimizer.step()
            profiler.step()
    profiler.export_chrome_trace(str(tmp_path / "whole.json"))

    made = trim(tmp_path / "whole.json", tmp_path / "trimmed.json.gz", steps=3)

    assert len(made.steps) == 3
    assert_the_same_rows(tmp_path / "whole.json", tmp_path / "trimmed.json.gz", made)
