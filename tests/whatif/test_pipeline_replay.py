"""Stages of a pipeline are replayed as they wait for one another, and give the published slowdowns of a real job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb.prediction import Prediction, Unknown
from perfnb.whatif.pipeline_knobs import predict_pipeline
from perfnb.whatif.pipeline_replay import PipelineReplay
from perfnb.whatif.pipeline_table import COLUMNS, pipeline_replay

SPLIT: Mapping[str, Any] = {"pipeline_split": [2, 2]}


def operations(text: str, ranks: int = 1) -> pd.DataFrame:
    """Rows of step, dp_rank, stage, kind, number, start, duration; short names of kinds."""
    names = {"F": "forward-compute", "B": "backward-compute", "Fs": "forward-send", "Fr": "forward-recv"}
    names |= {"Bs": "backward-send", "Br": "backward-recv", "rs": "grads-reduce-scatter", "ag": "params-all-gather"}
    names |= {"clip": "optimizer-clip-main-grad"}
    rows = []
    for line in text.strip().splitlines():
        step, rank, stage, kind, number, start, duration = line.split()
        assert int(rank) < ranks
        rows.append((int(rank), int(stage), int(step), names.get(kind, kind), int(number), float(start), float(duration)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


# Two stages, two micro-batches of 10 forward and 20 backward in stage 0, of 30 and 40 in stage 1; moving data takes 1.
# stage 0: F0 0-10, F1 10-20, B0 from 81+1; stage 1: F0 from 11, 11-41, B0 41-81, F1 81-111, B1 111-151.
TWO_STAGES = """
    0 0 0 F 0 0 10
    0 0 0 Fs 0 10 1
    0 0 0 F 1 10 10
    0 0 0 Fs 1 20 1
    0 0 0 Br 0 20 62
    0 0 0 B 0 82 20
    0 0 0 Br 1 102 50
    0 0 0 B 1 152 20
    0 0 1 Fr 0 0 11
    0 0 1 F 0 11 30
    0 0 1 B 0 41 40
    0 0 1 Bs 0 81 1
    0 0 1 Fr 1 41 1
    0 0 1 F 1 81 30
    0 0 1 B 1 111 40
    0 0 1 Bs 1 151 1
