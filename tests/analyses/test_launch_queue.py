"""Length of the launch queue of each stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import perfnb
from perfnb.analyses.launch_queue import launch_queue, launch_queue_summary, thinned_launch_queue
from perfnb.launches import launches
from perfnb.run import Run
from perfnb.tables import table_from_text

HOST = table_from_text(
    "host_ops",
    """rank process thread category name  start_us duration_us correlation
       0    1       1      runtime  a     0        1           1
       0    1       1      runtime  graph 2        1           2
       0    1       1      runtime  c     3        1           3
       0    1       1      runtime  early 50       1           4""",
)
OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name  start_us duration_us correlation
       0    -      7      compute a     4        4           1
       0    -      7      compute g1    8        2           2
       0    -      7      compute g2    10       2           2
       0    -      20     copy    c     5        2           3
       0    -      7      compute early 40       2           4
       0    -      7      compute lost  44       2           99""",
)
RUN = Run(host_ops=HOST, device_ops=OPS)


def test_ops_queue_on_their_stream_from_their_call_to_their_start() -> None:
    found = launch_queue(RUN)

    seven = found[found["stream"] == 7]
    assert seven["time_us"].to_list() == [0, 2, 4, 8, 10]
    assert seven["length"].to_list() == [1, 3, 2, 1, 0]
    assert found.loc[found["stream"] == 20, "length"].to_list() == [1, 0]
    assert found["device"].eq(-1).all()


def test_a_graph_is_one_call_until_its_last_op_starts() -> None:
    found = launch_queue(RUN)

    assert found.loc[found["stream"] == 7, "calls"].to_list() == [1, 2, 1, 1, 0]


def test_the_summary_weighs_lengths_by_time_and_counts_full_time_in_calls() -> None:
    found = launch_queue_summary(launch_queue(RUN), full_length=2).set_index("stream").loc[7]

    assert (found["launched_ops"], found["window_us"]) == (3, 10.0)
    assert found["mean_length"] == (2 * 1 + 2 * 3 + 4 * 2 + 2 * 1) / 10
    assert (found["median_length"], found["p90_length"], found["max_length"], found["max_calls"]) == (2, 3, 3, 2)
    assert (found["full_us"], found["full_share"]) == (2.0, 0.2)


def test_without_recorded_launches_there_is_no_queue() -> None:
    found = launch_queue(Run(device_ops=OPS))

    assert found.empty
    assert launch_queue_summary(found).empty
    assert thinned_launch_queue(found).empty


@pytest.mark.corpus
@pytest.mark.parametrize(
    "path",
    [
        "traces/tracelens/mi300x_resnet_act_checkpoint/resnet_act_checkpoint.json.gz",
        "traces/hta/trace_diff/test.json.gz",
    ],
)
def test_recorded_queues_are_never_negative_end_empty_and_agree_with_a_count_at_any_moment(corpus: Path, path: str) -> None:
    run = perfnb.read_trace(corpus / path)
    enters, leaves = launches(run)["call_start_us"], run.device_ops["start_us"]

    found = launch_queue(run)

    assert found["length"].ge(0).all()
    assert found["calls"].between(0, found["length"]).all()
    for stream, own in found.groupby("stream"):
        assert own["length"].iloc[-1] == own["calls"].iloc[-1] == 0
        on_it = (run.device_ops["stream"] == stream).to_numpy(dtype=bool)
        for moment in np.linspace(own["time_us"].min(), own["time_us"].max(), 40):
            expected = int((on_it & (enters <= moment) & (leaves > moment)).sum())
            assert own.loc[own["time_us"] <= moment, "length"].iloc[-1] == expected


@pytest.mark.corpus
def test_a_thinned_queue_keeps_the_longest_of_each_stream(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/hta/trace_diff/test.json.gz")
    queue = launch_queue(run)

    few = thinned_launch_queue(queue, 400)

    assert len(few) <= 400
    assert few.groupby("stream")["length"].max().equals(queue.groupby("stream")["length"].max())
