"""A small GPU job, worked out by hand in microseconds: workers, logging, and what makes it unknown."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest

from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform, table_from_text
from perfnb.whatif.step_model import predict

LOADER = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
CONFIG = {"num_workers": 0, "log_every_n_steps": 1}


def job(*, read: bool = False, kernel_us: float = 300.0, cores: float | None = None, steps: int = 12) -> Run:
    """Each step: 400 of loading, a launch at 410 of a kernel at 420, Optimizer.step from 700 to 840.

    With `read` the value of a tensor is read from 850 to 900. A kernel longer than 580 ends later than the step would, at
    1000: the host then waits for it from 810 on and works 180 more.
    """
    waits = kernel_us > 580
    step_us = 420 + kernel_us + 180 if waits else 1000.0
    step_rows, host, device = [], [], []
    for step in range(steps):
        at = step * step_us
        step_rows.append(f"0 {step} {at} {step_us}")
        host += [
            f'0 1 1 annotation "{LOADER}" {at} 400 -',
            f"0 1 1 runtime cudaLaunchKernel {at + 410} 5 {2 * step + 1}",
            f"0 1 1 annotation Optimizer.step#SGD.step {at + 700} 140 -",
        ]
        device.append(f"0 0 7 compute matmul {at + 420} {kernel_us} {2 * step + 1}")
        if read:
            host.append(f"0 1 1 operator aten::item {at + 850} 50 -")
        if waits:
            host.append(f"0 1 1 runtime cudaDeviceSynchronize {at + 810} {kernel_us - 390} {2 * step + 2}")
    return Run(
        steps=table_from_text("steps", "rank step start_us duration_us\n" + "\n".join(step_rows)),
        host_ops=table_from_text(
            "host_ops", "rank process thread category name start_us duration_us correlation\n" + "\n".join(host)
        ),
        device_ops=table_from_text(
            "device_ops", "rank device stream kind name start_us duration_us correlation\n" + "\n".join(device)
        ),
        machine=Machine(cpu_capacity=cores),
        signals=frozenset({"host_ops", "device_ops"}),
    )


def predicted(answer: Prediction | Unknown) -> Prediction:
    assert isinstance(answer, Prediction), answer
    return answer


def test_workers_leave_the_hosts_own_work_a_little_slower() -> None:
    answer = predicted(predict(job(), {"num_workers": 2}, CONFIG))

    assert answer.after == pytest.approx(600 * 1.08)
    assert answer.model == "loader_queue_unprobed 1 + trace_replay 1"
    assert math.log(answer.high / answer.after) == pytest.approx(
        math.hypot(0.1, math.log(1.16 / 1.08), math.log((600 * 1.08 + 2000) / (600 * 1.08)))  # 2 ms for taking a batch
    )
    assert math.log(answer.after / answer.low) == pytest.approx(math.hypot(0.1, math.log(1.08)))


def test_where_cores_are_short_the_clock_alone_slows_the_host() -> None:
    answer = predicted(predict(job(cores=1), {"num_workers": 2}, CONFIG))

    assert answer.low <= 600  # all of loading is waiting, and no host factor
    assert answer.high >= 1000  # all of it is computing, on the one core


def test_logging_is_what_follows_the_optimizer() -> None:
    answer = predicted(predict(job(read=True), {"log_every_n_steps": 50}, CONFIG))

    assert answer.after == pytest.approx(1000 - 160 * (1 - 1 / 50))  # from 840 to the end of the step


def test_few_traced_steps_widen_the_interval_to_a_tenth() -> None:
    few = predicted(predict(job(read=True, steps=6), {"log_every_n_steps": 50}, CONFIG))

    assert few.spread >= 0.1


def test_a_trace_that_cannot_be_replayed_gives_no_number() -> None:
    run = job()
    without_launches = run.host_ops[run.host_ops["category"] != "runtime"]

    answer = predict(
        Run(steps=run.steps, host_ops=without_launches, device_ops=run.device_ops, signals=run.signals),
        {"num_workers": 2},
        CONFIG,
    )

    assert isinstance(answer, Unknown)
    assert "no launch call" in answer.reason


def test_a_device_that_is_the_limit_stays_the_limit() -> None:
    answer = predicted(predict(job(kernel_us=900.0), {"num_workers": 2}, CONFIG))

    assert answer.before == 420 + 900 + 180
    # without loading the launch comes at 10 x 1.08, the kernel 10 later; the host goes on at its end
    assert answer.after == pytest.approx(10 * 1.08 + 10 + 900 + 180 * 1.08)


def paused(*, read: bool = False, kernel_us: float = 300.0) -> Run:
    """The job with 100 of collecting garbage from 500 on, while the kernel may run, and 20 from 860 on."""
    run = job(read=read, kernel_us=kernel_us)
    step_us = float(run.steps["duration_us"].iloc[0])
    rows = [
        f"0 1 1 gc generation2 {step * step_us + at} {length} -" for step in range(12) for at, length in ((500, 100), (860, 20))
    ]
    pauses = table_from_text("host_ops", "rank process thread category name start_us duration_us correlation\n" + "\n".join(rows))
    host = conform("host_ops", pd.concat([run.host_ops.astype(object), pauses.astype(object)], ignore_index=True))
    return dataclasses.replace(run, host_ops=host, signals=run.signals | {"gc"})


FREEZE = Change("gc_freeze", before=False, after=True)


def test_a_trace_is_replayed_without_the_pauses_of_its_host() -> None:
    answer = predicted(predict(paused(), [FREEZE], CONFIG))

    assert answer.after == pytest.approx(1000 - 120)
    assert answer.model == "part 2 + trace_replay 1"
    assert any("not validated on a GPU" in text for text in answer.assumptions)


def test_a_pause_that_the_device_hides_costs_nothing() -> None:
    answer = predicted(predict(paused(kernel_us=900.0), [FREEZE], CONFIG))

    # the host waits for the kernel from 810 to 1320 in any case: both pauses lie before its end
    assert answer.after == pytest.approx(answer.before)


def test_a_pause_while_logging_goes_once() -> None:
    run, logging = paused(read=True), Change("log_every_n_steps", 1, 50)

    answer = predicted(predict(run, [FREEZE, logging], CONFIG))

    # logging is all from 840 on, 160 with the pause of 20 in it: without pauses 880, without logging too 740
    assert answer.after == pytest.approx(880 - 140 * (1 - 1 / 50))
    assert answer == predict(run, [logging, FREEZE], CONFIG)
