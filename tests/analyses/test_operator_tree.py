"""Call tree of host ops by path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.analyses.operator_tree import CATEGORIES, operator_rectangles, operator_tree
from perfnb.launches import launches
from perfnb.run import Run
from perfnb.tables import conform, table_from_text

HOST = table_from_text(
    "host_ops",
    """rank process thread category   name            start_us duration_us correlation
       0    1       1      annotation ProfilerStep#3  0        50          -
       0    1       1      operator   linear          5        20          -
       0    1       1      operator   addmm           6        10          -
       0    1       1      runtime    launch          7        2           1
       0    1       1      runtime    launch          18       2           2
       0    1       1      annotation ProfilerStep#4  50       50          -
       0    1       1      operator   linear          60       10          -
       0    1       1      operator   addmm           61       4           -
       0    1       1      operator   addmm           66       3           -
       0    1       1      runtime    launch          67       1           3
       0    1       2      operator   addmm           55       8           -
       1    1       1      operator   linear          0        7           -""",
)
OPS = table_from_text(
    "device_ops",
    """rank kind    name start_us duration_us correlation
       0    compute gemm 20       5           1
       0    compute bias 30       1           2
       0    compute gemm 80       7           3
       0    compute lost 90       9           77""",
)
STEPS = table_from_text("steps", "rank step start_us duration_us\n0 3 0 50\n0 4 50 50")
RUN = Run(steps=STEPS, host_ops=HOST, device_ops=OPS)


def test_calls_of_one_path_are_one_node_and_steps_share_theirs() -> None:
    found = operator_tree(RUN, rank=0).set_index("path")

    first = found[found["thread"] == "1"]
    assert first["calls"].to_dict() == {"ProfilerStep": 2, "ProfilerStep > linear": 2, "ProfilerStep > linear > addmm": 3}
    assert first["total_us"].to_list() == [100, 30, 17]
    assert first["self_us"].to_list() == [70, 13, 17]
    assert first["depth"].to_list() == [0, 1, 2]


def test_device_time_counts_in_the_node_around_its_launch_and_in_all_above() -> None:
    found = operator_tree(RUN, rank=0)

    first = found[found["thread"] == "1"]
    assert first["self_device_us"].to_list() == [0, 1, 12]
    assert first["device_us"].to_list() == [13, 13, 12]


def test_ranks_and_threads_have_trees_of_their_own() -> None:
    found = operator_tree(RUN)

    roots = found[found["parent"].isna()]
    assert roots[["rank", "thread", "name"]].to_numpy().tolist() == [
        [0, "1", "ProfilerStep"],
        [0, "2", "addmm"],
        [1, "1", "linear"],
    ]


def test_a_step_shows_only_what_starts_in_it_on_any_thread() -> None:
    found = operator_tree(RUN, rank=0, step=4)

    assert found[["path", "calls", "device_us"]].to_numpy().tolist() == [
        ["ProfilerStep", 1, 7],
        ["addmm", 1, 0],
        ["ProfilerStep > linear", 1, 7],
        ["ProfilerStep > linear > addmm", 2, 7],
    ]


def test_rectangles_lie_inside_their_parents_the_wider_first() -> None:
    found = operator_rectangles(operator_tree(RUN, rank=0, step=4))

    assert found[["path", "start_us", "end_us"]].to_numpy().tolist() == [
        ["ProfilerStep", 0, 50],
        ["addmm", 50, 58],
        ["ProfilerStep > linear", 0, 10],
        ["ProfilerStep > linear > addmm", 0, 7],
    ]
    assert found["share"].to_list() == pytest.approx([50 / 58, 8 / 58, 10 / 58, 7 / 58])


def test_few_rectangles_are_the_widest_with_all_above_them() -> None:
    tree = operator_tree(RUN)

    found = operator_rectangles(tree, most_rows=2)

    assert found["path"].to_list() == ["ProfilerStep", "ProfilerStep > linear"]


def test_rectangles_can_be_as_wide_as_device_time() -> None:
    found = operator_rectangles(operator_tree(RUN, rank=0), "device_us")

    assert found[["name", "start_us", "end_us"]].to_numpy().tolist() == [
        ["ProfilerStep", 0, 13],
        ["linear", 0, 13],
        ["addmm", 0, 12],
    ]


def test_nothing_recorded_gives_an_empty_tree() -> None:
    found = operator_tree(Run())

    assert found.empty
    assert operator_rectangles(found).empty


@pytest.mark.corpus
@pytest.mark.parametrize(
    "path",
    [
        "traces/tracelens/mi300x_resnet_act_checkpoint/resnet_act_checkpoint.json.gz",
        "traces/tracelens/h100_owlv2/google_owlv2-large-patch14-ensemble__1016001.json.gz",
        "traces/hta/cpu_only/rank-34.Jul_15_10_52_41.1074.pt.trace.8977cc8.json.gz",
    ],
)
def test_a_recorded_tree_loses_no_time_and_no_call(corpus: Path, path: str) -> None:
    run = perfnb.read_trace(corpus / path)
    counted = run.host_ops[run.host_ops["category"].isin(CATEGORIES)]

    tree = operator_tree(run)
    drawn = operator_rectangles(tree)

    roots = tree[tree["parent"].isna()]
    assert tree["calls"].sum() == len(counted)
    assert tree["total_us"].sum() == pytest.approx(counted["duration_us"].sum())
    assert tree["self_us"].sum() == pytest.approx(roots["total_us"].sum(), rel=1e-6)
    assert tree["self_device_us"].sum() == pytest.approx(roots["device_us"].sum())
    launched = launches(run)["call"].notna().to_numpy()
    assert roots["device_us"].sum() <= run.device_ops["duration_us"].to_numpy()[launched].sum() + 1e-6
    assert tree.groupby(["rank", "process", "thread", "path"], observed=True).size().eq(1).all()
    assert drawn["end_us"].max() == pytest.approx(roots["total_us"].sum())
    for _, level in drawn.groupby("depth"):
        assert np.all(level["start_us"].to_numpy()[1:] >= level["end_us"].to_numpy()[:-1] - 1e-6)
    assert isinstance(drawn, pd.DataFrame)


def test_a_deep_recursion_has_short_paths_and_no_lost_call() -> None:
    depth = 3000
    host = pd.DataFrame(
        {
            "rank": 0,
            "process": "1",
            "thread": "1",
            "category": "operator",
            "name": [f"a_rather_long_name_of_level_{level}" for level in range(depth)],
            "start_us": np.arange(depth, dtype=float),
            "duration_us": 2.0 * depth - 2 * np.arange(depth),
        }
    )

    tree = operator_tree(Run(host_ops=conform("host_ops", host)))

    assert len(tree) == depth
    assert tree["depth"].max() == depth - 1
    assert tree["path"].str.len().max() < 3000
    assert tree["path"].iloc[-1].endswith("a_rather_long_name_of_level_2999")
