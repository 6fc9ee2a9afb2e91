"""Long waits at the start of epochs, and for few samples."""

from __future__ import annotations

import pandas as pd
import pytest

from perfnb.analyses.loader_pauses import epoch_starts, outlier_excess, restart_excess


def steps_of(count: int, epoch_steps: int, rank: int = 0) -> pd.DataFrame:
    number = pd.Series(range(count))
    return pd.DataFrame(
        {"rank": rank, "step": number, "start_us": number * 1e5, "epoch": (number // epoch_steps).astype("Int64")}
    )


def rows_of(steps: pd.DataFrame, waits_ms: dict[int, float], other_ms: float = 1.0) -> pd.DataFrame:
    waited = steps["step"].map(waits_ms).fillna(other_ms) * 1000
    return steps[["rank", "step"]].assign(stall_us=waited, blocked_us=waited)


def test_epochs_start_where_their_number_changes_in_order_of_time_and_rank_by_rank() -> None:
    steps = pd.concat([steps_of(6, 3), steps_of(6, 2, rank=1)]).sample(frac=1, random_state=1)

    assert sorted(epoch_starts(steps).itertuples(index=False, name=None)) == [(0, 3), (1, 2), (1, 4)]


def test_epochs_that_were_not_recorded_have_no_starts() -> None:
    assert epoch_starts(steps_of(6, 3).assign(epoch=pd.array([pd.NA] * 6, dtype="Int64"))).empty


def test_each_rank_has_its_own_pattern_of_restarts() -> None:
    steps = pd.concat([steps_of(16, 4), steps_of(16, 4, rank=1)], ignore_index=True)
    stall = rows_of(steps, {4: 31.0, 8: 31.0, 12: 31.0}).assign(
        stall_us=lambda rows: rows["stall_us"].where(rows["rank"].eq(0), 1000.0)
    )

    lost = restart_excess(stall, steps)

    assert lost[steps["rank"].eq(0)].sum() == pytest.approx(90_000)
    assert lost[steps["rank"].eq(1)].sum() == 0


def test_first_steps_of_epochs_are_no_outliers() -> None:
    steps = steps_of(40, 8)
    late = {8: 90.0, 16: 90.0, 24: 90.0}
    reads = pd.Series({0: 0.0})

    assert outlier_excess(rows_of(steps, late), steps, reads).sum() == 0
    assert outlier_excess(rows_of(steps, {number + 1: wait for number, wait in late.items()}), steps, reads).sum() == 267_000


def test_a_rank_whose_reads_are_not_known_has_no_outliers() -> None:
    steps = steps_of(40, 40)

    assert outlier_excess(rows_of(steps, {9: 90.0, 17: 90.0, 25: 90.0}), steps, pd.Series({0: float("nan")})).sum() == 0
