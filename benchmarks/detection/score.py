"""Scores of the detection benchmark: a pure function of what detectors say of the stored runs, and their measured truth."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from benchmarks.detection.case import WITH_WORKERS, Case, Fault, Found, Row, Truth

Z: Final = 1.959963984540054  # two-sided 95 % of the normal distribution
BINS: Final = 10
AMBIENT_RUNQUEUE: Final = 0.05
"""Share of run-queue time in the blocks without a fault from which cpu_contention is true of the machine itself."""

CONTENTION: Final = "cpu_contention"
Outcome = Literal["hit", "miss", "not measured", "quiet", "false alarm", "accepted", "between"]


@dataclass(frozen=True, slots=True)
class Share:
    """A number out of another with its Wilson 95 % interval.

    Examples
    --------
    >>> Share(0, 40).high, Share(9, 10).low
    (0.0876..., 0.5958...)
    """

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.hits / self.of if self.of else math.nan

    @property
    def low(self) -> float:
        """Low end."""
        return self._ends()[0]

    @property
    def high(self) -> float:
        """High end."""
        return self._ends()[1]

    def _ends(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        middle = (self.hits + Z**2 / 2) / (self.of + Z**2)
        half = Z / (self.of + Z**2) * math.sqrt(self.hits * (self.of - self.hits) / self.of + Z**2 / 4)
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Said:
    """One label of one case, or one finding that no label accounts for.

    Attributes
    ----------
    case
        Where.
    fault
        Id of the fault, or of the control.
    detector
        The detector that was asked for, or that fired.
    outcome
        What came of it.
    truth
        Share of the label; NaN for a finding that has none.
    found
        The finding; None where there is none.
    is_first
        Whether it is the first finding of its run, but for contention that is true of the machine.
    true_lost_us
        Time of a step that the label's cause takes; NaN of memory, and without a label.
    """

    case: Case
    fault: str
    detector: str
    outcome: Outcome
    truth: float = math.nan
    found: Found | None = None
    is_first: bool = False
    true_lost_us: float = math.nan


def judged(
    row: Row,
    faults: Mapping[str, Fault],
    accepted_in_control: Mapping[str, Sequence[str]],
    ambient: Mapping[tuple[str, str], Collection[str]] = MappingProxyType({}),
) -> list[Said]:
    """What the detectors' words on one case are worth.

    A label is a hit if a detector that counts as its cause fired; one that is true besides is "accepted", neither right nor
    wrong; any other finding is a false alarm. Where a label's share is between the bounds, the findings of its own causes
    are not judged. What is true of a training without any fault (of its workload and setting, in `ambient`) is
    neither right nor wrong in its other cases, and another finding counts as the first there.
    """
    labels = [(faults[truth.fault], truth) for truth in row.truths]
    accepted = {name for fault, _ in labels for name in fault.accepted} | set(accepted_in_control.get(row.case.control, ()))
    if row.case.job == WITH_WORKERS:
        accepted |= {name for fault, _ in labels for name in fault.accepted_with_workers}
    if row.seen.get("runqueue_share", 0.0) >= AMBIENT_RUNQUEUE:
        accepted.add(CONTENTION)
    said_of_labels = {name for fault, _ in labels for name in (*fault.expects, *fault.accepted)}
    true_of_all = ({CONTENTION} & accepted) | (set(ambient.get((row.case.workload, row.case.setting), ())) - said_of_labels)
    accepted |= true_of_all
    named = [each for each in row.found if each.detector not in true_of_all]
    said = [_label(row, fault, truth, named[0] if named else None) for fault, truth in labels]
    hits = {each.found for each in said if each.found is not None and each.outcome == "hit"}
    right = {name for fault, truth in labels if truth.label == "positive" for name in fault.expects}
    open_ones = {name for fault, truth in labels if truth.label == "between" for name in fault.expects}
    what = "+".join(row.case.faults) or row.case.control
    for place, found in enumerate(row.found):
        if found in hits:
            continue
        outcome: Outcome = (
            "accepted" if found.detector in accepted | right else "between" if found.detector in open_ones else "false alarm"
        )
        said.append(Said(row.case, what, found.detector, outcome, found=found, is_first=place == 0))
    return said


def _label(row: Row, fault: Fault, truth: Truth, first: Found | None) -> Said:
    found = next((each for each in row.found if each.detector in fault.expects), None)
    name = found.detector if found is not None else fault.expects[0]
    outcome: Outcome
    if truth.label == "between":
        outcome = "between"
    elif truth.label == "negative":
        outcome = "quiet"  # a finding, if any, is judged on its own
        found = None
    elif found is not None:
        outcome = "hit"
    elif all(each in row.unmeasured for each in fault.expects):
        outcome = "not measured"
    else:
        outcome = "miss"
    lost_us = truth.with_us - truth.without_us
    hit = found if outcome == "hit" else None
    return Said(row.case, fault.id, name, outcome, truth.share, hit, hit is not None and hit is first, lost_us)


@dataclass(frozen=True, slots=True)
class Score:
    """Numbers of a group of labels and findings; each with its count.

    Attributes
    ----------
    precision
        Hits of hits and false alarms.
    recall
        Hits of hits and misses: of labels that could be measured.
    recall_of_all
        Hits of all positive labels: what was said to be not measured, and what the tables cannot show, counts as missed.
    first
        Of cases with one positive label that could be measured, those whose first finding is its cause.
    size_errors
        abs(severity - truth) / truth of each hit, both as shares of the step (of which one is that of the stored run).
    time_errors
        The same of the time lost per step: where others take the processor steps grow, but not what the cause takes of them.
    coverage
        Hits whose interval holds the truth.
    unmeasured
        Positive labels that no detector could look for, of those which the tables show.
    unseen
        Positive labels that the tables cannot show, and how many of them were rightly said to be not measured.
    alarms
        Controls that are certified and have a false alarm, of those that are certified.
    reliability
        Expected calibration error over ten bins, and the number of findings it rests on.
    """

    precision: Share
    recall: Share
    recall_of_all: Share
    first: Share
    size_errors: tuple[float, ...]
    time_errors: tuple[float, ...]
    coverage: Share
    unmeasured: Share
    unseen: Share
    alarms: Share
    reliability: tuple[float, int]


def median_and_p90(errors: Sequence[float]) -> tuple[float, float]:
    """Median of errors, and the error that nine of ten stay at or below; NaN of none.

    Examples
    --------
    >>> median_and_p90([0.1, 0.2, 0.9])
    (0.2, 0.9)
    """
    if not errors:
        return math.nan, math.nan
    ordered = sorted(errors)
    return statistics.median(ordered), ordered[math.ceil(0.9 * len(ordered)) - 1]


def score(said: Sequence[Said], faults: Mapping[str, Fault], certified: Iterable[Case] = ()) -> Score:
    """Score of a group.

    Parameters
    ----------
    said
        Judged labels and findings; those of controls that are not certified are to be left out before.
    faults
        By id.
    certified
        Controls of the group.
    """
    shown = [each for each in said if each.fault not in faults or faults[each.fault].seen_in_tables]
    hits, misses, lacking = ([each for each in shown if each.outcome == outcome] for outcome in ("hit", "miss", "not measured"))
    alone = [each for each in (*hits, *misses) if len(each.case.faults) == 1]
    sized = [each for each in hits if each.found is not None]
    unseen = [
        each for each in said if each.fault in faults and not faults[each.fault].seen_in_tables and each.truth == each.truth
    ]
    unseen = [each for each in unseen if each.outcome in ("hit", "miss", "not measured")]
    timed = [each for each in sized if each.true_lost_us > 0]
    controls = {case.id for case in certified}
    alarmed = {each.case.id for each in said if each.outcome == "false alarm" and each.case.id in controls}
    return Score(
        precision=Share(len(hits), len(hits) + len([each for each in said if each.outcome == "false alarm"])),
        recall=Share(len(hits), len(hits) + len(misses)),
        recall_of_all=_recall_of_all(said),
        first=Share(sum(each.is_first for each in alone), len(alone)),
        size_errors=tuple(abs(each.found.severity - each.truth) / each.truth for each in sized if each.found is not None),
        time_errors=tuple(
            abs(each.found.lost_us - each.true_lost_us) / each.true_lost_us for each in timed if each.found is not None
        ),
        coverage=Share(
            sum(each.found is not None and each.found.low <= each.truth <= each.found.high for each in sized), len(sized)
        ),
        unmeasured=Share(len(lacking), len(lacking) + len(hits) + len(misses)),
        unseen=Share(sum(each.outcome == "not measured" for each in unseen), len(unseen)),
        alarms=Share(len(alarmed), len(controls)),
        reliability=_calibration(said),
    )


def _recall_of_all(said: Sequence[Said]) -> Share:
    labels = [each.outcome for each in said if each.outcome in ("hit", "miss", "not measured")]
    return Share(labels.count("hit"), len(labels))


def _calibration(said: Sequence[Said]) -> tuple[float, int]:
    """Mean distance between stated confidence and the share that was right, over ten bins weighted by their counts."""
    told = [
        (each.found.confidence, each.outcome == "hit") for each in said if each.found and each.outcome in ("hit", "false alarm")
    ]
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, is_right in told:
        bins[min(int(confidence * BINS), BINS - 1)].append((confidence, is_right))
    error = sum(abs(sum(c for c, _ in each) - sum(r for _, r in each)) for each in bins.values())
    return (error / len(told) if told else math.nan), len(told)


def grouped(said: Sequence[Said], key: Callable[[Said], str]) -> dict[str, list[Said]]:
    """Labels and findings by a name of theirs, in alphabetical order."""
    groups: dict[str, list[Said]] = defaultdict(list)
    for each in said:
        groups[key(each)].append(each)
    return dict(sorted(groups.items()))


def counts(said: Sequence[Said]) -> dict[str, dict[str, list[int]]]:
    """Right and wrong findings of each detector at each tier, as `perfnb.track_record` reads them."""
    told: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for each in said:
        if each.found is not None and each.outcome in ("hit", "false alarm"):
            told[each.detector][str(each.found.tier)][each.outcome == "false alarm"] += 1
    return {name: {tier: told[name][tier] for tier in sorted(told[name])} for name in sorted(told)}
