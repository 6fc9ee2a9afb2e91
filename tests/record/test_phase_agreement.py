"""Phases that the hooks find last as long as timers written into the loop say, in loops of five kinds."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks.phase_agreement import agrees, is_judged
from benchmarks.recording.phase_loops import DATA_PARALLEL, LOOPS, Compared, compared

pytestmark = [pytest.mark.torch, pytest.mark.slow]

STEPS = 50
LARGEST_DIFFERENCE = 0.10
"""A wrong hook is off by more. The program holds the hooks to 3 %: on a machine that others share, as where tests run, one
phase of 24 was off by 3 to 5 % in some runs."""

TRIES = 3
"""On a busy machine a thread may lose its core between a timer and a hook; a wrong hook is wrong each time."""


@pytest.mark.parametrize("loop", [*LOOPS, DATA_PARALLEL])
def test_hooks_and_timers_agree(loop: str) -> None:
    for _ in range(TRIES):
        judged = [one for one in compared(loop, STEPS) if is_judged(one)]
        differing = [one for one in judged if abs(one.hook_ms / one.timer_ms - 1.0) > LARGEST_DIFFERENCE]
        if not differing:
            break

    assert {one.phase for one in judged} == {"data", "forward", "backward", "optimizer"}
    assert min(one.steps for one in judged) >= STEPS
    assert differing == []


def test_a_phase_that_differs_by_more_is_told() -> None:
    def one(hook_ms: float, share: float = 0.2, phase: str = "forward") -> Compared:
        return Compared("a loop", phase, 100.0, hook_ms, share, 10.0, 50, 50)

    assert agrees(one(97.1))
    assert not agrees(one(96.9))
    assert not agrees(one(103.1))
    assert not is_judged(one(50.0, share=0.009))
    assert not is_judged(one(50.0, phase="other"))
