"""The page on traces: it covers every method of HTA, and names nothing that perfnb does not have."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfnb import read_trace
from perfnb.run import Run

HTA_METHODS = {  # public methods of HTA 0.6.1 (traceinsight 0.6.1): dir() of the two classes, without names that start with _
    "TraceAnalysis": (
        "critical_path_analysis",
        "generate_trace_with_counters",
        "get_aten_op_kernels_and_delay",
        "get_comm_comp_overlap",
        "get_cuda_kernel_launch_stats",
        "get_cupti_counter_data_with_operators",
        "get_frequent_cuda_kernel_sequences",
        "get_gpu_kernel_breakdown",
        "get_gpu_kernels_with_user_annotations",
        "get_gpu_user_annotation_breakdown",
        "get_idle_time_breakdown",
        "get_memory_bw_summary",
        "get_memory_bw_time_series",
        "get_potential_stragglers",
        "get_profiler_steps",
        "get_queue_length_summary",
        "get_queue_length_summary_from_time_series",
        "get_queue_length_time_series",
        "get_temporal_breakdown",
        "get_time_spent_blocked_on_full_queue",
        "overlay_critical_path_analysis",
    ),
    "TraceDiff": ("compare_traces", "ops_diff", "visualize_counts_diff", "visualize_duration_diff"),
}
NOT_DONE = {"TraceAnalysis.get_cupti_counter_data_with_operators"}
PLACES = (
    "perfnb",
    "perfnb.analyses",
    "perfnb.charts",
    "perfnb.whatif.critical_path",
    "perfnb.whatif.scaled_path",
    "perfnb.perfetto",
)
CALL = re.compile(r"`([A-Za-z_][\w.]*)\(([^`]*)\)`")
KEYWORD = re.compile(r"\b(\w+)=")


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).resolve().parent.parent / "docs" / "traces.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """Cells of each row of the tables of a text, without heads and rules."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return (cells for cells in lines if cells[0] not in ("HTA", "question"))


def function(name: str) -> object:
    """What a name of the page stands for; None where perfnb has no such thing."""
    module, _, attribute = name.rpartition(".")
    places = (module,) if module else PLACES
    return next((found for place in places if (found := getattr(importlib.import_module(place), attribute, None))), None)


def test_every_public_method_of_hta_has_one_row(page: str) -> None:
    first_cells = [cells[0] for cells in rows(section(page, "HTA's methods and ours"))]

    expected = [f"`{owner}.{method}`" for owner, methods in HTA_METHODS.items() for method in methods]
    assert sorted(first_cells) == sorted(expected)


def test_each_method_has_a_function_of_ours_or_is_said_to_be_not_done(page: str) -> None:
    ours = {cells[0].strip("`"): cells[1] for cells in rows(section(page, "HTA's methods and ours"))}

    without = {method for method, cell in ours.items() if not CALL.search(cell) and cell != "`run.steps`"}
    assert without == NOT_DONE
    assert all(ours[method] == "not done" and f"`{method.rpartition('.')[2]}`" in page for method in NOT_DONE)


@pytest.mark.parametrize(("title", "columns"), [("HTA's methods and ours", (1,)), ("Analyses", (1, 2))])
def test_every_function_that_the_page_names_is_there_and_takes_what_is_passed(
    page: str, title: str, columns: tuple[int, ...]
) -> None:
    calls = [call for cells in rows(section(page, title)) for column in columns for call in CALL.findall(cells[column])]

    assert len(calls) > 20
    assert {name for name, _ in calls if not callable(function(name))} == set()
    unknown = {
        f"{name}({argument}=)"
        for name, arguments in calls
        if callable(found := function(name))
        for argument in KEYWORD.findall(arguments)
        if argument not in inspect.signature(found).parameters
    }
    assert unknown == set()


def test_every_analysis_and_every_chart_stands_on_the_page(page: str) -> None:
    named = set(re.findall(r"\w+(?=\()", section(page, "Analyses")))
    own_pages = {
        "breakdown_chart",
        "findings_chart",
        "impact_chart",
        "step_timeline_chart",
        "accuracy_chart",
    }  # of findings, see README
    no_charts = {"alternative", "live", "svg", "ClockAlignment"}

    public = {name for place in ("perfnb.analyses", "perfnb.charts") for name in importlib.import_module(place).__all__}
    assert public - named - own_pages - no_charts == set()


def test_arguments_of_reading_are_those_of_the_function(page: str) -> None:
    table = page.partition("### Arguments of `read_trace`")[2].partition("\n## ")[0]

    named = set(re.findall(r"^\| `(\w+)=", table, re.MULTILINE))
    assert named == {name for name in inspect.signature(read_trace).parameters if name not in ("path", "more")}


def test_tables_of_a_run_are_those_of_the_class(page: str) -> None:
    named = set(re.findall(r"^\| `run\.(\w+)` \|", page, re.MULTILINE))

    assert named == {name for name, field in Run.__dataclass_fields__.items() if "DataFrame" in str(field.type)}


def test_commands_and_files_that_the_page_names_are_there(page: str, repository: Path) -> None:
    modules = re.findall(r"`python -m (benchmarks[.\w]*)", page)
    files = re.findall(r"\]\(\.\./([\w/.]+)\)|(tests/[\w/]+(?:\.py)?)", page)

    assert modules
    assert [name for name in modules if not (repository / f"{name.replace('.', '/')}.py").is_file()] == []
    assert [one or other for one, other in files if not (repository / (one or other)).exists()] == []
