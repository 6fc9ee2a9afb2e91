"""Changes of how ranks exchange gradients are predicted from a recorded job's own buckets, arrivals and calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd
import pytest

from perfnb.prediction import Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import conform
from perfnb.whatif.collective import MIB
from perfnb.whatif.collective_arrivals import ACCUMULATE, EVALUATE, Arrivals, arrivals
from perfnb.whatif.collective_link import PROBE, Link, link_of, with_link_times
from perfnb.whatif.step_model import predict

MS = 1e3
FORWARD, BACKWARD, OPTIMIZER = 50.0, 100.0, 10.0
ADDING = OPTIMIZER / 2  # of the gradients of one more micro-batch
GRADIENTS = (1, 8, 20, 64)  # MiB, in the order in which they arrive: after a quarter of backward, a half, ...
# A call takes .1 ms and 1 ms per MiB. With DDP's default the buckets are 1, 28 and 64: they can go at 25, 75 and 100, and end at
# 26.1, 103.1 and 167.2, so 67.2 after backward.
EXPOSED = 67.2
CONFIG: Mapping[str, Any] = {
    "num_workers": 0,
    "torch_num_threads": 1,
    "gradient_accumulation_steps": 1,
    "sync_every_micro_batch": False,
    "bucket_cap_mb": None,
    "find_unused_parameters": False,
    "gradient_compression": "none",
    "zero_stage": 0,
    "backend": "gloo",
    "parallelism": "ddp",
}


def call_ms(mib: float) -> float:
    return 0.1 + mib


@cache
def job(
    *,
    exchanged: float = EXPOSED,
    calls: tuple[float, ...] = (1, 28, 64),
    micro_batches: int = 1,
    exchanges: int = 1,
    ranks: int = 2,
    world: int = 2,
    runqueue: float = 0.0,
    search: float = 0.0,
) -> Run:
    """Fourteen steps of ranks that do the same, the last three in a profiler's window."""
    length = micro_batches * (FORWARD + BACKWARD) + exchanges * exchanged + OPTIMIZER + runqueue
    steps, phases, host, collectives = [], [], [], []
    for rank in range(ranks):
        for step in range(14):
            start = 1000.0 * step
            steps.append((rank, step, start * MS, length * MS, step >= 11, micro_batches))
            times = {"forward": FORWARD, "backward": BACKWARD}
            phases += [(rank, step, name, micro_batches * time * MS, 0.0, 0.0) for name, time in times.items()]
            phases.append((rank, step, "optimizer", OPTIMIZER * MS, 0.0, 0.0))
            phases.append((rank, step, "communication", 0.0, 0.0, exchanges * exchanged * MS))
            if runqueue:
                phases[-3] = (rank, step, "backward", micro_batches * BACKWARD * MS, runqueue * MS, 0.0)
            if step >= 11:
                host += window(rank, start, search)
                moment = start + 60
                for mib in calls:
                    collectives.append((rank, mib, moment * MS, call_ms(mib) * MS))
                    moment += call_ms(mib)
    return Run(
        steps=conform("steps", frame(steps, "rank step start_us duration_us is_profiled micro_batches")),
        phases=conform("phases", totalled(frame(phases, "rank step phase cpu_us runqueue_us blocked_us"))),
        host_ops=conform(
            "host_ops", frame(host, "rank process thread category name start_us duration_us input_shapes input_types")
        ),
        collectives=conform(
            "collectives",
            frame(collectives, "rank mib start_us duration_us").assign(
                group="dp",
                collective="all_reduce",
                dtype="float",
                clock="host",
                bytes=lambda rows: (rows["mib"] * MIB).astype(int),
            ),
        ),
        signals=frozenset({"steps", "phases", "host_ops", "collectives", "schedstat"}),
        config=CONFIG,
        machine=Machine(cpu_capacity=8.0),
        world_size=world,
    )


