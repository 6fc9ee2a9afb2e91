"""Detectors of single kernels on recorded micro traces: what they name, and that the clean halves leave them silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

import perfnb
from perfnb.analyses.whole_window import NO_STEPS_NOTE, whole_window
from perfnb.catalogue import detectors
from perfnb.detector import ConfigHint, Unmeasured
from perfnb.findings import Cleared, Finding
from perfnb.ground import Ground
from perfnb.run import Run
from perfnb.severity import measure

UNITS = "traces/tracelens/units"
KERNELS = (
    "full_precision_math",
    "layout_conversion",
    "unfused_attention",
    "misaligned_shapes",
    "slow_kernels",
    "underfilled_gpu",
)
# Made-up rates, far above what any device reaches: with them a kernel's loss is known, though its size means nothing here.
RATES = MappingProxyType({"attention.bfloat16.flops_per_s": 1e15, "memory.bytes_per_s": 1e13})

pytestmark = pytest.mark.corpus


def said(run: Run, name: str) -> Finding | Cleared | str:
    ground = Ground.of(run)
    try:
        return measure(next(each for each in detectors() if each.name == name), ground)
    except (Unmeasured, ConfigHint) as reason:
        return str(reason)


def unit(corpus: Path, name: str) -> Run:
    return whole_window(perfnb.read_trace(corpus / UNITS / name))


def test_unfused_attention_is_named_and_not_sized_without_a_microbenchmark(corpus: Path) -> None:
    run = unit(corpus, "comparative/test03_attention_fused_vs_unfused/trace2.json")

    answer = said(run, "unfused_attention")

    assert isinstance(answer, str)
    assert answer.startswith("attention runs in 1 unfused blocks, 100% of compute time")
    assert "measure attention.bfloat16.flops_per_s, memory.bytes_per_s" in answer


def test_the_fused_half_is_clear_of_it(corpus: Path) -> None:
    run = unit(corpus, "comparative/test03_attention_fused_vs_unfused/trace1.json")

    answer = said(run, "unfused_attention")

    assert isinstance(answer, Cleared)
    assert answer.severity == 0.0


def test_a_large_model_with_eager_attention_spends_nearly_all_its_compute_there(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/tracelens/h100_owlv2/google_owlv2-large-patch14-ensemble__1016001.json.gz")

    without = said(run, "unfused_attention")
    answer = said(replace(run, machine=replace(run.machine, constants={**run.machine.constants, **RATES})), "unfused_attention")

    assert isinstance(without, str)
    assert without.startswith("attention runs in 180 unfused blocks, 89% of compute time")
    assert isinstance(answer, Finding)


def test_sixteen_blocks_on_132_multiprocessors_leave_most_of_them_empty(corpus: Path) -> None:
    run = unit(corpus, "comparative/test05_gemm_identical_runtime_roofline/trace2.json")

    answer = said(run, "underfilled_gpu")

    assert isinstance(answer, Finding)
    assert answer.severity == pytest.approx(200 * (1 - 16 / 132) / 2000)  # 200 us of a step of 2 ms
    assert answer.upper_bound


@pytest.mark.parametrize(
    "name",
    [
        "comparative/test01_moe_fused_vs_unfused/trace1.json",
        "comparative/test01_moe_fused_vs_unfused/trace2.json",
        "comparative/test03_attention_fused_vs_unfused/trace1.json",
        "comparative/test05_gemm_identical_runtime_roofline/trace1.json",
    ],
)
def test_no_detector_of_kernels_finds_anything_in_the_others(corpus: Path, name: str) -> None:
    answers = [said(unit(corpus, name), each) for each in KERNELS]

    assert not [each for each in answers if isinstance(each, Finding)]


def test_kernels_without_a_recorded_launch_are_not_measured_rather_than_clear(corpus: Path) -> None:
    run = unit(corpus, "standalone/gemm/gemm_03_compute_misaligned.json")  # 4097 columns in bf16, but no correlation

    answer = said(run, "misaligned_shapes")

    assert isinstance(answer, str)
    assert answer.startswith("100% of compute time has no recorded launch")


@pytest.mark.no_cover
def test_no_detector_fails_on_any_micro_trace(corpus: Path) -> None:
    files = sorted((corpus / UNITS).rglob("*.json"))

    assert len(files) == 18
    for file in files:
        made = perfnb.diagnose(perfnb.read_trace(file))
        assert not [each for each in made.unmeasured if each.detector in KERNELS and each.reason.startswith("failed")]


def test_a_trace_without_steps_says_that_its_window_is_one(corpus: Path) -> None:
    run = unit(corpus, "standalone/elementwise/elem_01_add_poor_bw.json")

    assert len(run.steps) == 1
    assert NO_STEPS_NOTE in run.notes
    assert whole_window(run) is run
