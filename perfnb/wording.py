"""Sentences about findings, predictions and outcomes that cards, panels and reports share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import pandas as pd

from perfnb import text
from perfnb.document import Block, Diff, Items, Line, Section, Table, Verdict
from perfnb.findings import Cleared, Diagnosis, Finding, NotMeasured
from perfnb.fix import Suggestion
from perfnb.prediction import Change, Prediction, Unknown

if TYPE_CHECKING:
    from perfnb.whatif.plan import PlanStep

EVIDENCE_ROWS: Final = 50
"""Rows of evidence on screen; the whole stands in `Finding.evidence`."""

_HIGHEST_CHANCE: Final = 0.99
_LONGEST_NUMBERS: Final = 60
TIERS: Final[Mapping[int | str, str]] = {
    1: "tier 1: device clock",
    2: "tier 2: host clock",
    3: "tier 3: samples",
    "observed": "seen on the curve, not probed",
    "probed": "probed",
}


def predicted(answer: Prediction | Unknown) -> str:
    """A prediction in one line, or what is missing for one.

    Examples
    --------
    >>> predicted(Prediction("step_us", 71_000, 38_000, 31_000, 47_000, "prior"))
    '71.0 -> 38.0 ms per step (31.0-47.0 ms, 80 %), 1.87x, basis: prior'
    >>> predicted(Unknown("no steps were recorded", "a trace with prof.step()"))
    'Unknown: no steps were recorded. Needs: a trace with prof.step()'
    """
    if isinstance(answer, Unknown):
        return f"Unknown: {_sentence(answer.reason)} Needs: {answer.needs or text.NOTHING}"
    if answer.metric == "memory_bytes" and answer.memory is not None:
        return answer.memory.words
    interval = f"{text.duration_range(answer.low, answer.high)}, 80 %"
    line = f"{text.duration_change(answer.before, answer.after)} per {answer.per} ({interval})"
    if answer.verdict == "no effect expected":
        return f"no effect expected: {line}, basis: {answer.basis}"
    return f"{line}, {text.speedup(answer.speedup)}, basis: {answer.basis}"


def changed(changes: Sequence[Change]) -> str:
    """Changes in one line.

    Examples
    --------
    >>> changed([Change("num_workers", 0, 4), Change("prefetch_factor", None, 2)])
    'num_workers 0 -> 4, prefetch_factor None -> 2'
    """
    return ", ".join(f"{text.name(change.knob)} {text.name(change.before)} -> {text.name(change.after)}" for change in changes)


def change_lines(changes: Sequence[Change]) -> Diff:
    """Changes as the lines of a diff."""
    return Diff(
        tuple(line for change in changes for line in (f"- {change.knob}: {change.before}", f"+ {change.knob}: {change.after}"))
    )


def certainty(finding: Finding) -> str:
    """Where a finding was seen and how sure it is, in one line."""
    pieces = [
        f"rank{'s' if len(finding.ranks) > 1 else ''} {few_numbers(finding.ranks)}",
        f"steps {few_numbers(finding.steps)}",
        TIERS.get(finding.tier, f"tier {finding.tier}"),
        sureness(finding),
    ]
    return ", ".join([*pieces, "an upper bound"] if finding.upper_bound else pieces)


def few_numbers(values: Sequence[int]) -> str:
    """Whole numbers with neighbours joined, cut in the middle where there are very many; the evidence has them all."""
    return text.clean(text.numbers(values), _LONGEST_NUMBERS)


def sureness(finding: Finding) -> str:
    """Confidence with the counts that it rests on; where nothing was counted, that and no number."""
    if math.isnan(finding.confidence):
        return f"no confidence ({finding.record})"
    return f"confidence {finding.confidence:.2f} ({finding.record})"


def suggestion_blocks(suggestion: Suggestion) -> tuple[Block, ...]:
    """A suggestion: the change, its predicted effect, why, and what to check first."""
    lines: list[Block] = [
        Verdict("", f"{suggestion.fix}: {changed(suggestion.changes)}", label="change"),
        Line("effect", predicted(suggestion.prediction)),
        *memory_line(suggestion.prediction),
        Line("why", suggestion.reason),
    ]
    if suggestion.confidence is not None:
        lines.append(Line("chance", f"{_chance(suggestion.confidence)} that the {_per(suggestion)} gets at least 3 % shorter"))
    if suggestion.caution:
        lines.append(Line("check", suggestion.caution))
    return tuple(lines)


def memory_line(answer: Prediction | Unknown) -> tuple[Line, ...]:
    """The peak of memory with a change, beside its time; nothing where no model tells of it."""
    return () if isinstance(answer, Unknown) or answer.memory is None else (Line("memory", answer.memory.words),)


def side_by_side(suggestions: Sequence[Suggestion]) -> dict[str, Prediction | Unknown]:
    """Change to prediction, of those that one chart can show: times of one thing, not a step beside a sample."""
    metrics = [item.prediction.metric for item in suggestions if isinstance(item.prediction, Prediction)]
    return {
        changed(item.changes): item.prediction
        for item in suggestions
        if isinstance(item.prediction, Unknown) or item.prediction.metric == metrics[0]
    }


def plan_blocks(steps: Sequence[PlanStep]) -> tuple[Block, ...]:
    """Which suggestions to apply in which order; nothing where none is worth it."""
    if not steps:
        return ()
    rows = tuple(
        (
            f"{number}: {step.suggestion.fix}",
            changed(step.suggestion.changes),
            _after(step.prediction),
            text.duration(step.gain_us),
            text.duration(step.gain_alone_us),
        )
        for number, step in enumerate(steps, 1)
    )
    header = ("apply", "change", "step with those before it", "takes off", "alone")
    table = Table("", header, rows, frozenset({2, 3, 4}))
    words = Line("", "Predicted together: gains do not add up.")
    return (Section(f"Plan ({text.count(len(steps), 'change')})", (words, table)),)


def assumptions(answer: Prediction | Unknown) -> tuple[Block, ...]:
    """What must hold for a prediction to hold; nothing where there is none."""
    if isinstance(answer, Unknown) or not answer.assumptions:
        return ()
    return (Section(f"Assumes {text.count(len(answer.assumptions), 'thing')}", (Items(answer.assumptions),)),)


def findings_table(findings: Sequence[Finding], caption: str) -> Table:
    """Findings with their share of step time, or of memory, as a bar."""
    rows = tuple(
        (
            item.detector,
            text.share(item.severity),
            text.share_range(item.low, item.high),
            text.duration(item.lost_us) if item.unit == "time" else f"{text.byte_size(item.lost_bytes)} of memory",
            f"{item.confidence:.2f}",
        )
        for item in findings
    )
    bars = tuple((item.severity, "#D55E00") for item in findings)
    only_time = all(item.unit == "time" for item in findings)
    header = ("of step", "80 % interval", "lost per step") if only_time else ("share", "80 % interval", "lost per step, or bytes")
    return Table(caption, ("finding", *header, "confidence"), rows, frozenset({1, 2, 3, 4}), bars)


def cleared_items(cleared: Sequence[Cleared]) -> Items:
    """What was looked at and is not limiting, with its number."""
    return Items(tuple(f"{each.detector}: {text.share(each.severity)}, limit {text.share(each.flag_above)}" for each in cleared))


def unmeasured_items(unmeasured: Sequence[NotMeasured]) -> Items:
    """What could not be looked at, with the reason; what has one reason stands together."""
    by_reason: dict[str, list[str]] = {}
    for item in unmeasured:
        by_reason.setdefault(item.reason, []).append(item.detector)
    return Items(tuple(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()))


def evidence_table(finding: Finding, rows_shown: int = EVIDENCE_ROWS) -> Table:
    """The largest rows of a finding's evidence."""
    frame: pd.DataFrame = finding.evidence.head(rows_shown).dropna(axis="columns", how="all")
    columns = [str(column) for column in frame.columns]
    values = [frame.iloc[:, index].to_list() for index in range(len(columns))]
    rows = tuple(
        tuple(text.quantity(name, value) for name, value in zip(columns, row, strict=True)) for row in zip(*values, strict=True)
    )
    more = len(finding.evidence) - len(frame)
    caption = f"Evidence, {text.count(len(frame), 'row')}" + (f" and {more:,} more: finding.evidence" if more else "")
    right = frozenset(index for index in range(len(columns)) if pd.api.types.is_numeric_dtype(frame.dtypes.iloc[index]))
    return Table(caption, tuple(text.heading(name) for name in columns), rows, right)


