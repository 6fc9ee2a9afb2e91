"""The program that holds the dry run against real training: its truth, and how it counts."""

from __future__ import annotations

import pandas as pd
import pytest

pytest.importorskip("torch")

from benchmarks.memory.dry_run import METHODS, main, summary
from benchmarks.memory.dry_run_families import BUILT_WITH
from benchmarks.memory.dry_run_held_out import HELD_OUT
from benchmarks.memory.dry_run_truth import peak_of

pytestmark = pytest.mark.torch


def event(time: float, address: int, size: int) -> dict[str, object]:
    return {"name": "[memory]", "ts": time, "args": {"Addr": address, "Bytes": size}}


def test_the_truth_counts_living_blocks_only() -> None:
    events = [event(4, 2, 30), event(1, 9, -500), event(2, 1, 100), event(3, 1, -100), event(5, 1, 20)]

    assert peak_of(events) == 100  # the free at 1 is of a block from before; later 30 + 20


def test_at_least_thirty_configurations_and_eight_families_that_were_held_out() -> None:
    families = [*BUILT_WITH.values(), *HELD_OUT.values()]

    assert sum(len(family.variants) for family in families) >= 30
    assert len(HELD_OUT) >= 8
    assert not BUILT_WITH.keys() & HELD_OUT.keys()


def test_the_summary_counts_by_level() -> None:
    row = {"family": "a", "is_held_out": True, "level": "C", "covered": True, "level_with_two": "B", "covered_with_two": False}
    rows = [row | dict.fromkeys(METHODS, error) for error in (-1.0, 3.0)]

    assert summary(pd.DataFrame(rows))[:3] == [
        "held-out families: 1 families, 2 configurations",
        "  level C: 2 configurations, 2 of 2 in their interval",
        "    dry_run: median 2.000 %, worst 3.000 %",
    ]
    assert summary(pd.DataFrame(rows))[-1] == (
        "  with two points, level B: 2 configurations, 0 in their interval, median 2.000 %, worst 3.000 %"
    )


def test_a_family_that_is_none_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "nothing like it"]) == 2
    assert "transformer" in capsys.readouterr().out
