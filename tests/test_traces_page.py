"""docs/traces.md: every function that it names is there, and every public method of HTA has an answer."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import perfnb
from perfnb import analyses, charts
from perfnb.whatif import critical_path, scaled_path

PAGE = Path(__file__).parents[1] / "docs" / "traces.md"
HTA_0_6_1 = {  # public methods of TraceAnalysis and TraceDiff, by inspection of the package
    "compare_traces",
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
    "ops_diff",
    "overlay_critical_path_analysis",
    "visualize_counts_diff",
    "visualize_duration_diff",
}


def table_cells(heading: str) -> list[list[str]]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def named(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`(?:[a-z_]+\()?([A-Za-z_.]+)[`(]", cell)}


def exists(name: str) -> bool:
    if name.startswith("perfnb."):
        return hasattr(perfnb, name.removeprefix("perfnb."))
    return any(hasattr(place, name) for place in (analyses, charts, critical_path, scaled_path))


def test_every_public_method_of_hta_has_an_answer() -> None:
    rows = table_cells("Beside HTA")

    assert {row[0].strip("`") for row in rows} == HTA_0_6_1
    assert all(row[1] for row in rows)


@pytest.mark.parametrize(("heading", "columns"), [("Analyses", slice(1, 3)), ("Beside HTA", slice(1, 2))])
def test_every_function_named_on_the_page_is_there(heading: str, columns: slice) -> None:
    names = set.union(*(named(row[columns]) for row in table_cells(heading))) - {"run.steps"}

    assert len(names) > 10
    assert not {name for name in names if not exists(name)}


def test_every_public_chart_of_an_analysis_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    own_pages = {"breakdown_chart", "findings_chart", "impact_chart", "step_timeline_chart"}  # charts of a diagnosis

    drawn = {name for name in charts.__all__ if name.endswith("_chart")} - own_pages

    assert not {name for name in drawn if name not in text}


def test_every_analysis_can_be_imported_by_its_name() -> None:
    module = importlib.import_module("perfnb.analyses")

    assert all(callable(getattr(module, name)) for name in module.__all__)