def frame(rows: list[tuple[Any, ...]], columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def totalled(phases: pd.DataFrame) -> pd.DataFrame:
    return phases.assign(wall_us=phases["cpu_us"] + phases["runqueue_us"] + phases["blocked_us"])


def window(rank: int, start: float, search: float) -> list[tuple[Any, ...]]:
    """What a profiler sees of a step: DDP's forward, and each gradient where backward accumulates it."""
    thread = (rank, "1", "1")
    rows: list[tuple[Any, ...]] = [
        (*thread, "annotation", "DistributedDataParallel.forward", start * MS, FORWARD * MS, None, None),
        (*thread, "operator", f"{EVALUATE}MmBackward0", (start + FORWARD) * MS, 1.0, None, None),
    ]
    if search:
        name = "torch.distributed.ddp.reducer::search_unused_parameters"
        rows.append((*thread, "operator", name, (start + 1) * MS, search * MS, None, None))
    for number, mib in enumerate(GRADIENTS):
        there = (start + FORWARD + BACKWARD * (number + 1) / len(GRADIENTS)) * MS
        shape = f"[[{mib * MIB // 4}]]"
        rows.append((*thread, "operator", ACCUMULATE, there - 2.0, 2.0, shape, '["float"]'))
    return rows


def asked(run: Run, changes: Mapping[str, Any], **config: Any) -> Prediction | Unknown:
    return predict(run, changes, {**CONFIG, **config}, metric="step_us", draws=10)


def after(run: Run, changes: Mapping[str, Any], **config: Any) -> float:
    found = asked(run, changes, **config)
    assert isinstance(found, Prediction), found
    assert found.low <= found.after <= found.high
    assert found.basis == "prior"
    return found.after / MS


def reason(run: Run, changes: Mapping[str, Any], **config: Any) -> str:
    found = asked(run, changes, **config)
    assert isinstance(found, Unknown)
    assert found.needs
    return found.reason


def probed(run: Run, **rates: float) -> Run:
    """The run with a probe of its link: .1 ms and so many MiB per ms of each kind; casting 64 MiB there and back takes 2 ms."""
    rows = [
        {"backend": "gloo", "collective": kind.split("_of_")[0], "dtype": kind.split("_of_")[1], "ranks": 2}
        | {"bytes": mib * MIB, "time_us": (0.1 + mib / rate) * MS}
        for kind, rate in rates.items()
        for mib in (1, 8, 64)
    ]
    cast = {"backend": "gloo", "collective": "cast", "dtype": "float16", "ranks": 2, "bytes": 64 * MIB, "time_us": 2 * MS}
    return with_link_times(run, [*rows, cast])


def test_gradients_and_their_arrival_are_read_from_the_window() -> None:
    found = arrivals(job())

    assert isinstance(found, Arrivals)
    assert [each.size_bytes // MIB for each in found.gradients] == list(GRADIENTS)
    assert found.shares.tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert (found.span_us, found.passes) == (100.0 * MS, 6)


def test_calls_of_the_job_itself_tell_what_a_call_takes() -> None:
    link = link_of(job(), "gloo")

    assert isinstance(link, Link)
    times = link.all_reduce()
    assert not isinstance(times, Unknown)
    assert times(10 * MIB) / MS == pytest.approx(10.1)


def test_one_bucket_of_all_gradients_hides_behind_nothing() -> None:
    assert after(job(), {"bucket_cap_mb": 100}) == pytest.approx(FORWARD + BACKWARD + 93.1 + OPTIMIZER)


def test_a_list_of_limits_names_each_bucket() -> None:
    # 1 + 8, then 20 + 64: they can go at 50 and 100, and take 9.1 and 84.1
    assert after(job(), {"bucket_cap_mb": [9, 50]}) == pytest.approx(FORWARD + BACKWARD + 84.1 + OPTIMIZER)


def test_25_is_not_the_default() -> None:
    # 1 + 8 + 20, then 64: 29.1 from 75 on, and 64.1
    assert after(job(), {"bucket_cap_mb": 25}) == pytest.approx(FORWARD + BACKWARD + 4.1 + 64.1 + OPTIMIZER)


def test_micro_batches_share_one_exchange() -> None:
    assert after(job(), {"gradient_accumulation_steps": 4}) == pytest.approx(
        4 * (FORWARD + BACKWARD) + EXPOSED + OPTIMIZER + 3 * ADDING
    )


def test_an_exchange_in_each_micro_batch_comes_as_often() -> None:
    both = {"gradient_accumulation_steps": 4, "sync_every_micro_batch": True}

    assert after(job(), both) == pytest.approx(4 * (FORWARD + BACKWARD + EXPOSED) + OPTIMIZER + 3 * ADDING)


def test_exchanging_once_instead_of_each_time_saves_the_others() -> None:
    run = job(micro_batches=4, exchanges=4)

    found = after(run, {"sync_every_micro_batch": False}, gradient_accumulation_steps=4, sync_every_micro_batch=True)

    assert found == pytest.approx(4 * (FORWARD + BACKWARD) + EXPOSED + OPTIMIZER)


def test_buckets_and_micro_batches_are_one_exchange() -> None:
    both = {"gradient_accumulation_steps": 4, "bucket_cap_mb": 100}

    assert after(job(), both) == pytest.approx(4 * (FORWARD + BACKWARD) + 93.1 + OPTIMIZER + 3 * ADDING)


def test_cores_that_exchanging_takes_from_backward_are_not_won_by_overlap() -> None:
    # the calls take 93.3 in all, 67.2 of it after backward; where all of it costs, one bucket costs no more than three
    found = after(job(exchanged=93.3), {"bucket_cap_mb": 100})

    assert found == pytest.approx(FORWARD + BACKWARD + 93.1 + OPTIMIZER)


def test_waiting_for_a_core_in_backward_is_a_cost_of_the_exchange() -> None:
    run = job(exchanged=57.2, runqueue=10.0)

    assert after(run, {"gradient_accumulation_steps": 2}) == pytest.approx(
        2 * (FORWARD + BACKWARD) + EXPOSED + OPTIMIZER + ADDING
    )


def test_sixteen_bits_are_timed_by_a_probe_of_such_calls() -> None:
    # both by the probe: 1 MiB per ms now, then half the bytes at .5 MiB per ms, and 1 ms per 32 MiB of casting
    run = probed(job(), all_reduce_of_float32=1.0, all_reduce_of_float16=0.5)

    # 1.1 + 1/32, 28.1 + 28/32, 64.1 + 2: they end at 26.13, 103.98 and 170.08
    assert after(run, {"gradient_compression": "fp16"}) == pytest.approx(FORWARD + BACKWARD + 70.075 + OPTIMIZER)


def test_sixteen_bits_without_a_probe_are_refused() -> None:
    assert "no times of all_reduce in float32" in reason(job(), {"gradient_compression": "fp16"})
    half = reason(probed(job(), all_reduce_of_float32=1.0), {"gradient_compression": "fp16"})
    assert "no times of all_reduce in float16" in half


def test_casting_that_was_not_timed_is_refused() -> None:
    run = probed(job(), all_reduce_of_float32=1.0, all_reduce_of_float16=0.5)
    constants = {name: value for name, value in run.machine.constants.items() if not name.startswith("cast")}
    run = replace(run, machine=replace(run.machine, constants=constants))

    assert "casting" in reason(run, {"gradient_compression": "fp16"})


def test_no_more_search_for_unused_parameters() -> None:
    # never rebuilt: filled from the last gradient to arrive: 64; then 20 + 8; then 1: sent as 1, 28, 64, and a bitmap of 16 bytes
    run = job(search=8.0, exchanged=EXPOSED + 0.1, calls=(1, 28, 64))

    found = asked(run, {"find_unused_parameters": False}, find_unused_parameters=True)

    assert isinstance(found, Prediction)
    # the bitmap goes, and of the 8 ms that the profiler saw three quarters
    assert found.after / MS == pytest.approx(FORWARD + BACKWARD + EXPOSED + OPTIMIZER - 6.0, abs=1e-3)


def test_a_search_that_was_not_recorded_is_refused() -> None:
    run = job(exchanged=EXPOSED + 0.1)

    assert "was not recorded" in reason(run, {"find_unused_parameters": False}, find_unused_parameters=True)
    assert "how long a search" in reason(job(), {"find_unused_parameters": True})


def test_sharded_state_scatters_gradients_and_gathers_parameters() -> None:
    run = probed(job(), all_reduce_of_float32=1.0, reduce_scatter_of_float32=1.0, all_gather_of_float32=1.0)
    # the factor of both is a half of an all-reduce's, which the probe's times hold: 1.1, 28.1, 64.1 each, as the all-reduce
    gathered = 93.3

    first = after(run, {"zero_stage": 1})

    assert first == pytest.approx(FORWARD + BACKWARD + EXPOSED + gathered + OPTIMIZER / 2)
    # stage 3: 2.2, 56.2, 128.2 in backward end at 27.2, 131.2 and 259.4; gathering in forward hides behind its 50
    third = after(run, {"zero_stage": 3})
    assert third == pytest.approx(FORWARD + BACKWARD + 159.4 + max(gathered - FORWARD, 64.1) + OPTIMIZER / 2)


@pytest.mark.parametrize(
    ("changes", "config", "said"),
    [
        ({"bucket_cap_mb": -1}, {}, "-1 is no limit"),
        ({"bucket_cap_mb": []}, {}, "[] is no limit"),
        ({"bucket_cap_mb": "25"}, {}, "'25' is no limit"),
        ({"bucket_cap_mb": 1}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"bucket_cap_mb": 1}, {"bucket_cap_mb": 2}, "buckets by torch's rules are"),
        ({"find_unused_parameters": 1}, {}, "1: unused parameters"),
        ({"find_unused_parameters": True}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"gradient_compression": "powersgd"}, {}, "'powersgd'"),
        ({"gradient_compression": "bf16"}, {}, "raises TypeError on gloo"),
        ({"gradient_compression": "fp16"}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"sync_every_micro_batch": "no"}, {}, "exchanged each time"),
        ({"sync_every_micro_batch": True}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"gradient_accumulation_steps": 2}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"zero_stage": 4}, {}, "stages are 0 to 3"),
        ({"zero_stage": 2}, {"zero_stage": 1}, "shards its state already"),
        ({"zero_stage": 2}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"zero_stage": 2}, {}, "no times of all_reduce"),
        ({"backend": "nccl"}, {}, "serves tensors of GPUs"),
        ({"backend": None}, {}, "names no backend"),
        ({"backend": "mpi"}, {"parallelism": "fsdp"}, "parallelism is fsdp"),
        ({"backend": "mpi"}, {}, "no times of all_reduce in float32 over 2 ranks with"),
        ({"parallelism": "fsdp"}, {}, "no model of parallelism"),
        ({"pipeline_split": [1, 3]}, {"pipeline_split": [2, 2]}, "no model of pipeline_split"),
    ],
)
def test_what_cannot_be_known_is_refused_in_words(changes: Mapping[str, Any], config: Mapping[str, Any], said: str) -> None:
    assert said in reason(job(), changes, **config)


