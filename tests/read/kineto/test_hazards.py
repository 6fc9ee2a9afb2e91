"""Everything odd that traces hold, one test each: formats, categories, communication, ranks, steps, memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb.errors import RankConflictError, TraceFormatError
from perfnb.launches import launches
from perfnb.read.kineto import read_kineto
from perfnb.read.kineto.rows import read_rows
from perfnb.run import Run
from perfnb.tables import SCHEMAS
from tests.read.kineto.reference import nothing_to_collect, rows
from tests.read.kineto.traces import event, training, write

TRACES = "traces"
HTA, LENS, KINETO = "traces/hta", "traces/tracelens", "traces/kineto"


def plain(values: Any) -> list[Any]:
    """Column as Python values, None where it is NA."""
    column = pd.Series(values).astype(object)
    return column.where(column.notna(), None).to_list()


def nanoseconds(column: pd.Series, origin: int = 0) -> list[int]:
    """Microseconds as whole nanoseconds."""
    return (np.rint(column.to_numpy() * 1000).astype(np.int64) + origin).tolist()


def same(one: Run, two: Run) -> None:
    """Assert that all tables are equal."""
    for name in SCHEMAS:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))


def text_run(tmp_path: Path, text: str | bytes) -> Run:
    """The run of a file with this content."""
    (tmp_path / "t.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_kineto(tmp_path / "t.json")


@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.slow
def test_every_field_of_every_row_of_the_corpus_is_that_of_a_plain_reader(corpus: Path) -> None:
    for path in sorted(path for path in (corpus / TRACES).rglob("*.json*") if path.is_file()):
        with nothing_to_collect():
            host, device, memory, left_out = rows(path)

        run, raw = read_kineto(path), read_rows(path)

        origin = min(row[0] for row in (*host, *device))
        ours, theirs = run.host_ops, list(zip(*host, strict=True)) or [()] * 13
        columns = ("name", "stream", "correlation", "process", "thread", "sequence", "input_shapes", "input_types")
        columns = (*columns, "waits_on_stream", "waits_on_correlation")
        assert nanoseconds(ours["start_us"], origin) == list(theirs[0]), path
        assert nanoseconds(-ours["duration_us"]) == list(theirs[1]), path
        for name, column in zip(columns, theirs[3:], strict=True):
            assert plain(ours[name]) == list(column), (path, name)
        ours, theirs = run.device_ops, list(zip(*device, strict=True)) or [()] * 11
        assert nanoseconds(ours["start_us"], origin) == list(theirs[0]), path
        assert nanoseconds(-ours["duration_us"]) == list(theirs[1]), path
        columns = ("name", "stream", "correlation", "device", "bytes", "grid", "block", "occupancy_share")
        for name, column in zip(columns, theirs[3:], strict=True):
            assert plain(ours[name]) == list(column), (path, name)
        ours, theirs = run.allocations, list(zip(*memory, strict=True)) or [()] * 8
        assert nanoseconds(ours["time_us"], origin) == list(theirs[0]), path
        for name, column in zip(("device", "address", "bytes", "allocated_bytes", "reserved_bytes"), theirs[3:], strict=True):
            assert plain(ours[name]) == list(column), (path, name)
        assert raw.counts == left_out, path
        assert len(raw.complete) + len(raw.memory) + sum(raw.counts.values()) == raw.entries


# Formats


@pytest.mark.corpus
def test_durations_of_zero_are_kept(corpus: Path) -> None:
    run = read_kineto(corpus / HTA / "trace_diff/control.json.gz")

    durations = pd.concat([run.host_ops["duration_us"], run.device_ops["duration_us"]])
    assert 0.15 < (durations == 0).mean() < 0.25


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_base_time_counts_wherever_it_stands(tmp_path: Path, place: str) -> None:
    events = json.dumps([event("a", "cpu_op", 1.5, 1)])
    base = '"baseTimeNanoseconds": 1700000000000000001'
    text = f'{{{base}, "traceEvents": {events}}}' if place == "before" else f'{{"traceEvents": {events}, {base}}}'
    (tmp_path / "t.json").write_text(text)

    assert read_rows(tmp_path / "t.json").start_ns.tolist() == [1700000000000001501]


@pytest.mark.parametrize(
    ("written", "expected"), [('"7.5"', 7_500), ("-7.5", -7_500), ("75e-1", 7_500), ("7.50049", 7_500), ("7.50051", 7_501)]
)
def test_stamps_in_any_spelling_have_the_same_value(tmp_path: Path, written: str, expected: int) -> None:
    (tmp_path / "t.json").write_text(
        f'[{{"ph":"X","cat":"cpu_op","name":"a","ts":{written},"dur":{written.replace("-7", "7")}}}]'
    )

    raw = read_rows(tmp_path / "t.json")

    assert (raw.start_ns.tolist(), raw.duration_ns.tolist()) == ([expected], [abs(expected)])


@pytest.mark.corpus
def test_a_bare_list_gives_the_first_rows_of_the_whole_file(corpus: Path) -> None:
    bare = read_rows(corpus / TRACES / "derived/bare_list/trace.json.gz")
    whole = read_rows(next((corpus / KINETO / "resnet50_pair_C/before_num_workers_0").glob("*.gz")))

    count = len(bare.start_ns)
    assert bare.entries == 6000
    assert bare.start_ns.tolist() == whole.start_ns[:count].tolist()


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["resnet50_pair_C/before_num_workers_0", "resnet50_pair_C/after_num_workers_4"])
def test_a_file_without_device_properties_is_read_and_device_names_are_unknown(corpus: Path, name: str) -> None:
    run = read_kineto(corpus / KINETO / name)

    assert run.machine.devices == ()
    assert len(run.device_ops)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["alexnet", "b200_eager", "mi210_gpu_only"])
def test_a_trace_without_profiler_steps_says_what_to_call(corpus: Path, name: str) -> None:
    folder = corpus / (HTA if name == "alexnet" else LENS) / name

    run = read_kineto(folder)

    assert run.steps.empty
    assert "no ProfilerStep ranges: call prof.step()" in run.missing["steps"]


@pytest.mark.corpus
def test_a_trace_without_device_rows_says_so(corpus: Path) -> None:
    run = read_kineto(corpus / HTA / "cpu_only/rank-34.Jul_15_10_52_41.1074.pt.trace.8977cc8.json.gz")

    assert run.device_ops.empty
    assert "device_ops" in run.missing
    assert set(run.collectives["clock"]) == {"host"}


@pytest.mark.corpus
def test_a_trace_without_host_operators_answers_for_the_device(corpus: Path) -> None:
    run = read_kineto(corpus / LENS / "mi210_gpu_only")

    assert int(run.device_ops["kind"].isin(["compute", "communication"]).sum()) == 562
    assert "host_ops" in run.missing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Operator", "cpu_op"),
        ("Runtime", "cuda_runtime"),
        ("Kernel", "kernel"),
        ("Memcpy", "gpu_memcpy"),
        ("Memset", "gpu_memset"),
    ],
)
def test_spellings_of_2021_give_the_same_tables(tmp_path: Path, old: str, new: str) -> None:
    one, two = (read_kineto(write(tmp_path / f"{name}.json", [event("x", name, 1, 2, device=0)])) for name in (old, new))

    same(one, two)


def test_a_thread_as_text_and_as_number_is_one_thread(tmp_path: Path) -> None:
    events = [event("a", "cpu_op", 0, 1, thread="25738"), event("b", "cpu_op", 2, 1, thread=25738)]

    assert read_kineto(write(tmp_path / "t.json", events)).host_ops["thread"].tolist() == ["25738"] * 2


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "most"), [("mi300x_sglang_decode", 544), ("mi300x_flux_pair/after_aiter_sage", 1753)])
def test_a_graph_replay_is_one_launch_of_many_device_rows(corpus: Path, name: str, most: int) -> None:
    run = read_kineto(corpus / LENS / name)

    assert run.device_ops["correlation"].value_counts().iloc[0] == most


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "count"),
    [(f"{LENS}/h100_qwen1.5_0.5b", 509), (f"{LENS}/mi300x_resnet_act_checkpoint", 968), (f"{HTA}/trace_diff/test.json.gz", 614)],
)
def test_device_rows_without_a_recorded_launch_are_kept(corpus: Path, name: str, count: int) -> None:
    run = read_kineto(corpus / name)

    calls = run.host_ops.loc[run.host_ops["category"].eq("runtime"), "correlation"].dropna()
    assert int((~run.device_ops["correlation"].isin(calls)).sum()) == count


@pytest.mark.corpus
def test_a_step_name_repeated_on_the_device_counts_once(corpus: Path) -> None:
    assert read_kineto(corpus / HTA / "amd_trace").steps["step"].tolist() == [1, 2]


def test_numbers_past_int64_are_missing_and_groups_stay_text(tmp_path: Path) -> None:
    arguments = {"Collective name": "allreduce", "Process Group ID": 2**64 - 1, "stream": 2**64, "correlation": 2**63}
    run = read_kineto(write(tmp_path / "t.json", [event("nccl", "kernel", 0, 1, process=2**70, device=2**65, **arguments)]))

    assert run.collectives["group"].tolist() == [str(2**64 - 1)]
    assert run.device_ops[["device", "stream", "correlation"]].isna().all(axis=None)


@pytest.mark.parametrize("name", ["x" * 5160, "<b>&\"'</b></script>", "two\nlines\t\U0001f600", "C:\\Users\\new", "\ud800 half"])
def test_names_are_kept_whole(tmp_path: Path, name: str) -> None:
    found = read_kineto(write(tmp_path / "t.json", [event(name, "cpu_op", 0, 1)])).host_ops["name"].tolist()

    assert found == [name.replace("\ud800", "\ufffd")]


@pytest.mark.parametrize(
    ("written", "expected", "note"),
    [
        (rb"C:\Users\x", r"C:\Users\x", "backslashes"),
        (rb"C:\Users\new" + b"\\", "C:\\Users\\new\\", "quotes in a name|backslashes"),
        (rb'say "hi", twice', 'say "hi", twice', "quotes in a name"),
        (b"bell\x07", "bell\x07", "control characters"),
        (b"bad \xff", "bad \ufffd", "no UTF-8"),
    ],
)
def test_names_that_are_no_json_are_repaired_and_counted(tmp_path: Path, written: bytes, expected: str, note: str) -> None:
    text = json.dumps(training(20)).encode().replace(b'"aten::linear"', b'"' + written + b'"', 1)

    run = text_run(tmp_path, text)

    assert len(run.host_ops) == 100
    assert expected in run.host_ops["name"].tolist()
    assert any(pd.Series([each]).str.contains(note).iloc[0] for each in run.notes)


@pytest.mark.parametrize("value", ["N/A", "NaN", "Infinity", "-Infinity"])
def test_bare_words_in_place_of_numbers_are_missing(tmp_path: Path, value: str) -> None:
    run = text_run(tmp_path, f'[{{"ph":"X","cat":"kernel","name":"k","ts":1,"dur":1,"args":{{"stream":{value},"device":0}}}}]')

    assert run.device_ops["stream"].isna().all()
    assert any("values that are no JSON in 1 events" in note for note in run.notes)


def test_a_backslash_in_a_key_beside_the_events_is_repaired(tmp_path: Path) -> None:
    events = json.dumps(training(2))
    for text in (rf'{{"traceEvents": {events}, "traceName": "C:\Users\x"}}',):
        run = text_run(tmp_path, text)

        assert len(run.host_ops) == 10
        assert any("texts beside the events" in note for note in run.notes)


def test_what_follows_a_trace_is_an_error_never_ignored(tmp_path: Path) -> None:
    events = json.dumps(training(2))
    for text in (f'{{"traceEvents": {events}}}{{"traceEvents": []}}', f'{{"traceEvents": {events}, "traceEvents": {events}}}'):
        with pytest.raises(TraceFormatError, match="malformed"):
            text_run(tmp_path, text)


def test_an_execution_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"execution trace.*export_chrome_trace"):
        text_run(tmp_path, '{"schema": "1.1.1", "nodes": []}')


# Categories


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("user_annotation", "annotation"), ("cpu_op", "operator"), ("hpu_op", "operator"), ("cuda_runtime", "runtime"),
        ("cuda_driver", "runtime"), ("privateuse1_runtime", "runtime"), ("cuda_sync", "synchronization"),
        ("xpu_sync", "synchronization"), ("overhead", "overhead"), ("Brand_New", "brand_new"),
    ],
)  # fmt: skip
def test_each_host_category_goes_where_it_belongs(tmp_path: Path, category: str, expected: str) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event("x", category, 0, 1, stream=7)]))

    assert run.host_ops["category"].tolist() == [expected]
    assert any("does not know" in note for note in run.notes) is (category == "Brand_New")


@pytest.mark.parametrize(
    ("category", "name", "expected"),
    [
        ("kernel", "gemm", "compute"), ("gpu_memcpy", "Memcpy HtoD", "copy"), ("gpu_memcpy", "Memcpy PtoP", "communication"),
        ("gpu_memset", "Memset", "memset"), ("mtia_ccp_events", "x", "compute"), ("collective_comm", "x", "communication"),
    ],
)  # fmt: skip
def test_each_device_category_goes_where_it_belongs(tmp_path: Path, category: str, name: str, expected: str) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event(name, category, 0, 1, process=3)]))

    assert run.device_ops[["kind", "device"]].to_numpy().tolist() == [[expected, 3]]


@pytest.mark.parametrize(
    "category", ["python_function", "gpu_user_annotation", "trace", "cuda_event", "cuda_profiler_range", "gpu_counters"]
)
def test_what_is_left_out_is_counted(tmp_path: Path, category: str) -> None:
    run = read_kineto(write(tmp_path / "t.json", [*training(1), event("x", category, 0, 1)]))

    assert len(run.host_ops) == 5
    assert any("left out 1 " in note for note in run.notes)


def test_python_functions_are_kept_where_asked_for(tmp_path: Path) -> None:
    run = read_kineto(write(tmp_path / "t.json", [event("f", "python_function", 0, 1)]), python=True)

    assert run.host_ops["category"].tolist() == ["python"]


# Communication


@pytest.mark.corpus
def test_kernels_of_symmetric_memory_are_known_by_their_operator_alone(corpus: Path) -> None:
    run = read_kineto(corpus / LENS / "b200_eager")

    found = run.device_ops[run.device_ops["kind"].eq("communication")]
    assert len(found) == 74
    assert int(found["name"].astype(str).str.contains("multimem").sum()) == 73


def test_an_operator_of_torch_distributed_makes_its_kernel_communication_unless_it_is_plain_compute(tmp_path: Path) -> None:
    events = [
        event("symm_mem::my_op", "cpu_op", 0, 9),
        event("launch", "cuda_runtime", 1, 1, correlation=1), event("launch", "cuda_runtime", 3, 1, correlation=2),
        event("mystery", "kernel", 5, 1, correlation=1, device=0),
        event("void at::native::add", "kernel", 7, 1, correlation=2, device=0),
    ]  # fmt: skip

    ops = read_kineto(write(tmp_path / "t.json", events)).device_ops

    assert ops[["kind", "kind_source"]].to_numpy().tolist() == [["communication", "operator"], ["compute", "category"]]


@pytest.mark.parametrize(
    ("arguments", "names", "expected"),
    [({"Collective name": "allreduce"}, (), "arguments"), ({}, ("my_ring",), "name"), ({}, (), "category")],
)
def test_arguments_come_first_and_names_of_the_user_count(
    tmp_path: Path, arguments: dict[str, str], names: tuple[str, ...], expected: str
) -> None:
    path = write(tmp_path / "t.json", [event("My_Ring", "kernel", 0, 1, device=0, **arguments)])

    assert read_kineto(path, communication_names=names).device_ops["kind_source"].tolist() == [expected]


@pytest.mark.corpus
def test_twelve_of_the_17_kernels_of_an_rccl_job_are_typed(corpus: Path) -> None:
    found = read_kineto(corpus / LENS / "mi300x_resnet_act_checkpoint").collectives

    assert (len(found), int(found["collective"].isna().sum())) == (17, 5)


@pytest.mark.corpus
def test_send_and_receive_kernels_of_an_all_to_all_are_all_to_all(corpus: Path) -> None:
    found = read_kineto(corpus / TRACES / "param/dlrm_8rank").collectives

    assert found.groupby("rank")["collective"].apply(lambda types: sorted(types.astype(str))).map(tuple).unique().tolist() == [
        ("all_reduce",) * 3 + ("all_to_all",) * 5
    ]


def test_members_of_a_group_that_is_cut_short_come_from_its_start_and_stride(tmp_path: Path) -> None:
    ranks = {"Process Group Ranks": "[0, 2, ...]", "Global rank start": 0, "Global rank stride": 2, "Group size": 3}
    known = {"Collective name": "allreduce", "dtype": "Half", "In msg nelems": 10, "Seq": 7, **ranks}
    unknown = {**known, "Global rank start": None}
    events = [event("nccl", "kernel", at, 1, device=0, **args) for at, args in enumerate((known, unknown))]

    found = read_kineto(write(tmp_path / "t.json", events)).collectives

    assert plain(found["members"]) == ["0,2,4", None]
    assert found[["sequence", "bytes", "group_size"]].to_numpy().tolist() == [[7, 20, 3]] * 2


# Ranks


@pytest.mark.parametrize(
    ("name", "keys", "rank", "note"),
    [
        ("x.json", {"distributedInfo": {"rank": 3}}, 3, ""),
        ("rank5.json", {}, 5, "rank_source name"),
        ("x.json", {}, 0, "rank_source assumed"),
    ],
)
def test_a_rank_comes_from_the_file_then_its_name_then_is_assumed(
    tmp_path: Path, name: str, keys: dict[str, Any], rank: int, note: str
) -> None:
    run = read_kineto(write(tmp_path / name, training(1), **keys))

    assert run.ranks == (rank,)
    assert any(each.startswith("rank_source") for each in run.notes) is bool(note)
    assert not note or any(each.startswith(note) for each in run.notes)


def test_files_of_different_backends_are_refused(tmp_path: Path) -> None:
    infos = [{"rank": 0, "backend": "nccl"}, {"rank": 1, "backend": "gloo"}]
    paths = [write(tmp_path / f"{n}.json", training(1), distributedInfo=info) for n, info in enumerate(infos)]

    with pytest.raises(RankConflictError, match=r"different backends \(0.json: nccl, 1.json: gloo\)"):
        read_kineto(*paths)


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", training(1))
    (tmp_path / "link.json").symlink_to(path)

    assert len(read_kineto(path, path, tmp_path / "link.json", tmp_path).host_ops) == 5


def test_compact_json_has_its_rank(tmp_path: Path) -> None:
    text = json.dumps({"distributedInfo": {"rank": 1, "world_size": 2}, "traceEvents": training(1)}, separators=(",", ":"))

    assert text_run(tmp_path, text).ranks == (1,)


@pytest.mark.corpus
def test_ranks_that_are_missing_are_known(corpus: Path) -> None:
    run = read_kineto(corpus / HTA / "sampled_2_of_128")

    assert (run.ranks, run.world_size) == ((0, 1), 128)
    assert "2 of 128 ranks" in repr(run)


# Steps, launches, memory


def test_steps_have_the_names_that_the_user_gives(tmp_path: Path) -> None:
    events = [event(f"epoch 1 batch #{n}", category, 10 * n, 9) for n, category in enumerate(("user_annotation", "Operator"))]

    run = read_kineto(write(tmp_path / "t.json", events), step_names=["epoch"])

    assert run.steps[["step", "is_edge"]].to_numpy().tolist() == [[0, True], [1, True]]


@pytest.mark.corpus
def test_data_loader_spans_of_old_and_new_traces_are_annotations(corpus: Path) -> None:
    for name in (f"{KINETO}/resnet50_pair_A/before_num_workers_0", f"{LENS}/h100_owlv2"):
        host = read_kineto(corpus / name).host_ops

        spans = host[host["name"].astype(str).str.contains(r"enumerate\(DataLoader\).*__next__")]
        assert set(spans["category"]) == {"annotation"}


@pytest.mark.corpus
def test_one_launch_has_many_device_rows_and_a_device_row_one_launch(corpus: Path) -> None:
    run = read_kineto(corpus / LENS / "mi300x_sglang_decode")

    assert len(launches(run)) <= len(run.device_ops)


@pytest.mark.corpus
def test_memory_rows_give_the_measured_counts_and_peaks(corpus: Path) -> None:
    memory = read_kineto(corpus / HTA / "df_index_resolver").allocations

    device = memory[memory["device"].notna()]
    assert (int((device["bytes"] > 0).sum()), int((device["bytes"] < 0).sum())) == (13385, 13385)
    assert device["allocated_bytes"].max() == 6_629_508_096
    assert device["reserved_bytes"].max() == 12_782_141_440
    assert len(memory) == 28_010


@pytest.mark.corpus
def test_memory_rows_of_2021_have_no_address_and_no_totals(corpus: Path) -> None:
    memory = read_kineto(corpus / KINETO / "resnet50_pair_A/before_num_workers_0").allocations

    assert len(memory)
    assert memory[["address", "allocated_bytes", "reserved_bytes"]].isna().all(axis=None)


def test_a_memory_row_without_a_size_is_counted(tmp_path: Path) -> None:
    memory = {"ph": "i", "name": "[memory]", "ts": 1, "args": {"Bytes": "many"}}

    path = write(tmp_path / "t.json", [*training(40), memory])

    raw = read_rows(path)
    assert raw.counts["memory events without a readable size"] == 1
    assert len(raw.complete) + len(raw.memory) + sum(raw.counts.values()) == raw.entries
    assert read_kineto(path).allocations.empty
