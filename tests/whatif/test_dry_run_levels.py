"""Residuals and intervals of a dry run, worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.run import Run
from perfnb.whatif.dry_run_estimate import doubt_of
from perfnb.whatif.dry_run_levels import MIB, Residual, corrected, interval
from perfnb.whatif.dry_run_trace import DryRun

DRY = {"forward": 1000, "backward": 900}


def residual(size: int, forward: float, backward: float = 0.0, peak: int = 0) -> Residual:
    return Residual(size, {"forward": forward, "backward": backward}, peak)


def test_the_peak_may_change_phase_when_measured_bytes_are_added() -> None:
    add = corrected(DRY, [residual(2, 0.0, 100.0)], 4)

    assert add == {"forward": 0.0, "backward": 200.0}
    assert interval(DRY, [residual(2, 0.0, 100.0, 950)], 4, "B", by_line=True) == (1000, 1122)  # constant; 1.02 of 1100


def test_two_points_make_a_line_between_constant_and_proportional() -> None:
    assert corrected(DRY, [residual(2, 10.0), residual(4, 14.0)], 8)["forward"] == 22.0
    assert corrected(DRY, [residual(2, 20.0), residual(4, 10.0)], 8)["forward"] == 10.0  # it would fall: scratch does not
    assert corrected(DRY, [residual(2, 1.0), residual(4, 10.0)], 8)["forward"] == 20.0  # it would rise faster than the batch


def test_intervals_without_measured_points_are_one_sided_priors() -> None:
    assert interval(DRY, [], 4, "C", by_line=True) == (1000, 1050 + 64 * MIB)
    assert interval(DRY, [], 4, "D", by_line=True) == (1000, 1500)


def test_points_that_do_not_fit_the_case_leave_the_dry_run_as_the_low_end() -> None:
    assert interval(DRY, [residual(2, 100.0)], 2, "D", by_line=True) == (1000, 1650)
    nothing = {"forward": 0, "backward": 0}
    assert interval(nothing, [residual(2, 300.0), residual(4, 300.0)], 8, "D", by_line=True) == (200, 450)


def test_two_points_are_believed_as_far_as_two_methods_agree() -> None:
    points = [residual(2, 100.0, 0.0, 600), residual(4, 100.0, 0.0, 800)]

    # residual 100 at any size: 1100; the line through the peaks gives 1200 at 8; in proportion 1000 + 200
    assert interval(DRY, points, 8, "B", by_line=True) == (1000, 1200)
    # no line where more than the batch changes: the constant residual agrees, so 2 % below, in proportion above
    assert interval(DRY, points, 8, "B", by_line=False) == (1078, 1200)


@given(st.integers(1, 64), st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10_000)), max_size=3), st.sampled_from("BCD"))
def test_the_point_lies_in_its_interval(size: int, points: list[tuple[int, int]], level: str) -> None:
    residuals = [residual(at, float(extra), 0.0, 1000 + extra) for at, extra in points]
    add = corrected(DRY, residuals, size)

    low, high = interval(DRY, residuals, size, level, by_line=True)  # type: ignore[arg-type]

    assert low <= max(DRY[phase] + add[phase] for phase in DRY) + 1
    assert high >= max(DRY[phase] + add[phase] for phase in DRY) - 1


def test_no_point_adds_nothing() -> None:
    assert corrected(DRY, [], 4) == pytest.approx({"forward": 0.0, "backward": 0.0})


def lstm(residuals: list[Residual], size: int, *, by_line: bool = True) -> str:
    """What is said of an LSTM's dry run; numbers as measured by benchmarks/memory/dry_run.py."""
    dry = DryRun(Run(), {"backward": 4_097_384}, {"backward": 0}, None, ("aten::mkldnn_rnn_layer",), (), (), (), ())
    point = 4_097_384 + round(corrected(dry.phase_bytes, residuals, size)["backward"])
    return doubt_of(dry, residuals, size, point, has_scratch=True, by_line=by_line)


def test_points_whose_moment_of_the_peak_is_another_one_are_doubted() -> None:
    two = [Residual(2, {"backward": 992_312.0}, 3_229_264), Residual(4, {"backward": 1_893_432.0}, 4_213_840)]

    assert "a line through the measured peaks" in lstm(two, 16)  # 10.1 MB where the corrected dry run says 11.4 MB
    assert "a second one" in lstm(two[:1], 16)
    assert lstm(two, 4) == ""  # that batch was measured
    assert lstm([], 16) == ""


def test_scratch_of_each_thread_at_a_small_batch_is_doubted() -> None:
    # a convolution over time on two threads: 126,896 and 196,736 at batches of 2 and 4, 786,176 at 16
    two = [Residual(2, {"backward": 126_896.0}, 834_536), Residual(4, {"backward": 196_736.0}, 1_432_632)]
    dry = DryRun(Run(), {"backward": 4_431_928}, {"backward": 0}, None, (), ("aten::convolution",), (), (), ())
    point = 4_431_928 + round(corrected(dry.phase_bytes, two, 16)["backward"])

    assert point == 4_431_928 + 615_776
    assert "in proportion" in doubt_of(dry, two, 16, point, has_scratch=True, by_line=True)
    assert doubt_of(dry, two, 16, point, has_scratch=False, by_line=True) == ""
    agreeing = [Residual(2, {"backward": 98_304.0}, 805_944), Residual(4, {"backward": 196_736.0}, 1_432_632)]
    assert doubt_of(dry, agreeing, 16, 4_431_928 + 786_944, has_scratch=True, by_line=True) == ""