def test_both_of_sharding_and_sixteen_bits_are_refused() -> None:
    run = probed(job(), all_reduce_of_float32=1.0, all_reduce_of_float16=0.5, reduce_scatter_of_float32=1.0)

    assert "not modelled" in reason(run, {"zero_stage": 1, "gradient_compression": "fp16"})
    assert "no times of all_gather" in reason(run, {"zero_stage": 1})
    assert "no times of reduce_scatter" in reason(probed(job(), all_reduce_of_float32=1.0), {"zero_stage": 1})


def test_another_backend_hides_its_calls_behind_backward() -> None:
    run = probed(job(exchanged=93.3), all_reduce_of_float32=1.0)
    rows = [
        {
            "backend": "mpi",
            "collective": "all_reduce",
            "dtype": "float32",
            "ranks": 2,
            "bytes": mib * MIB,
            "time_us": mib * MS / 2,
        }
        for mib in (1, 8, 64)
    ]

    # half the time, of which only what backward does not hide counts: 25.5, 89 and 132
    assert after(with_link_times(run, rows), {"backend": "mpi"}) == pytest.approx(FORWARD + BACKWARD + 32 + OPTIMIZER)


def test_buckets_of_two_sizes_do_not_tell_what_a_call_takes() -> None:
    run = replace(job(), collectives=job(calls=(8, 10, 11)).collectives)

    found = link_of(run, "gloo")

    assert isinstance(found, Link)
    refused = found.all_reduce()
    assert isinstance(refused, Unknown)
    assert "1.4 times the smallest, 8 are needed" in refused.reason
    assert PROBE in refused.needs


