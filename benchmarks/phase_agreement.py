"""Phases as the hooks find them beside timers written into the loop, on five loops of different kinds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks.reading.tables import markdown
from benchmarks.recording.phase_loops import DATA_PARALLEL, LOOPS, Compared, compared

LARGEST_DIFFERENCE: Final = 0.03
SMALLEST_SHARE: Final = 0.01
"""Of a step: shorter phases are not judged."""

_HOW: Final = (
    "Timers are time.perf_counter_ns around next(iterator), model(...) and the loss, backward() and optimizer.step() "
    "(scaler.step(optimizer) where there is a scaler); sums over the steps, the first ten left out. What both share is all but "
    "what stands between the timer and the hook: some microseconds of Python, and for the optimizer what torch does around its "
    "own hooks. With DDP, "
    "backward is what the hooks call backward and communication."
)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a phase differs by more than 3 %."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phase_agreement", description=__doc__)
    parser.add_argument("--steps", type=int, default=100, help="steps of each loop that are compared")
    chosen = parser.parse_args(words)
    found = [one for name in (*LOOPS, DATA_PARALLEL) for one in compared(name, chosen.steps)]
    judged = [one for one in found if is_judged(one)]
    agreed = sum(agrees(one) for one in judged)
    print("\n\n".join(["# Phases by hooks and by timers", table(found), f"{agreed} of {len(judged)} agree within 3 %.", _HOW]))
    return 0 if agreed == len(judged) else 1


def is_judged(one: Compared) -> bool:
    """Whether a phase is long enough; the rest of a step holds what lies between timers and hooks."""
    return one.phase != "other" and one.step_share >= SMALLEST_SHARE


def agrees(one: Compared) -> bool:
    """Whether hooks and timers say the same."""
    return abs(one.difference) <= LARGEST_DIFFERENCE


def table(found: Sequence[Compared]) -> str:
    """One row per loop and phase."""
    rows = [
        [
            one.loop,
            f"{one.step_ms:.1f}",
            str(one.steps),
            one.phase,
            f"{one.step_share:.1%}",
            f"{one.timer_ms:.1f}",
            f"{one.hook_ms:.1f}",
            f"{one.difference:+.2%}",
            f"{(one.hook_ms - one.timer_ms) / one.calls * 1e3:+.0f}",
            "yes" if agrees(one) else "NO",
        ]
        for one in found
        if is_judged(one)
    ]
    head = ["loop", "step ms", "steps", "phase", "of the step", "timers ms", "hooks ms", "difference", "us a call", "within 3 %"]
    return markdown(head, rows)


if __name__ == "__main__":
    sys.exit(main())
