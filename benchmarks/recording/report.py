"""Measurements of the cost of recording -> Markdown, and what may be said of one percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.reading.tables import markdown
from benchmarks.recording.background import BackgroundCost
from benchmarks.recording.direct import DirectCost
from benchmarks.recording.interleaved import CONTROL, RECORDER, Added
from benchmarks.recording.statistics import Interval

HOOKS_US: Final = 20.0
BACKGROUND_SHARE: Final = 0.005
CLAIM: Final = 0.01
FEWEST_ROUNDS: Final = 6
"""An interval by resampling fewer is too narrow to mean 95 %."""


def direct_table(costs: Sequence[DirectCost]) -> str:
    """What the hooks take of the training thread."""
    rows = []
    for cost in costs:
        added = cost.added_us
        verdict = "met" if added.high <= HOOKS_US else "NOT MET" if added.low > HOOKS_US else "not resolved"
        left = f"{cost.marks:.1f} + {cost.notes:.1f}"
        rows.append([cost.loop, f"{cost.plain_us:.1f}", _us(added), f"<= {HOOKS_US:.0f} us", verdict, left, f"{cost.steps:,}"])
    head = ["CPU of the training thread, per step", "without hooks, us", "added by hooks", "target", "verdict"]
    return markdown([*head, "marks + values", "steps"], rows)


def background_table(costs: Sequence[BackgroundCost]) -> str:
    """What the background thread takes of a core."""
    rows = []
    for cost in costs:
        what = f"{cost.made_per_s:.0f} steps/s" if cost.steps_per_s else "nothing trains"
        verdict = "met" if cost.core_share <= BACKGROUND_SHARE else "NOT MET"
        share = f"{cost.core_share:.2%}"
        rows.append([what, f"{cost.seconds:.0f}", share, f"<= {BACKGROUND_SHARE:.1%}", verdict])
    return markdown(["background thread (NVML 1 Hz, host 10 Hz, folder)", "s", "of one core", "target", "verdict"], rows)


def added_table(found: Sequence[Added]) -> str:
    """What each tool adds to a step, as it was timed."""
    rows = [
        [
            f"{one.plain_ms:.1f}",
            one.side,
            _percent(one.own),
            _percent(one.wall),
            _percent(one.mean),
            f"{one.rounds} x {one.steps // one.rounds}",
        ]
        for one in found
    ]
    head = ["step ms", "with", "less waiting for a core, median", "wall, median", "less waiting, mean", "rounds x steps"]
    return markdown(head, rows)


def verdicts(direct: Sequence[DirectCost], background: Sequence[BackgroundCost], found: Sequence[Added]) -> list[str]:
    """A line per length of step: whether recording costs at most one percent of it, or that this machine cannot tell."""
    lines = []
    for ours in (one for one in found if one.side == RECORDER):
        control = next(one for one in found if one.side == CONTROL and one.target_ms == ours.target_ms)
        beside = min(background, key=lambda cost: abs(cost.steps_per_s - 1e3 / ours.target_ms))
        hooks = max(cost.added_us.high for cost in direct) / 1e3 / ours.plain_ms
        counted = f"counted at most {hooks:.2%} by the hooks and {beside.core_share:.2%} of a core by the background thread"
        timed = f"timed {_percent(ours.own)}, nothing against nothing {_percent(control.own)}"
        judged = _judged(ours.own, control.own, hooks + beside.core_share, ours.rounds)
        lines.append(f"Steps of {ours.plain_ms:.1f} ms: {judged}: {counted}; {timed}.")
    return lines


def _judged(timed: Interval, control: Interval, counted: float, rounds: int) -> str:
    """What the two ways together carry; timing says nothing where the same against the same differs."""
    is_blind = rounds < FEWEST_ROUNDS or not control.low <= 0 <= control.high
    if not is_blind and timed.low > CLAIM:
        return "more than 1 %"
    if is_blind or timed.high > CLAIM:
        return "this machine cannot resolve 1 %"
    return "<= 1 %" if counted <= CLAIM else "<= 1 % as timed but more as counted, so no claim"


def _us(interval: Interval) -> str:
    return f"{interval.value:.1f} us ({interval.low:.1f} to {interval.high:.1f})"


def _percent(interval: Interval) -> str:
    return f"{interval.value:+.1%} ({interval.low:+.1%} to {interval.high:+.1%})"