def test_calls_of_one_rank_alone_hold_waiting() -> None:
    run = job()
    alone = replace(run, collectives=run.collectives[run.collectives["rank"].eq(0)])

    found = link_of(alone, "gloo")

    assert isinstance(found, Link)
    assert isinstance(found.recorded, Unknown)
    assert "not every rank" in found.recorded.reason or "no all-reduce" in found.recorded.reason


def test_one_rank_has_no_link() -> None:
    assert isinstance(link_of(Run(world_size=1), "gloo"), Unknown)
    two = link_of(Run(world_size=2), "gloo")
    assert isinstance(two, Link)
    assert isinstance(two.recorded, Unknown)


def test_an_exchange_that_costs_what_its_calls_cannot_explain_is_refused() -> None:
    assert "but the exchange costs 1 ms" in reason(job(exchanged=1.0), {"bucket_cap_mb": 100})


def test_a_rank_that_was_not_read_may_be_the_one_that_waits_least() -> None:
    assert "ranks 1 were not read" in reason(job(ranks=1), {"gradient_accumulation_steps": 2})


def test_ranks_that_show_no_exchange_are_refused() -> None:
    assert "no time in which ranks exchange data" in reason(job(exchanged=0.0), {"gradient_accumulation_steps": 2})


def test_one_rank_accumulates_without_an_exchange() -> None:
    run = job(ranks=1, world=1, exchanged=0.0)

    assert after(run, {"gradient_accumulation_steps": 2}) == pytest.approx(2 * (FORWARD + BACKWARD) + OPTIMIZER + ADDING)


def test_whether_each_micro_batch_is_exchanged_must_be_known() -> None:
    run = job(micro_batches=4)
    config = {knob: value for knob, value in CONFIG.items() if knob != "sync_every_micro_batch"}

    changed = {**config, "gradient_accumulation_steps": 4}
    found = predict(run, {"gradient_accumulation_steps": 2}, changed, metric="step_us")

    assert isinstance(found, Unknown)
    assert "in each of 4 micro-batches or once" in found.reason


def test_micro_batches_are_counted_where_the_config_does_not_tell() -> None:
    run = job(micro_batches=4)
    config = {knob: value for knob, value in CONFIG.items() if knob != "gradient_accumulation_steps"}

    known = predict(run, {"bucket_cap_mb": 100}, config)
    steps = run.steps.assign(micro_batches=run.steps["step"] % 2 + 1)
    unknown = predict(replace(run, steps=conform("steps", steps)), {"bucket_cap_mb": 100}, config)

    assert isinstance(known, Prediction)
    assert known.after / MS == pytest.approx(4 * (FORWARD + BACKWARD) + 93.1 + OPTIMIZER)
    assert isinstance(unknown, Unknown)
    assert "how many micro-batches" in unknown.reason
