"""What a small GPU job would take with other kernels and other launches, worked out by hand in microseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text
from perfnb.whatif.loader_queue import steady_spacings_us
from perfnb.whatif.model import StepModel
from perfnb.whatif.segments import Program
from perfnb.whatif.step_model import predict
from perfnb.whatif.trace_replay import spacings_alone_us, training_loop, uncrowded_loop

LOADER = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
RATES = {"matmul.float32.flops_per_s": 1e13, "matmul.bfloat16.flops_per_s": 4e13, "matmul.tfloat32.flops_per_s": 2e13}


def job(
    constants: Mapping[str, float] | None = None,
    *,
    product_us: float = 2000.0,
    name: str = "sgemm",
    copy: str = "",
    calls: tuple[str, ...] = (),
) -> Run:
    """Twelve steps: loading 100, a product launched at 110 that starts at 120, Optimizer.step 200 to 300 with a kernel of 50.

    A step ends with the host's work, at 400; of a longer product the host waits from 310 until both kernels are done, 10 before
    the end of the step.
    """
    waits = product_us > 280.0
    length = product_us + 180.0 if waits else 400.0
    steps, host, device = [], [], []
    for step in range(12):
        at = length * step
        steps.append(f"0 {step} {at} {length}")
        host += [
            f'0 1 1 annotation "{LOADER}" {at} 100 - -',
            f"0 1 1 operator aten::mm {at + 105} 12 - [[1024,1024],[1024,1024]]",
            f"0 1 1 runtime cudaLaunchKernel {at + 110} 5 {10 * step} -",
            f"0 1 1 annotation Optimizer.step#SGD.step {at + 200} 100 - -",
            f"0 1 1 runtime cudaLaunchKernel {at + 210} 5 {10 * step + 1} -",
            *(f"0 1 1 runtime {call} {at + 320} 40 {10 * step + 2} -" for call in calls),
        ]
        device += [f'0 0 7 compute "{name}" {at + 120} {product_us} {10 * step} -']
        device += [f"0 0 7 compute sgd {at + max(120 + product_us, 220)} 50 {10 * step + 1} -"]
        if copy:
            host.append(f"0 1 1 runtime cudaMemcpyAsync {at + 101} 3 {10 * step + 3} -")
            device.append(f'0 0 7 copy "{copy}" {at + 102} 10 {10 * step + 3} 100000')
        if waits:
            host.append(f"0 1 1 runtime cudaDeviceSynchronize {at + 310} {product_us - 140} {10 * step + 4} -")
    header = "rank process thread category name start_us duration_us correlation input_shapes"
    table = table_from_text("host_ops", header + "\n" + "\n".join(host))
    table = conform(
        "host_ops", table.assign(input_types=table["name"].eq("aten::mm").map({True: '["float","float"]', False: None}))
    )
    ops = "rank device stream kind name start_us duration_us correlation bytes\n" + "\n".join(device)
    return Run(
        steps=table_from_text("steps", "rank step start_us duration_us\n" + "\n".join(steps)),
        host_ops=table,
        device_ops=table_from_text("device_ops", ops),
        machine=Machine(devices=("NVIDIA A100",), constants={"compute_capability": 8.0, **(constants or {})}),
        signals=frozenset({"host_ops", "device_ops"}),
    )


def after(run: Run, *changes: Change, **config: Any) -> float:
    answer = predict(run, changes, config)
    assert isinstance(answer, Prediction), answer
    assert any("not validated on a GPU" in text for text in answer.assumptions)
    return answer.after


def reason(run: Run, *changes: Change, **config: Any) -> str:
    answer = predict(run, changes, config)
    assert isinstance(answer, Unknown), answer
    assert answer.needs
    return answer.reason


BF16 = Change("precision", "fp32", "bf16")
TF32 = Change("matmul_precision", "highest", "high")
GRAPH = Change("cuda_graphs", before=False, after=True)
COMPILE = Change("compile", before=False, after=True)


def test_products_get_shorter_by_the_rates_that_were_measured() -> None:
    run = job(RATES)

    # 2000 become 500 in bf16, 1000 in TF32; the host waits for the device to the end of the step
    assert after(run, BF16) == pytest.approx(2180 - 1500)
    assert after(run, TF32) == pytest.approx(2180 - 1000)


def test_products_without_measured_rates_are_refused() -> None:
    assert "measured for 0% of their time" in reason(job(), BF16)
    assert "known to have TF32" in reason(
        dataclasses.replace(job(RATES), machine=Machine(devices=("Tesla V100",), constants={"compute_capability": 7.0})), TF32
    )
    assert "is modelled" in reason(job(RATES), Change("matmul_precision", "high", "highest"))


def test_a_host_that_is_the_limit_gains_nothing_from_shorter_kernels() -> None:
    assert after(job(RATES, product_us=100.0), BF16) == pytest.approx(400.0)


def test_a_graph_takes_the_hosts_time_away() -> None:
    # loading 100, then the product and the optimizer's kernel, one upon the other; the host has nothing left to do
    assert after(job(product_us=100.0), GRAPH) < 250.0


def test_a_graph_holds_no_wait_and_one_shape() -> None:
    changing = table_from_text("training", "rank step batch_size\n0 1 8\n0 2 6")

    assert "cudaDeviceSynchronize" in reason(job(), GRAPH)
    assert "batch_size changes" in reason(dataclasses.replace(job(product_us=100.0), training=changing), GRAPH)
    assert "one by one" in reason(job(product_us=100.0), GRAPH.inverse)


def test_compiling_is_a_range_from_the_step_of_now_to_one_without_launches() -> None:
    run = job(product_us=100.0)

    answer = predict(run, [COMPILE], {})

    assert isinstance(answer, Prediction)
    assert answer.low < answer.after < answer.before <= answer.high * 1.1
    assert "compile=False" in str(predict(run, [COMPILE.inverse], {}))


def test_two_cures_of_launching_share_its_gain() -> None:
    run = job(product_us=100.0)

    assert after(run, COMPILE, GRAPH) == pytest.approx(after(run, GRAPH), abs=2.0)


def test_a_fused_update_is_launched_in_no_time() -> None:
    fused = Change("optimizer_implementation", "loop", "fused")

    assert after(job(product_us=100.0), fused) == pytest.approx(300.0)  # Optimizer.step held the host for 100
    without = job(product_us=100.0)
    without = dataclasses.replace(without, host_ops=without.host_ops[~without.host_ops["name"].str.startswith("Optimizer")])
    assert "no Optimizer.step" in reason(without, fused)


def test_conversions_of_layout_go() -> None:
    channels_last = Change("memory_format", "contiguous", "channels_last")

    assert after(job(name="nchwToNhwcKernel"), channels_last) < 450
    assert "no kernel that converts" in reason(job(), channels_last)


def test_a_cache_that_is_emptied_at_fewer_steps() -> None:
    run = job(product_us=100.0, calls=("cudaMalloc",))

    assert after(run, Change("empty_cache_every_n_steps", 1, 0)) == pytest.approx(360.0)
    assert after(run, Change("empty_cache_every_n_steps", 1, 4)) == pytest.approx(400 - 0.75 * 40)
    assert "no call that allocates" in reason(job(product_us=100.0), Change("empty_cache_every_n_steps", 1, 0))
    assert "more often" in reason(run, Change("empty_cache_every_n_steps", 4, 1))
    assert "count steps" in reason(run, Change("empty_cache_every_n_steps", 0, 1))
    assert "the run holds" in reason(run, Change("empty_cache_every_n_steps", 50, 0))


def test_copies_that_no_longer_block_need_pinned_memory() -> None:
    run, change = job(product_us=100.0, copy="Memcpy HtoD (Pageable -> Device)"), Change("non_blocking", before=False, after=True)

    assert "not pinned" in reason(run, change)
    assert after(run, change, pin_memory=True) <= 400.0
    assert "no copy" in reason(job(product_us=100.0), change, pin_memory=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("pad_to_multiple_of", 1, 8), "no product in 16 bits"),
        (Change("pad_to_multiple_of", 1, 7), "no multiple of 8"),
        (Change("attention", "eager", "sdpa"), "no scores, softmax"),
        (Change("attention", "eager", "other"), "is modelled"),
        (Change("activation_checkpointing", "none", "full"), "phases"),
    ],
)
def test_what_the_trace_does_not_show_is_refused(change: Change, words: str) -> None:
    assert words in reason(job(RATES), change)


def test_twice_the_batch_of_a_busy_device_takes_longer_and_of_an_idle_one_is_refused() -> None:
    change = Change("batch_size", 8, 16)

    answer = predict(job(), [change], {"batch_size": 8}, metric="step_us")
    assert isinstance(answer, Prediction)
    # a fifth of the product's 2000 is taken not to grow: 2000 x 1.8, and loading takes 200
    assert answer.after == pytest.approx(2180 + 1600 + 100)
    assert "one batch size was seen, and the device works" in reason(job(product_us=100.0), change, batch_size=8)


def test_two_micro_batches_take_the_step_twice_less_one_update() -> None:
    answer = predict(job(), [Change("gradient_accumulation_steps", 1, 2)], {"batch_size": 8}, metric="step_us")

    assert isinstance(answer, Prediction)
    assert answer.after == pytest.approx(2 * 2180 - 50)


@pytest.mark.parametrize("order", [range(11), [3, 4, 5, 0, 1, 2, 9]])
@pytest.mark.parametrize("slower", [1.0, 1.08])
def test_a_loop_that_loads_itself_is_replayed_without_the_clock_to_the_same_moments(order: Sequence[int], slower: float) -> None:
    model = StepModel.from_run(job(), {})
    assert isinstance(model, StepModel)
    program = model.measured.ranks[0].program
    assert isinstance(program, Program)
    loading = [100.0 + step for step in order]

    clocked = steady_spacings_us(
        [(("wait", time),) for time in loading], training_loop(program, order, slower), workers=0, cores=1.0
    )

    assert spacings_alone_us(program, order, loading, slower) == pytest.approx(clocked)

    batches = [(("wait", 20.0 * time), ("cpu", time)) for time in loading]  # longer than a step, so that workers limit it
    loops = [loop(program, order, slower) for loop in (training_loop, uncrowded_loop)]
    beside = [steady_spacings_us(batches, loop, workers=2, cores=8.0) for loop in loops]

    assert beside[0] == pytest.approx(beside[1])