def verdict(diagnosis: Diagnosis) -> Verdict:
    """The first line of a diagnosis: its worst finding, or why there is none.

    The training itself leads only where nothing else was judged: a log of losses.
    """
    if diagnosis.found:
        worst = diagnosis.found[0]
        return Verdict("!", worst.summary, f"{worst.detector}, tier {worst.tier}")
    if diagnosis.step_us is None:
        if diagnosis.training and diagnosis.training.found and not diagnosis.possible:
            worst = diagnosis.training.found[0]
            return Verdict("!", f"The training itself: {worst.summary}", f"{worst.detector}, {TIERS.get(worst.tier, worst.tier)}")
        reasons = list(dict.fromkeys(item.reason for item in diagnosis.unmeasured)) or ["no steps, trace or samples"]
        return Verdict("?", f"Nothing to judge: {reasons[0]}")
    if diagnosis.possible:
        worst = diagnosis.possible[0]
        if worst.upper_bound:
            words = "The host alone was seen, and the device may hide any part of what it does"
            return Verdict("?", f"{words}. At most: {worst.summary}", f"{worst.detector}, tier {worst.tier}")
        steps = text.count(len(worst.steps), "step")
        return Verdict(
            "?", f"Too short to judge: {steps}, 3 needed. Possible: {worst.summary}", f"{worst.detector}, tier {worst.tier}"
        )
    if not diagnosis.cleared:
        return Verdict("?", f"No cause could be looked at: {text.count(len(diagnosis.unmeasured), 'is', 'are')} not measured")
    looked = text.count(len(diagnosis.cleared), "cause")
    return Verdict("ok", f"Nothing above its limit: {looked} looked at, {len(diagnosis.unmeasured)} not measured")