"""


def replay(text: str = TWO_STAGES, ranks: int = 1) -> PipelineReplay:
    found = pipeline_replay(operations(text, ranks))
    assert isinstance(found, PipelineReplay), found
    return found


def test_the_replay_without_a_change_is_the_recorded_step() -> None:
    found = replay()

    assert found.recorded_step_us.tolist() == [172.0]
    assert found.step_us().tolist() == [172.0]
    assert found.delayed_step_us().tolist() == [172.0]


def test_ideal_stages_compute_the_mean_of_their_kind() -> None:
    found = replay()

    assert found.ideal_us["forward-compute"] == 20.0
    assert found.ideal_us["backward-compute"] == 30.0
    # F0 20, sent 21, F0 41, B0 71, F1 91, B1 121, sent 122, B1 of stage 0 152
    assert found.step_us(lambda _each: True).tolist() == [152.0]
    assert found.slowdown == 172.0 / 152.0


def test_one_stage_as_recorded_among_ideal_ones() -> None:
    # F0 20, sent 21; stage 1: 51, 91, 121, 161, sent 162, then 30
    assert replay().slowdown_of(stages=[1]) == 192.0 / 152.0
    assert replay().share_explained(stages=[0, 1]) == 1.0


def test_layers_that_move_to_another_stage_take_their_time_with_them() -> None:
    # from stages of 2 and 2 layers to 3 and 1: stage 0 gets a layer of 15 forward and 20 backward, stage 1 keeps one
    # F0 25, sent 26, 41, 61; F1 25-50, sent 51, 61-76, B1 96, sent 97; stage 0: B0 62-102,
    # then it receives what waits since 97, so that B1 is 103-143
    found = predict_pipeline(replay(), {"pipeline_split": [3, 1]}, SPLIT)

    assert isinstance(found, Prediction)
    assert found.before == 172.0
    assert found.after == pytest.approx(143.0)
    assert found.low < found.after < found.high
    assert found.verdict == "faster"


def two_ranks() -> str:
    """One stage; rank 1 computes three times as long as rank 0, and both exchange gradients for 5 at the end."""
    return """
        0 0 0 ag 0 0 2
        0 0 0 F 0 2 10
        0 0 0 B 0 12 20
        0 0 0 rs 0 32 65
        0 0 0 clip 0 97 3
        0 1 0 ag 0 0 2
        0 1 0 F 0 2 30
        0 1 0 B 0 32 60
        0 1 0 rs 0 92 5
        0 1 0 clip 0 97 3
    """


def test_equal_batches_end_with_the_mean_of_the_ranks() -> None:
    found = predict_pipeline(replay(two_ranks(), 2), {"balance_batches": True}, {})

    assert isinstance(found, Prediction)
    assert found.before == 100.0
    assert found.after == pytest.approx(2 + 20 + 40 + 5 + 3)


def test_a_rank_with_more_work_is_the_slowest_worker() -> None:
    found = replay(two_ranks(), 2)

    assert found.slowest_workers() == ((1, 0),)
    assert found.slowdown_of(dp_ranks=[1]) == pytest.approx(100 / 70)
    assert found.slowdown_of(kinds=["optimizer-clip-main-grad"]) == 1.0
    assert found.share_explained(workers=[(1, 0)]) == 1.0


def test_no_straggler_leaves_nothing_to_explain() -> None:
    alike = "0 0 0 F 0 0 10\n0 0 0 B 0 10 20"

    assert replay(alike).slowdown == 1.0
    assert replay(alike).share_explained(stages=[0]) == 0.0


def test_late_hosts_stay_late_in_what_ifs_but_not_in_the_slowdown() -> None:
    late = replay("0 0 0 F 0 0 10\n0 0 0 B 0 14 20")

    assert late.step_us().tolist() == [30.0]
    assert late.delayed_step_us().tolist() == [34.0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TWO_STAGES.replace("    0 0 1 B 1 111 40\n", ""), "stage 1 has 2 forward and 1 backward"),
        ("0 0 0 F 0 0 10\n0 0 0 F 1 10 10\n0 0 0 B 0 20 10", "2 forward and 1 backward"),
        ("0 0 0 F 0 0 1\n0 0 0 B 0 1 1\n0 0 0 sleep 0 2 1", "not modelled: sleep"),
        ("0 0 0 F 1 0 1\n0 0 0 B 1 1 1", "not numbered from 0"),
        ("0 0 0 F 0 0 1\n0 0 0 F 0 1 1\n1 0 0 B 0 1 1\n1 0 0 B 0 2 1", "recorded twice in a step"),
        ("0 0 0 F 0 0 1\n0 0 0 B 0 1 1\n1 0 0 F 0 9 1", "was recorded 1 times in 2 steps"),
        ("0 0 0 F 0 0 1\n0 0 0 B 0 1 1\n1 0 0 B 0 9 1\n1 0 0 F 0 12 1", "another order"),
        ("0 0 0 F 0 0 1\n0 0 0 B 0 1 1\n0 0 0 Fs 0 1 1", "stage 1 has 0 forward-recv"),
        ("0 0 0 F 0 0 1\n0 0 0 B 0 1 1\n0 0 0 F 1 2 1\n0 0 0 B 1 3 1\n0 0 0 Fs 0 1 1", "1 forward-send for 2 micro-batches"),
    ],
)
def test_what_is_no_whole_schedule_is_refused(text: str, reason: str) -> None:
    found = pipeline_replay(operations(text))

    assert isinstance(found, Unknown)
    assert reason in found.reason
    assert found.needs


def test_nothing_recorded_is_refused() -> None:
    assert isinstance(pipeline_replay(pd.DataFrame(columns=list(COLUMNS))), Unknown)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({"num_workers": 2}, SPLIT, "no model of num_workers"),
        ({"balance_batches": False}, SPLIT, "how unequal"),
        ({"pipeline_split": [3, 1]}, {}, "pipeline_split is None"),
        ({"pipeline_split": "3,1"}, SPLIT, "pipeline_split is '3,1'"),
        ({"pipeline_split": [4]}, SPLIT, "does not cut the same layers"),
        ({"pipeline_split": [3, 2]}, SPLIT, "does not cut the same layers"),
    ],
)
def test_changes_that_the_stages_do_not_tell_are_refused(
    changes: Mapping[str, Any], config: Mapping[str, Any], reason: str
) -> None:
    found = predict_pipeline(replay(), changes, config)

    assert isinstance(found, Unknown)
    assert reason in found.reason


def test_a_replay_that_misses_the_step_predicts_nothing() -> None:
    # the reduce-scatter starts 70 late for a reason that was not recorded
    found = predict_pipeline(replay("0 0 0 F 0 0 10\n0 0 0 B 0 10 20\n0 0 0 rs 0 100 5"), {"balance_batches": True}, {})

    assert isinstance(found, Unknown)
    assert "-67%" in found.reason


@pytest.mark.corpus
def test_published_slowdowns_of_a_real_job_of_64_gpus(corpus: Path) -> None:
    folder = corpus / "stragglers"
    published = json.loads((folder / "result-AR.json").read_text())
    expected = pd.read_csv(corpus / "expected.csv")
    expected = expected[expected["file"].eq("stragglers/trace-AR.parquet")]
    truth = dict(zip(expected["quantity"], expected["value"].astype(float), strict=True))
    rows = pd.read_parquet(folder / "trace-AR.parquet")
    table = pd.DataFrame(
        {
            "dp_rank": rows["dp_rank"],
            "stage": rows["stage"],
            "step": rows["step"],
            "kind": rows["optype"].astype(str),
            "number": rows["seq_id"],
            "start_us": rows["start_ts"].astype("float64") * 1e6,
            "duration_us": rows["duration"].astype("float64") * 1e6,
        }
    )

    found = pipeline_replay(table)

    assert isinstance(found, PipelineReplay)
    assert published["job_meta"]["dp_size"] == len(found.dp_ranks)
    assert found.slowdown == pytest.approx(truth["slowdown"], rel=1e-3)
    assert found.step_us(lambda _each: True).mean() / 1e6 == pytest.approx(truth["ideal_step_s"], rel=1e-3)
    for stage in found.stages:
        assert found.slowdown_of(stages=[stage]) == pytest.approx(truth[f"slowdown_by_stage[{stage}]"], rel=1e-3)
    for rank in found.dp_ranks:
        assert found.slowdown_of(dp_ranks=[rank]) == pytest.approx(truth[f"slowdown_by_dp_rank[{rank}]"], rel=1e-3)
    for kind in ("forward-compute", "backward-compute", "grads-reduce-scatter", "embedding-grads-all-reduce"):
        assert found.slowdown_of(kinds=[kind]) == pytest.approx(truth[f"slowdown_by_optype[{kind}]"], rel=1e-3)
    for name in ("forward", "backward"):
        kinds = [f"{name}-send", f"{name}-recv"]
        assert found.slowdown_of(kinds=kinds) == pytest.approx(truth[f"slowdown_by_optype[{name}-pp-comm]"], rel=1e-3)
    assert found.slowest_workers() == ((0, 0),)
    assert found.share_explained(workers=[(0, 0)]) == pytest.approx(truth["M_W"], abs=1e-3)
    assert found.share_explained(stages=[3]) == pytest.approx(truth["M_S"], abs=1e-3)
    # what a change is predicted from misses the recorded steps by less than 2 %
    assert np.abs(found.delayed_step_us() / found.recorded_step_us - 1).max() < 0.02
