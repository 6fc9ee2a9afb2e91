"""Kernels by name and by kind: statistics by hand, and those of numpy on a real trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfnb.analyses.durations import duration_statistics
from perfnb.analyses.kernel_summary import kernel_summary, largest
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import table_from_text

OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name start_us duration_us
    0    0      7      compute gemm 0        1
    0    0      7      compute gemm 10       3
    0    0      7      compute gemm 20       8
    0    0      7      compute relu 30       2
    0    0      7      copy    HtoD 40       6
    1    -      7      compute gemm 0        5""",
)


def test_each_name_has_its_statistics() -> None:
    gemm = kernel_summary(Run(device_ops=OPS)).set_index(["rank", "name"]).loc[(0, "gemm")]

    assert gemm[["count", "total_us", "mean_us", "median_us", "min_us", "max_us"]].to_list() == [3, 12.0, 4.0, 3.0, 1.0, 8.0]
    assert gemm["p95_us"] == pytest.approx(7.5)  # nine tenths of the way from 3 to 8
    assert gemm["standard_deviation_us"] == pytest.approx(13**0.5)  # (9 + 1 + 16) / 2
    assert gemm["share"] == 0.6


def test_the_longest_come_first_and_shares_of_a_device_sum_to_one() -> None:
    found = kernel_summary(Run(device_ops=OPS))

    assert found[["rank", "device", "name"]].to_numpy().tolist() == [
        [0, 0, "gemm"],
        [0, 0, "HtoD"],
        [0, 0, "relu"],
        [1, -1, "gemm"],
    ]
    assert found.groupby("rank")["share"].sum().to_list() == [1.0, 1.0]


def test_kinds_add_up_their_names_and_one_op_has_no_deviation() -> None:
    found = kernel_summary(Run(device_ops=OPS), by="kind").set_index(["rank", "kind"])

    assert found["total_us"].to_dict() == {(0, "compute"): 14.0, (0, "copy"): 6.0, (1, "compute"): 5.0}
    assert np.isnan(found.loc[(0, "copy"), "standard_deviation_us"])


def test_what_is_not_among_the_largest_is_one_row() -> None:
    summary = kernel_summary(Run(device_ops=OPS))

    kept = largest(summary, 1)

    assert kept[["name", "kernels", "count", "total_us", "share"]].to_numpy().tolist() == [
        ["gemm", 1, 4, 17.0, 0.68],
        ["the rest", 2, 2, 8.0, 0.32],
    ]
    assert largest(summary, 3)["name"].to_list() == ["gemm", "HtoD", "relu"]
    assert largest(kernel_summary(Run(device_ops=OPS), by="kind"))["name"].to_list() == ["compute", "copy"]


def test_nothing_gives_nothing_and_an_unknown_way_is_refused() -> None:
    assert kernel_summary(Run()).empty
    assert largest(kernel_summary(Run())).empty
    assert duration_statistics(np.empty(0, dtype=np.int64), np.empty(0)).empty
    with pytest.raises(PerfnbError, match="use 'name' or 'kind'"):
        kernel_summary(Run(), by="stream")  # type: ignore[arg-type]


@pytest.mark.corpus
def test_statistics_of_a_real_trace_are_those_of_pandas(corpus: Path) -> None:
    run = read_kineto(corpus / "traces/hta/trace_diff/control.json.gz")

    found = kernel_summary(run).set_index(["kind", "name"]).sort_index()

    by_name = run.device_ops.astype({"kind": str, "name": str}).groupby(["kind", "name"])["duration_us"]
    theirs = {"count": "size", "total_us": "sum", "median_us": "median", "max_us": "max", "standard_deviation_us": "std"}
    found.index = pd.MultiIndex.from_arrays([found.index.get_level_values(place).astype(str) for place in (0, 1)])
    found = found.sort_index()
    for name, function in theirs.items():
        assert np.allclose(found[name], getattr(by_name, function)().sort_index(), rtol=1e-9, equal_nan=True), name
    assert np.allclose(found["p95_us"], by_name.quantile(0.95).sort_index(), rtol=1e-9)
