"""What a diagnosis holds: findings, what was looked at and is not limiting, and what could not be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

FINDING_COLUMNS = (
    "detector",
    "category",
    "severity",
    "low",
    "high",
    "lost_us",
    "confidence",
    "record",
    "tier",
    "ranks",
    "steps",
    "upper_bound",
    "unit",
    "lost_bytes",
    "summary",
)
CLEARED_COLUMNS = ("detector", "category", "severity", "flag_above", "summary")
NOT_MEASURED_COLUMNS = ("detector", "category", "reason")


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One bottleneck: what it costs, where, and how sure that is.

    Attributes
    ----------
    detector, category
        Which detector found it, and that detector's family.
    severity, low, high
        Share of step time (or of memory, see `unit`) lost, 0 to 1, with its 80 % bootstrap interval over steps.
    lost_us
        Mean time lost per step.
    confidence, record
        Probability that the finding is right, and the counts that it rests on, in words.
    tier
        1 device trace, 2 host clock per step, 3 samples; of the training itself "observed" on its curve or "probed".
    ranks, steps
        Ranks that lose the time; numbers of the steps that were used.
    evidence
        One row per event or (rank, step) that shows it.
    summary
        One sentence for people.
    upper_bound
        Whether less than `severity` may be lost.
    unit
        What `severity` is a share of: "time" of the step, "memory" of the device or host; "opportunity": nothing is lost;
        "training": severity is NaN until a probe has told what a change brings.
    lost_bytes
        Memory lost; NaN where time is.
    """

    detector: str
    category: str
    severity: float
    low: float
    high: float
    lost_us: float
    confidence: float
    record: str
    tier: int | Literal["observed", "probed"]
    ranks: tuple[int, ...]
    steps: tuple[int, ...]
    evidence: pd.DataFrame
    summary: str
    upper_bound: bool = False
    unit: Literal["time", "memory", "opportunity", "training"] = "time"
    lost_bytes: float = float("nan")


@dataclass(frozen=True, slots=True)
class Hint:
    """Only the config tells of trouble: never a finding, never ranked.

    Attributes
    ----------
    detector, category
        Which detector says so, and its family.
    sentence
        What the config tells, and what would show whether it costs anything.
    """

    detector: str
    category: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """A detector looked and found less than its threshold: the number stands here."""

    detector: str
    category: str
    severity: float
    flag_above: float
    summary: str


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A detector could not look, and why. Never to be read as "fine".

    Attributes
    ----------
    detector, category
        Which detector could not look, and its family.
    reason
        What it lacks, in words.
    traceback
        Where it failed, if that is why; empty otherwise.
    """

    detector: str
    category: str
    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """The answer of every detector on one run.

    Attributes
    ----------
    found
        Findings, worst first.
    possible
        What would be findings, had the run steps enough to be sure, or its device's own clock.
    cleared
        What was looked at and is not limiting.
    unmeasured
        What could not be looked at, with reasons.
    step_us, low_us, high_us
        Mean duration of the used steps of the critical rank, with its 80 % interval.
    steps_used
        Which steps the numbers rest on, in words.
    parts
        Mean time per step of each ledger part: columns clock, part, time_us, share.
    run_line
        What was diagnosed, in words.
    notes
        Sentences of the reader that people should know.
    hints
        What only the config tells.
    training
        The same of the training itself, by its curve: never ranked against time or memory.
    """

    found: tuple[Finding, ...]
    possible: tuple[Finding, ...]
    cleared: tuple[Cleared, ...]
    unmeasured: tuple[NotMeasured, ...]
    step_us: float | None = None
    low_us: float | None = None
    high_us: float | None = None
    steps_used: str = ""
    parts: pd.DataFrame = field(default_factory=pd.DataFrame)
    run_line: str = ""
    notes: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = ()
    training: Diagnosis | None = None

    @property
    def findings(self) -> pd.DataFrame:
        """One row per finding, worst first; columns `FINDING_COLUMNS`."""
        return _frame(self.found, FINDING_COLUMNS)

    @property
    def not_limiting(self) -> pd.DataFrame:
        """One row per detector that looked and found less than its threshold; columns `CLEARED_COLUMNS`."""
        return _frame(self.cleared, CLEARED_COLUMNS)

    @property
    def not_measured(self) -> pd.DataFrame:
        """One row per detector that could not look; columns `NOT_MEASURED_COLUMNS`."""
        return _frame(self.unmeasured, NOT_MEASURED_COLUMNS)

    def __getitem__(self, detector: str) -> Finding:
        """The finding of a detector, of the training itself too.

        Raises
        ------
        KeyError
            If that detector has no finding; the message says what it has instead.
        """
        both = (self, self.training) if self.training else (self,)
        for finding in (finding for each in both for finding in (*each.found, *each.possible)):
            if finding.detector == detector:
                return finding
        elsewhere: Mapping[str, str] = {
            **{item.detector: item.summary for each in both for item in each.cleared},
            **{item.detector: f"not measured: {item.reason}" for each in both for item in each.unmeasured},
        }
        message = f"no finding of {detector!r}: {elsewhere.get(detector, 'there is no such detector')}"
        raise KeyError(message)


def _frame(items: tuple[Any, ...], columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame([{name: getattr(item, name) for name in columns} for item in items], columns=list(columns))
