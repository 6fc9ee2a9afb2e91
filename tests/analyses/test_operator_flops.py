"""FLOP, bytes and rates of operators, and the roofline over them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import perfnb
from perfnb.analyses.flop_formulas import attention, attention_backward, convolution, linear, matrix_product
from perfnb.analyses.operator_flops import FLOP_COLUMNS, operator_flops
from perfnb.analyses.roofline import flop_summary, roofline
from perfnb.errors import PerfnbError
from perfnb.run import Run
from perfnb.tables import conform, table_from_text

HALF = "c10::Half"


def calls(*rows: tuple[str, float, float, str | None, str | None]) -> pd.DataFrame:
    """Operators of one thread: name, start, duration, shapes, types."""
    frame = pd.DataFrame(rows, columns=["name", "start_us", "duration_us", "input_shapes", "input_types"])
    return conform("host_ops", frame.assign(rank=0, process="1", thread="1", category="operator"))


def types(*names: str) -> str:
    """Types as the profiler writes them."""
    return "[" + ",".join(f'"{name}"' for name in names) + "]"


def test_formulas_count_two_operations_per_multiplication_and_addition() -> None:
    assert matrix_product([2, 3], [3, 5]).flops == 2 * 2 * 3 * 5
    assert matrix_product([7, 2, 3], [7, 3, 5]).flops == 7 * 2 * 2 * 3 * 5
    assert linear([4, 2, 3], [5, 3]).flops == 2 * 8 * 3 * 5
    assert convolution([1, 2, 5, 5], [4, 2, 3, 3], [1, 4, 3, 3]).flops == 2 * (4 * 3 * 3) * (2 * 3 * 3)
    assert attention([1, 2, 6, 8], [1, 2, 10, 8], [1, 2, 10, 4]).flops == 2 * (2 * 6 * 8 * 10 + 2 * 6 * 10 * 4)
    backward = attention_backward([1, 2, 6, 4], [1, 2, 6, 8], [1, 2, 10, 8], [1, 2, 10, 4])
    products = [(6, 8, 10), (6, 4, 10), (10, 6, 4), (6, 10, 8), (8, 6, 10)]  # scores, and gradients of scores, value, query, key
    assert backward.flops == 2 * sum(2 * rows * inner * columns for rows, inner, columns in products)


def test_bytes_are_inputs_and_output_once_each() -> None:
    host = calls(("aten::addmm", 0, 4, "[[5],[2,3],[3,5],[],[]]", types(HALF, HALF, HALF, "Scalar", "Scalar")))

    found = operator_flops(Run(host_ops=host)).loc[0]

    assert found["flops"] == 60
    assert found["bytes"] == 2 * (5 + 2 * 3 + 3 * 5 + 2 * 5)
    assert found["flops_per_byte"] == 60 / 72
    assert (found["dtype"], found["clock"], found["time_us"]) == ("float16", "host", 4.0)
    assert found["achieved_flops_per_s"] == pytest.approx(60 / 4e-6)


def test_an_operator_inside_a_counted_one_is_not_counted_again() -> None:
    shapes = "[[1,2,6,8],[1,2,10,8],[1,2,10,8],[]]"
    kinds = types("float", "float", "float", "")
    host = calls(
        ("aten::scaled_dot_product_attention", 0, 20, shapes, kinds),
        ("aten::_scaled_dot_product_flash_attention", 1, 10, shapes, kinds),
        ("aten::bmm", 2, 3, "[[2,6,8],[2,8,10]]", types("float", "float")),
        ("aten::linear", 30, 20, "[[4,3],[5,3]]", types("float", "float")),
        ("aten::matmul", 31, 10, "[[4,3],[3,5]]", types("float", "float")),
        ("aten::mm", 32, 5, "[[4,3],[3,5]]", types("float", "float")),
        ("aten::linear", 60, 5, "[[4,3],[5,3]]", types("float", "float")),
    )

    found = operator_flops(Run(host_ops=host))

    assert found["operator"].to_list() == [0, 5, 6]
    assert found["flops"].to_list() == [2 * 2 * 6 * 10 * 16, 120, 120]


def test_time_is_that_of_the_device_ops_launched_inside() -> None:
    host = pd.concat(
        [
            calls(
                ("aten::mm", 0, 20, "[[4,3],[3,5]]", types("float", "float")),
                ("aten::empty", 1, 10, "[]", types()),
                ("aten::mm", 30, 20, "[[4,3],[3,5]]", types("float", "float")),
            ),
            table_from_text(
                "host_ops",
                """rank process thread category name   start_us duration_us correlation
                   0    1       1      runtime  launch 2        1           1
                   0    1       1      runtime  launch 15       1           2""",
            ),
        ],
        ignore_index=True,
    )
    ops = table_from_text(
        "device_ops",
        """rank kind    name start_us duration_us correlation
           0    memset  zero 20       1           1
           0    compute gemm 22       3           2""",
    )

    found = operator_flops(Run(host_ops=host, device_ops=ops))

    assert found["clock"].to_list() == ["device", "device"]
    assert found["time_us"].fillna(-1).to_list() == [4.0, -1]
    assert found["achieved_flops_per_s"].iloc[0] == pytest.approx(120 / 4e-6)
    assert found["reason"].iloc[1] == "no device op of it was recorded"


def test_a_convolution_takes_its_output_from_the_backward_of_the_same_shapes_or_is_na() -> None:
    kinds = types("float", "float", "")
    host = calls(
        ("aten::conv2d", 0, 5, "[[1,2,5,5],[4,2,3,3],[]]", kinds),
        ("aten::conv2d", 10, 5, "[[1,2,9,9],[4,2,3,3],[]]", kinds),
        ("aten::conv2d", 20, 5, "[[1,2,7,7],[4,2,3,3],[]]", kinds),
        ("aten::convolution_backward", 30, 5, "[[1,4,3,3],[1,2,5,5],[4,2,3,3]]", types("float", "float", "float")),
        ("aten::convolution_backward", 40, 5, "[[1,4,5,5],[1,2,7,7],[4,2,3,3]]", types("float", "float", "float")),
        ("aten::convolution_backward", 50, 5, "[[1,4,3,3],[1,2,7,7],[4,2,3,3]]", types("float", "float", "float")),
    )

    found = operator_flops(Run(host_ops=host))

    assert found["flops"].fillna(-1).to_list() == [2 * 36 * 18, -1, -1, -1, -1, -1]
    assert found["reason"].iloc[1:3].str.contains("stride and padding").all()
    assert found["reason"].iloc[3:].str.contains("which gradients").all()


def test_missing_shapes_types_and_shapes_that_do_not_fit_give_na_and_a_reason() -> None:
    host = calls(
        ("aten::mm", 0, 5, None, None),
        ("aten::mm", 10, 5, "[[4,3],[4,5]]", types("float", "float")),
        ("aten::mm", 20, 5, "[[4,3],[3,5]]", types("complex", "complex")),
        ("aten::mm", 30, 5, "[[4,3]]", types("float")),
    )

    found = operator_flops(Run(host_ops=host))

    assert found["flops"].fillna(-1).to_list() == [-1, -1, 120, -1]
    assert found["bytes"].isna().all()
    assert [reason.split(":")[0] for reason in found["reason"]] == [
        "no input shapes",
        "the recorded shapes do not fit the operator",
        "bytes unknown",
        "the recorded shapes do not fit the operator",
    ]


def test_a_run_without_operators_gives_empty_tables() -> None:
    found = operator_flops(Run())

    assert found.empty
    assert flop_summary(found).empty
    assert roofline(found, 1e12, 1e9).empty


def rows(*values: tuple[str, int | None, int | None, float]) -> pd.DataFrame:
    """Rows of `operator_flops`: dtype, FLOP, bytes, time."""
    made = [
        [0, 1, 5, "aten::mm", "matmul", "[]", dtype, flops, size, time, "device", None, None, None]
        for dtype, flops, size, time in values
    ]
    return pd.DataFrame(made, columns=list(FLOP_COLUMNS)).astype({"flops": "Int64", "bytes": "Int64"})


def test_the_roof_is_bandwidth_below_the_ridge_and_the_peak_above() -> None:
    table = rows(("float32", 1000, 1000, 1.0), ("bfloat16", 8000, 100, 2.0))

    found = roofline(table, {"float32": 4e9, "bfloat16": 16e9}, 1e9)

    assert found[["dtype", "bound", "attainable_flops_per_s"]].to_numpy().tolist() == [
        ["bfloat16", "compute", 16e9],
        ["float32", "memory", 1e9],
    ]
    assert found["attained_share"].to_list() == pytest.approx([0.25, 1.0])


def test_a_dtype_without_a_peak_and_calls_without_flop_have_no_roof() -> None:
    found = roofline(rows(("float32", 1000, 1000, 1.0), ("float64", 1000, 1000, 1.0)), {"float32": 4e9}, 1e9)
    unknown = roofline(rows(("float32", None, None, 1.0)), 4e9, 1e9)

    assert found.set_index("dtype")["bound"].isna().to_dict() == {"float32": False, "float64": True}
    assert unknown[["flops", "bound", "attained_share"]].isna().all(axis=None)
    assert unknown["time_us"].to_list() == [1.0]


def test_calls_of_one_kind_add_up() -> None:
    found = flop_summary(rows(("float32", 100, 50, 1.0), ("float32", 100, 50, 3.0))).loc[0]

    assert (found["calls"], found["flops"], found["bytes"], found["time_us"]) == (2, 200, 100, 4.0)
    assert found["achieved_flops_per_s"] == pytest.approx(200 / 4e-6)
    assert found["flops_per_byte"] == 2.0


@pytest.mark.parametrize(("flops", "size"), [(0, 1e9), (-1.0, 1e9), (1e12, 0), ({"float32": float("nan")}, 1e9)])
def test_a_peak_that_is_not_positive_is_refused(flops: float | dict[str, float], size: float) -> None:
    with pytest.raises(PerfnbError, match="a peak must be positive"):
        roofline(rows(), flops, size)


@pytest.mark.corpus
def test_recorded_convolutions_of_a_checkpointed_resnet_count_once_and_get_their_output_from_the_backward(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/tracelens/mi300x_resnet_act_checkpoint/resnet_act_checkpoint.json.gz")

    found = operator_flops(run)

    convolutions = found[found["name"] == "aten::conv2d"]
    assert len(convolutions) == 117
    assert convolutions["flops"].notna().all()
    one = convolutions[convolutions["input_shapes"].astype(str).str.startswith("[[10,512,7,7],[512,512,3,3]")].iloc[0]
    assert one["flops"] == 2 * 10 * 512 * 7 * 7 * 512 * 3 * 3
    assert one["dtype"] == "bfloat16"


@pytest.mark.corpus
def test_a_recorded_cpu_job_counts_its_matrix_products_on_the_host_clock(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "injections/kineto/slow_item_io-mlp-s0-kineto.pt.trace.json.gz")

    found = operator_flops(run)

    assert found["name"].astype(str).value_counts().to_dict() == {"aten::mm": 140, "aten::addmm": 80}
    assert set(found["clock"]) == {"host"}
    assert found["flops"].notna().all()
    assert found["step"].notna().all()


@pytest.mark.parametrize(
    ("shapes", "types"),
    [
        ('"hello"', '["float"]'),
        ("5", '["float"]'),
        ("hello", '["float"]'),
        ("[[8,16],[16,4]]", '[["float"]]'),
        ("[[8,16],[16,4]]", '{"a":1}'),
        ("[[-8,16],[16,4]]", '["float","float"]'),
        ("[[true,16],[16,4]]", '["float","float"]'),
        ("[[1000000000000000,1000000000000000],[1000000000000000,4]]", '["float","float"]'),
    ],
)
def test_odd_shapes_and_types_are_no_failure_and_no_number_without_ground(shapes: str, types: str) -> None:
    host = table_from_text("host_ops", "rank process thread category name start_us duration_us\n0 1 1 operator aten::mm 0 9")
    run = Run(host_ops=host.assign(input_shapes=pd.Categorical([shapes]), input_types=pd.Categorical([types])))

    found = operator_flops(run).iloc[0]

    assert pd.isna(found["flops"]) == (shapes != "[[8,16],[16,4]]")
    assert pd.notna(found["reason"])
