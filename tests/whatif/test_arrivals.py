"""Gradients arrive when backward has computed them: on a device later than its host goes on."""

from __future__ import annotations

import pytest

from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.tables import table_from_text
from perfnb.whatif.collective_arrivals import EVALUATE, Arrivals, arrivals

HEAD = "rank process thread category name start_us duration_us input_shapes input_types correlation"
FORWARD = "0 1 1 annotation DistributedDataParallel.forward {} 9 - - -"
GRADIENT = '0 1 1 operator torch::autograd::AccumulateGrad {} 1 [[{}]] ["{}"] -'


def host(*rows: str) -> Run:
    table = table_from_text("host_ops", "\n".join([HEAD, *rows]))
    names = table["name"].astype(str).replace("evaluate", f"{EVALUATE}MmBackward0")  # with a space, which text cannot hold
    return Run(host_ops=table.assign(name=names.astype("category")))


def device(*rows: str, ops: str) -> Run:
    head = "rank kind name start_us duration_us correlation\n"
    return Run(
        host_ops=host(*rows).host_ops,
        device_ops=table_from_text("device_ops", head + ops),
        signals=frozenset({"device_ops"}),
    )


def reason(run: Run) -> str:
    found = arrivals(run)
    assert isinstance(found, Unknown)
    assert found.needs
    return found.reason


def test_each_pass_begins_after_the_forward_before_it() -> None:
    found = arrivals(
        host(
            GRADIENT.format(3, 7, "float"),  # of a pass that began before the trace
            FORWARD.format(10),
            GRADIENT.format(29, 2, "float"),
            GRADIENT.format(39, 8, "c10::Half"),
            FORWARD.format(50),
            GRADIENT.format(64, 2, "float"),
            GRADIENT.format(79, 8, "c10::Half"),
        )
    )

    assert isinstance(found, Arrivals)
    assert [(each.size_bytes, each.dtype) for each in found.gradients] == [(8, "float"), (16, "c10::Half")]
    # without a range of the engine a pass begins with its first gradient: 29, 30, 40 and 64, 65, 80
    assert found.shares.tolist() == pytest.approx([(1 / 11 + 1 / 16) / 2, 1.0])
    assert (found.span_us, found.passes) == (13.5, 2)


LAUNCHES = (
    FORWARD.format(0),
    "0 1 1 operator evaluate 10 1 - - -",
    "0 1 1 runtime cudaLaunchKernel 11 1 - - 1",
    GRADIENT.format(12, 4, "float"),
    "0 1 1 runtime cudaLaunchKernel 14 1 - - 2",
    "0 1 1 runtime cudaLaunchKernel 15 1 - - 3",
    GRADIENT.format(16, 4, "float"),
)


def test_on_a_device_gradients_arrive_when_what_was_launched_before_has_ended() -> None:
    ops = "0 compute gemm 20 10 1\n0 compute gemm 30 20 2\n0 communication nccl 90 9 3"

    found = arrivals(device(*LAUNCHES, ops=ops))

    assert isinstance(found, Arrivals)
    assert found.shares.tolist() == pytest.approx([10 / 30, 1.0])
    assert found.span_us == 30.0


def test_a_backward_that_launches_nothing_tells_nothing() -> None:
    assert reason(device(*LAUNCHES, ops="0 compute gemm 20 10 99")) == "the trace holds no whole backward pass"


def test_without_gradients_there_are_no_arrivals() -> None:
    assert "has no torch::autograd::AccumulateGrad" in reason(Run())
    assert "has no torch::autograd::AccumulateGrad" in reason(host(FORWARD.format(0)))


def test_shapes_must_have_been_recorded() -> None:
    bare = "0 1 1 operator torch::autograd::AccumulateGrad 20 1 - - -"

    assert reason(host(FORWARD.format(0), bare)) == "the trace has no shapes of gradients"
    assert reason(host(FORWARD.format(0), GRADIENT.format(20, 4, "quint8"))) == "the trace has no shapes of gradients"


def test_another_order_in_each_pass_is_no_order() -> None:
    one = [FORWARD.format(0), GRADIENT.format(20, 1, "float"), GRADIENT.format(30, 2, "float")]
    other = [FORWARD.format(100), GRADIENT.format(120, 2, "float"), GRADIENT.format(130, 1, "float")]

    assert "another order" in reason(host(*one, *other))
