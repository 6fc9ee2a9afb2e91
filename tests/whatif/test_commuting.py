"""The order of two changes is irrelevant: every pair of transforms, on a CPU job and on a device job where both can be made."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd
import pytest

from perfnb.errors import ConflictingChanges
from perfnb.prediction import Change, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text
from perfnb.whatif.model import StepModel
from perfnb.whatif.step_model import edited, predict
from perfnb.whatif.step_simulation import half_widths, simulated_step_us
from perfnb.whatif.transform import transforms

MS = 1000.0
LOADER = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
CHANGES = (
    Change("activation_checkpointing", "none", "full"),
    Change("async_checkpoint", before=False, after=True),
    Change("attention", "eager", "sdpa"),
    Change("balance_batches", before=False, after=True),
    Change("batch_size", 8, 16),
    Change("bucket_cap_mb", None, 50),
    Change("cache_samples", "none", "memory"),
    Change("checkpoint_every_n_steps", 2, 4),
    Change("compile", before=False, after=True),
    Change("compile_dynamic", before=None, after=True),
    Change("cuda_graphs", before=False, after=True),
    Change("empty_cache_every_n_steps", 1, 4),
    Change("find_unused_parameters", before=True, after=False),
    Change("gc_freeze", before=False, after=True),
    Change("gradient_accumulation_steps", 1, 2),
    Change("gradient_compression", "none", "bf16"),
    Change("group_by_length", before=False, after=True),
    Change("in_order", before=True, after=False),
    Change("log_every_n_steps", 1, 4),
    Change("matmul_precision", "highest", "high"),
    Change("memory_format", "contiguous", "channels_last"),
    Change("non_blocking", before=False, after=True),
    Change("num_workers", 0, 2),
    Change("optimizer_implementation", "loop", "fused"),
    Change("pack_sequences", before=False, after=True),
    Change("pad_to_multiple_of", 1, 8),
    Change("persistent_workers", before=False, after=True),
    Change("pin_memory", before=False, after=True),
    Change("precision", "fp32", "bf16"),
    Change("prefetch_factor", None, 4),
    Change("sync_every_micro_batch", before=True, after=False),
    Change("torch_num_threads", 8, 4),
)
CONFIG: dict[str, Any] = {change.knob: change.before for change in CHANGES}
CONSTANTS = {
    "machine.layers.bf16.ratio": 0.5,
    "machine.layers.fp32.us": 20 * MS,
    "machine.layers.channels_last.ratio": 0.8,
    "machine.layers.convolutions.fp32.us": 10 * MS,
    "matmul.float32.flops_per_s": 1e13,
    "matmul.bfloat16.flops_per_s": 1e14,
    "matmul.tfloat32.flops_per_s": 5e13,
    "attention.float32.flops_per_s": 1e13,
    "memory.bytes_per_s": 1e12,
    "compute_capability": 8.0,
}


def cpu_job() -> Run:
    """Sixteen steps: loading 20, forward 30, backward 40, optimizer 10, rest 10, of which garbage 4; padded batches."""
    steps, phases, host = [], [], []
    for step in range(16):
        at = 110.0 * step
        times = {"data": 20.0, "forward": 30.0, "backward": 40.0, "optimizer": 10.0, "other": 10.0}
        steps.append((0, step, at * MS, 110.0 * MS))
        for phase, wall in times.items():
            queue = 2.0 if phase in ("forward", "backward") else 0.0
            phases.append((0, step, phase, wall * MS, (wall - queue - 1.0) * MS, queue * MS, 1.0 * MS))
        host.append((0, "1", "1", "gc", "generation2", (at + 102.0) * MS, 4.0 * MS))
    training = pd.DataFrame({"rank": 0, "step": range(16), "batch_size": 8.0, "tokens": 600.0, "padded_tokens": 1000.0})
    return Run(
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
        phases=conform(
            "phases", pd.DataFrame(phases, columns=["rank", "step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"])
        ),
        host_ops=conform(
            "host_ops", pd.DataFrame(host, columns=["rank", "process", "thread", "category", "name", "start_us", "duration_us"])
        ),
        training=conform("training", training),
        machine=Machine(cpu_capacity=4.0, constants=CONSTANTS),
        signals=frozenset({"steps", "phases", "training", "gc", "compile", "schedstat"}),
    )


def device_job() -> Run:
    """Twelve steps of 1000: loading 200, a copy, a product, a conversion of layout, the optimizer, an allocation, garbage."""
    steps, host, device = [], [], []
    for step in range(12):
        at = 1000.0 * step
        steps.append(f"0 {step} {at} 1000")
        calls = ((210, "cudaMemcpyAsync"), (260, "cudaLaunchKernel"), (270, "cudaLaunchKernel"), (720, "cudaLaunchKernel"))
        host += [
            f'0 1 1 annotation "{LOADER}" {at} 200 - -',
            f"0 1 1 operator aten::stack {at + 150} 40 - -",
            f"0 1 1 operator aten::mm {at + 255} 12 - [[1024,1024],[1024,1024]]",
            f"0 1 1 gc generation2 {at + 500} 60 - -",
            f"0 1 1 annotation Optimizer.step#SGD.step {at + 700} 140 - -",
            f"0 1 1 runtime cudaMalloc {at + 850} 50 - -",
            *(f"0 1 1 runtime {name} {at + start} 5 {10 * step + place} -" for place, (start, name) in enumerate(calls)),
        ]
        device += [
            f'0 0 7 copy "Memcpy HtoD (Pinned -> Device)" {at + 220} 20 {10 * step} 20000',
            f"0 0 7 compute sgemm {at + 265} 300 {10 * step + 1} -",
            f"0 0 7 compute nchwToNhwcKernel {at + 566} 100 {10 * step + 2} -",
            f"0 0 7 compute sgd {at + 730} 80 {10 * step + 3} -",
        ]
    header = "rank process thread category name start_us duration_us correlation input_shapes"
    table = table_from_text("host_ops", header + "\n" + "\n".join(host))
    types = table["name"].eq("aten::mm").map({True: '["float","float"]', False: None})
    table = conform("host_ops", table.assign(input_types=types))
    return Run(
        steps=table_from_text("steps", "rank step start_us duration_us\n" + "\n".join(steps)),
        host_ops=table,
        device_ops=table_from_text(
            "device_ops", "rank device stream kind name start_us duration_us correlation bytes\n" + "\n".join(device)
        ),
        machine=Machine(cpu_capacity=8.0, devices=("NVIDIA A100",), constants=CONSTANTS),
        signals=frozenset({"host_ops", "device_ops", "gc"}),
    )


def made(run: Run, changes: tuple[Change, ...]) -> StepModel | None:
    """The model after changes in this very order; None where one cannot be made."""
    model = StepModel.from_run(run, CONFIG)
    assert isinstance(model, StepModel), model
    for change in changes:
        found = transforms()[change.knob]
        if any(getattr(run, table).empty for table in found.needs):
            return None
        edited_model = found.function(model, change)
        if isinstance(edited_model, Unknown):
            return None
        model = edited_model
    return model


def values_of(model: StepModel) -> tuple[float, ...]:
    rows = range(len(model.measured.step_us))
    after = simulated_step_us(model, rows, {})
    return (after, *half_widths(model, rows, after), model.samples_ratio)


@pytest.mark.parametrize(("job", "fewest"), [(cpu_job, 10), (device_job, 12)])
def test_any_two_changes_commute(job: Any, fewest: int) -> None:
    run = job()
    alone = [change for change in CHANGES if made(run, (change,)) is not None]
    assert len(alone) >= fewest, [change.knob for change in alone]

    for one, other in combinations(alone, 2):
        first, second = made(run, (one, other)), made(run, (other, one))
        assert (first is None) == (second is None), (one.knob, other.knob)
        if first is not None and second is not None:
            assert values_of(first) == pytest.approx(values_of(second), rel=1e-9), (one.knob, other.knob)
            assert first.errors == second.errors
            assert set(first.assumptions) == set(second.assumptions)


def test_every_transform_is_among_the_pairs() -> None:
    moved_elsewhere = {"data_root"}  # a path of the user's, which needs a probe of it

    assert set(transforms()) - moved_elsewhere <= {change.knob for change in CHANGES} | {
        "pipeline_split",
        "zero_stage",
        "backend",
    }


def test_two_changes_of_one_knob_conflict() -> None:
    with pytest.raises(ConflictingChanges, match="several changes of num_workers"):
        predict(cpu_job(), [Change("num_workers", 0, 2), Change("num_workers", 0, 4)], CONFIG)


def test_one_unknown_makes_all_unknown_and_names_its_change() -> None:
    answer = edited(cpu_job(), [Change("gc_freeze", before=False, after=True), Change("nothing", 0, 1)], CONFIG)

    assert isinstance(answer, Unknown)
    assert answer.reason.startswith("nothing: 0 -> 1")
