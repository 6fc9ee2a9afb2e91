"""Step times by variant, turn and round, and the share of the cause that they give."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.samples.workloads import Workload


@dataclass(frozen=True, slots=True)
class Repetition:
    """Steps of one variant in one turn or one round; step times are means over the ranks."""

    variant: str
    step_us: list[float]
    runqueue_us: float
    stolen_us: float

    @property
    def disturbed_share(self) -> float:
        """Share of the time that others took from the training thread."""
        return (self.runqueue_us + self.stolen_us) / sum(self.step_us)

    def summary(self, number: int) -> dict[str, Any]:
        """What provenance keeps of it."""
        return {
            "variant": self.variant,
            "round": number,
            "steps": len(self.step_us),
            "mean_step_us": fmean(self.step_us),
            "median_step_us": median(self.step_us),
            "runqueue_share": self.runqueue_us / sum(self.step_us),
            "stolen_share": self.stolen_us / sum(self.step_us),
        }


Round = dict[str, Repetition]


def summarise(workload: Workload, kept: Sequence[Round], left_out: Sequence[Round]) -> dict[str, Any]:
    """Means, medians and share of the cause over all kept rounds."""
    whole = joined(kept)
    mean_us = {name: fmean(repetition.step_us) for name, repetition in whole.items()}
    median_us = {name: median(repetition.step_us) for name, repetition in whole.items()}
    after_us = mean_us.get("after")
    return {
        "detector": workload.detector,
        "category": workload.category,
        "share": 1 - mean_us["removed"] / mean_us["before"],
        "remaining_share": None if after_us is None else 1 - mean_us["removed"] / after_us,
        "before_step_us": mean_us["before"],
        "after_step_us": after_us,
        "removed_step_us": mean_us["removed"],
        "before_median_step_us": median_us["before"],
        "after_median_step_us": median_us.get("after"),
        "removed_median_step_us": median_us["removed"],
        "share_by_round": [cause_share(each) for each in kept],
        "spread_share": spread_share(kept),
        "repetitions": _summaries(kept),
        "rounds_left_out": _summaries(left_out),
    }


def joined(parts: Sequence[Round]) -> Round:
    """All steps of several turns or rounds, by variant."""
    return {
        name: Repetition(
            name,
            [step_us for part in parts for step_us in part[name].step_us],
            sum(part[name].runqueue_us for part in parts),
            sum(part[name].stolen_us for part in parts),
        )
        for name in parts[0]
    }


def cause_share(measured: Round) -> float:
    """Share of the step that goes once the cause is removed."""
    return 1 - fmean(measured["removed"].step_us) / fmean(measured["before"].step_us)


def spread_share(rounds: Sequence[Round]) -> float:
    """Difference between the largest and the smallest share that a round gives."""
    shares = [cause_share(each) for each in rounds]
    return max(shares) - min(shares)


def _summaries(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    return [each.summary(number) for number, turn in enumerate(rounds, 1) for each in turn.values()]
