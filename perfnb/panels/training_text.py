"""What the training panel says: the verdict on a curve, one finding, what it suggests, and what a probe came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import pandas as pd

from perfnb import text
from perfnb.document import Block, Items, Line, Section, Table, Verdict
from perfnb.findings import Diagnosis, Finding
from perfnb.training.probe_result import ProbeResult
from perfnb.training.suggest import HyperparameterSuggestion
from perfnb.wording import changed, few_numbers, sureness, unmeasured_items

_LONGEST: Final = 600


def training_verdict(diagnosis: Diagnosis) -> Verdict:
    """The first line: the surest symptom, none, or why nothing could be looked at."""
    if diagnosis.found:
        first = diagnosis.found[0]
        return Verdict("!", text.clean(first.summary, _LONGEST), first.detector)
    if not diagnosis.cleared:
        reasons = list(dict.fromkeys(each.reason for each in diagnosis.unmeasured)) or ["no loss was recorded"]
        return Verdict("?", f"Nothing can be said of the training: {text.clean(reasons[0], _LONGEST)}")
    looked = text.count(len(diagnosis.cleared), "symptom")
    return Verdict("ok", f"No symptom on this curve: {looked} looked for, {len(diagnosis.unmeasured)} not measured")


def finding_blocks(finding: Finding) -> list[Block]:
    """One symptom: what was seen, where, and how often the cause was that on comparable curves."""
    seen = [f"first at step {finding.steps[0]:,}"] if finding.steps else []
    seen += [f"rank{'s' if len(finding.ranks) > 1 else ''} {few_numbers(finding.ranks)}", sureness(finding)]
    return [Verdict("!", text.clean(finding.summary, _LONGEST), finding.detector), Line("basis", ", ".join(seen))]


def advice_blocks(advice: HyperparameterSuggestion) -> list[Block]:
    """What a symptom gives reason to try: never more than that before a probe."""
    what = changed(advice.changes) if advice.changes else f"no value to try: {text.clean(advice.why_no_change, _LONGEST)}"
    chance = "" if math.isnan(advice.p_value) else f"; chance of the symptom without it, over all looks: {advice.p_value:.2g}"
    lines: list[Block] = [
        Verdict("", f"{advice.fix}: {what}", label="to try"),
        Line("sure", f"{text.clean(advice.record, _LONGEST)}{chance}"),
        Line("seen", advice.horizon),
        Line("next", advice.verify),
    ]
    if advice.probe_factors:
        lines.append(Line("probe", f"learning rate x {', '.join(f'{factor:g}' for factor in advice.probe_factors)}"))
    if advice.caution:
        lines.append(Line("check", text.clean(advice.caution, _LONGEST)))
    return lines


def drawing_table(drawing: pd.DataFrame) -> list[Block]:
    """The chart's lines as numbers: where each begins, its lowest value and where it ends."""
    if drawing.empty:
        return []
    rows = []
    for line, own in drawing.groupby("line", sort=False):
        lowest = own.iloc[int(own["value"].argmin())]
        ends = own.iloc[[0, -1]]
        values = [f"{value:.4g}" for value in (ends["value"].iloc[0], lowest["value"], ends["value"].iloc[-1])]
        rows.append(
            (
                str(line),
                values[0],
                f"{values[1]} at step {lowest['step']:,.0f}",
                f"{values[2]} at step {own['step'].iloc[-1]:,.0f}",
            )
        )
    return [
        Section("The lines in numbers", (Table("", ("", "begins at", "lowest", "ends at"), tuple(rows), frozenset({1, 2, 3})),))
    ]


def rest_blocks(diagnosis: Diagnosis) -> list[Block]:
    """What was looked for and is not there, and what could not be looked for."""
    sections: list[Block] = []
    if diagnosis.cleared:
        words = tuple(f"{each.detector}: {text.clean(each.summary, _LONGEST)}" for each in diagnosis.cleared)
        title = f"No sign of ({len(diagnosis.cleared)})"
        sections.append(Section(title, (Items(words),), folded=bool(diagnosis.found)))
    if diagnosis.unmeasured:
        sections.append(Section(f"Not measured ({len(diagnosis.unmeasured)})", (unmeasured_items(diagnosis.unmeasured),)))
    return sections


def probe_blocks(result: ProbeResult) -> list[Block]:
    """What a probe came to: a sentence per branch, and its numbers."""
    effects = result.effects
    rows = tuple(
        (
            text.name(row["change"]),
            f"{row['steps']:,}",
            _number(row["loss"]),
            text.share(row["effect"]),
            str(row["verdict"]),
            _number(row["chance"]),
            f"{_number(row['gain'])} ({_number(row['gain_low'])} to {_number(row['gain_high'])})",
        )
        for row in effects.to_dict("records")
    )
    header = ("setting", "steps", "loss at the end", "of the drop so far", "verdict", "chance of better", "gain")
    sentences = tuple(text.clean(each, _LONGEST) for each in result.sentences)
    return [
        Verdict("", sentences[-1], result.horizon, "probe"),
        Items(sentences[:-1]),
        Table("Branches on the same batches", header, rows, frozenset({1, 2, 3, 5, 6})),
        Line("cost", f"{result.seconds:.1f} s, {result.own_seconds:.1f} s of it beside the steps; the training is as it was"),
    ]


def advice_answers(finding: Finding | None, advice: Sequence[HyperparameterSuggestion]) -> tuple[HyperparameterSuggestion, ...]:
    """What answers a finding."""
    return tuple(each for each in advice if finding is not None and each.answers == finding.detector)


def _number(value: float) -> str:
    return text.NOTHING if math.isnan(value) else f"{value:.3g}"
