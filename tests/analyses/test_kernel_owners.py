"""Owners of kernels: precision, alignment and what a device reaches, by rules worked out by hand."""

from __future__ import annotations

import pytest

from perfnb.analyses.batch_fit import batch_fit
from perfnb.analyses.kernel_owners import dimensions, is_before_tf32, kernel_owners
from perfnb.analyses.kernel_work import kernel_work
from perfnb.analyses.reached_rates import attained_share
from perfnb.analyses.step_overlap import per_step
from perfnb.analyses.unfused_softmax import unfused_blocks
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

HOST = "rank process thread category name start_us duration_us correlation input_shapes input_types"


def tables(*calls: tuple[str, str, str, str]) -> Run:
    """Operators one after the other, each with one launch and one kernel of 10 us: name, kernel, shapes, types."""
    host, ops = [HOST], ["rank device stream kind name start_us duration_us correlation"]
    for place, (operator, kernel, shapes, types) in enumerate(calls):
        host.append(f"0 1 1 operator {operator} {20 * place} 10 - {shapes} {types}")
        host.append(f"0 1 1 runtime cudaLaunchKernel {20 * place + 1} 1 {place} - -")
        ops.append(f"0 0 7 compute {kernel} {20 * place + 5} 10 {place}")
    return Run(host_ops=table_from_text("host_ops", "\n".join(host)), device_ops=table_from_text("device_ops", "\n".join(ops)))


def owners(run: Run, machine: Machine | None = None, **config: str) -> list[str]:
    return kernel_owners(run.host_ops, run.device_ops, machine or Machine(), config)["owner"].to_list()


SINGLE = ("aten::mm", "ampere_sgemm_128x64_tn", "[[64,64],[64,64]]", '["float"]')
TF32 = ("aten::mm", "cutlass_80_tensorop_s1688gemm_128x128", "[[64,64],[64,64]]", '["float"]')


def test_float32_on_plain_units_is_full_precision_where_the_device_has_tf32() -> None:
    assert owners(tables(SINGLE)) == ["full_precision_math"]  # the name says Ampere
    assert owners(tables(SINGLE), Machine(constants={"compute_capability": 7.0})) == ["underfilled_gpu"]
    assert owners(tables(SINGLE), Machine(devices=("AMD Instinct MI300X",))) == ["underfilled_gpu"]
    assert owners(tables(TF32)) == ["underfilled_gpu"]


def test_a_kernel_whose_name_does_not_tell_counts_if_the_config_forbids_tf32() -> None:
    silent = tables(("aten::mm", "nvjet", "[[64,64],[64,64]]", '["float"]'))
    machine = Machine(constants={"compute_capability": 9.0})

    assert owners(silent, machine) == ["underfilled_gpu"]
    assert owners(silent, machine, matmul_precision="highest") == ["full_precision_math"]
    assert owners(tables(TF32), machine, matmul_precision="highest") == ["underfilled_gpu"]


def test_under_a_tenth_of_compute_nobody_speaks_of_precision() -> None:
    relu = ("aten::relu", "relu", "[[64,64]]", '["float"]')

    assert "full_precision_math" not in owners(tables(SINGLE, *[relu] * 10))
    assert "full_precision_math" in owners(tables(SINGLE, *[relu] * 9))


@pytest.mark.parametrize(
    ("operator", "shapes", "owner"),
    [
        ("aten::mm", "[[64,63],[63,64]]", "misaligned_shapes"),
        ("aten::mm", "[[64,64],[64,64]]", "underfilled_gpu"),
        ("aten::mm", "[[1,63],[63,64]]", "underfilled_gpu"),  # a vector: nothing to pad
        ("aten::addmm", "[[63],[64,64],[64,63]]", "misaligned_shapes"),
        ("aten::linear", "[[2,32,64],[100,64],[100]]", "misaligned_shapes"),
    ],
)
def test_sixteen_bit_products_with_odd_dimensions_are_misaligned(operator: str, shapes: str, owner: str) -> None:
    assert owners(tables((operator, "gemm", shapes, '["c10::BFloat16","c10::BFloat16","c10::BFloat16"]'))) == [owner]
    assert owners(tables((operator, "gemm", shapes, '["float","float","float"]'))) == ["underfilled_gpu"]


def test_dimensions_of_hostile_shapes_are_none() -> None:
    assert dimensions("aten::mm", "[[64,64]") is None
    assert dimensions("aten::mm", '["a","b"]') is None
    assert dimensions("aten::mm", "[[64,64]]") is None
    assert dimensions("aten::relu", "[[64,64],[64,64]]") is None
    assert dimensions("aten::linear", "[[2,32,64],[100,64],[100]]") == (64, 64, 100)


def test_an_elementwise_kernel_is_held_against_the_bytes_that_it_moves() -> None:
    run = tables(("aten::add", "add", "[[1000],[1000],[]]", '["float","float","Scalar"]'))
    work = kernel_work(run.host_ops, run.device_ops)

    assert work["bytes"].to_list() == [12000]
    assert attained_share(work, {"memory.bytes_per_s": 2.4e9}).to_list() == [0.5]  # 5 of 10 us
    assert attained_share(work, {}).isna().all()


def test_a_loss_is_no_attention_and_one_product_alone_neither() -> None:
    product = ("aten::bmm", "gemm", "[[2,4,8],[2,8,4]]", '["float"]')
    softmax = ("aten::_softmax", "softmax", "[[2,4,4],[],[]]", '["float"]')
    loss = ("aten::_log_softmax", "softmax", "[[2,4,4],[],[]]", '["float"]')
    linear = ("aten::mm", "gemm", "[[4,8],[8,4]]", '["float"]')

    assert len(unfused_blocks(tables(product, softmax, product).host_ops)) == 1
    assert len(unfused_blocks(tables(product, loss, product).host_ops)) == 0
    assert len(unfused_blocks(tables(product, softmax, linear).host_ops)) == 0
    assert len(unfused_blocks(tables(linear, softmax, product).host_ops)) == 0


def test_another_makers_device_or_an_old_one_has_no_tf32() -> None:
    work = kernel_work(tables(SINGLE).host_ops, tables(SINGLE).device_ops)

    assert not is_before_tf32(work, Machine())
    assert is_before_tf32(work.assign(name="volta_sgemm"), Machine())
    assert not is_before_tf32(work, Machine(constants={"compute_capability": 8.0}))


def test_an_event_outside_all_steps_of_its_rank_has_no_row() -> None:
    steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 100\n1 1 500 100")
    events = table_from_text(
        "host_ops", "rank process thread category name start_us duration_us\n0 1 1 a b 150 10\n1 1 1 a b 590 30"
    )

    cut = per_step(events, steps)

    assert cut[["rank", "step", "inside_us"]].to_numpy().tolist() == [[1, 1, 10.0]]


def test_one_batch_size_and_a_last_batch_are_no_line() -> None:
    sizes = table_from_text("training", "rank step batch_size\n" + "\n".join(f"0 {n} {8 if n < 9 else 3}" for n in range(10)))

    assert batch_fit(sizes["batch_size"], sizes["step"].astype(float)) is None