def run_words(line: str) -> str:
    """The line that a run says of itself, without the name of its class.

    Examples
    --------
    >>> run_words("Run(a.json: 1 rank, 16 steps)"), run_words("Run(: 1 rank)")
    ('a.json: 1 rank, 16 steps', '1 rank')
    """
    return line.removeprefix("Run(").removesuffix(")").removeprefix(": ") if line.startswith("Run(") else line


def seen(diagnosis: Diagnosis) -> tuple[Line, ...]:
    """What a diagnosis rests on: the run, and its steps."""
    lines = [Line("seen", run_words(diagnosis.run_line))] if diagnosis.run_line else []
    if diagnosis.step_us is not None and diagnosis.low_us is not None and diagnosis.high_us is not None:
        step = text.duration_estimate(diagnosis.step_us, diagnosis.low_us, diagnosis.high_us)
        lines.append(Line("step", f"{step}, mean of {diagnosis.steps_used}"))
    return tuple(lines)


def rest(diagnosis: Diagnosis) -> list[Block]:
    """What is possible, not limiting and not measured; what is not limiting stands open where nothing was found."""
    nothing_found = not diagnosis.found and not diagnosis.possible
    sections: list[Block] = []
    if diagnosis.possible:
        short = all(item.upper_bound is False for item in diagnosis.possible)
        why = "with too few steps to be sure" if short else "at most: the device may hide any part of it"
        title = f"Possible, {why} ({len(diagnosis.possible)})"
        sections.append(Section(title, (findings_table(diagnosis.possible, ""),)))
    if diagnosis.cleared:
        title = f"Not limiting ({len(diagnosis.cleared)})"
        sections.append(Section(title, (cleared_items(diagnosis.cleared),), folded=not nothing_found))
    if diagnosis.hints:
        words = Items(tuple(f"{item.detector}: {item.sentence}" for item in diagnosis.hints))
        sections.append(Section(f"Hints of the config alone ({len(diagnosis.hints)})", (words,)))
    if diagnosis.unmeasured:
        sections.append(Section(f"Not measured ({len(diagnosis.unmeasured)})", (unmeasured_items(diagnosis.unmeasured),)))
    if diagnosis.notes:
        sections.append(Section(f"Notes of the reader ({len(diagnosis.notes)})", (Items(diagnosis.notes),)))
    return sections


def _per(suggestion: Suggestion) -> str:
    """What gets shorter."""
    if isinstance(suggestion.prediction, Unknown) or suggestion.prediction.per == "step":
        return "step"
    return f"time per {suggestion.prediction.per}"


def _chance(probability: float) -> str:
    """A probability in percent; its ends are never reached, for the interval that it comes from is an estimate."""
    if probability > _HIGHEST_CHANCE:
        return f"over {text.share(_HIGHEST_CHANCE)}"
    if probability < 1.0 - _HIGHEST_CHANCE:
        return f"under {text.share(1.0 - _HIGHEST_CHANCE)}"
    return text.share(probability)


def _after(answer: Prediction) -> str:
    """The step that is predicted; per sample where the number of samples in a step changes."""
    words = text.duration_estimate(answer.after, answer.low, answer.high)
    return words if answer.per == "step" else f"{words} per {answer.per}"


def _sentence(reason: str) -> str:
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."
