"""Words for the training itself: what its curve gave reason to look at, apart from time and memory."""

from __future__ import annotations

from collections.abc import Sequence

from perfnb import text
from perfnb.document import Block, Items, Line, Section, Table
from perfnb.findings import Cleared, Diagnosis, Finding
from perfnb.wording import TIERS, few_numbers, sureness, unmeasured_items

NO_RANK = "What the curve shows is not ranked against time or memory: what a change brings, only a probe tells."


def training_line(diagnosis: Diagnosis) -> tuple[Line, ...]:
    """The training itself in one line; none where it was not looked at.

    Examples
    --------
    >>> from perfnb.findings import NotMeasured
    >>> told = Diagnosis((), (), (), (NotMeasured("loss_spikes", "training", "no loss was recorded"),))
    >>> print(training_line(Diagnosis((), (), (), (), training=told))[0].plain())
    curve   not measured: no loss was recorded
    """
    told = diagnosis.training
    if told is None or not (told.found or told.cleared or told.unmeasured):
        return ()
    if told.found:
        more = len(told.found) - 1
        return (Line("curve", f"[!] {told.found[0].summary}" + (f" | {more} more" if more else "")),)
    if told.cleared:
        left = f", {len(told.unmeasured)} not measured" if told.unmeasured else ""
        return (Line("curve", f"no symptom on its curve: {len(told.cleared)} looked for{left}"),)
    reasons = list(dict.fromkeys(item.reason for item in told.unmeasured))
    more_reasons = f" (and {text.count(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
    return (Line("curve", f"not measured: {reasons[0]}{more_reasons}"),)


def is_curve_seen(diagnosis: Diagnosis) -> bool:
    """Whether anything of the training itself could be looked at."""
    told = diagnosis.training
    return told is not None and bool(told.found or told.cleared)


def training_section(diagnosis: Diagnosis, *, folded: bool = True) -> list[Block]:
    """What was found on the curve, looked for and not measured, under one heading; nothing where nothing could be looked at."""
    told = diagnosis.training
    if told is None or not is_curve_seen(diagnosis):
        return []
    found = text.count(len(told.found), "finding")
    return [Section(f"The training itself, by its curve ({found})", tuple(training_blocks(told)), folded=folded)]


def training_blocks(told: Diagnosis) -> list[Block]:
    """All that a diagnosis of the training itself says, as blocks."""
    blocks: list[Block] = []
    if told.found:
        blocks += [_found(told.found), Line("", NO_RANK)]
    if told.cleared:
        blocks.append(Section(f"Looked for and not seen ({len(told.cleared)})", (curve_items(told.cleared),)))
    if told.unmeasured:
        blocks.append(Section(f"Of the training, not measured ({len(told.unmeasured)})", (unmeasured_items(told.unmeasured),)))
    return blocks


def curve_items(cleared: Sequence[Cleared]) -> Items:
    """What was looked for on a curve and not seen, each in its own words: its numbers are no shares."""
    return Items(tuple(f"{each.detector}: {each.summary}" for each in cleared))


def _found(found: Sequence[Finding]) -> Table:
    rows = tuple(
        (each.detector, each.summary, f"steps {few_numbers(each.steps)}", str(TIERS.get(each.tier, each.tier)), sureness(each))
        for each in found
    )
    return Table("", ("finding", "what was seen", "where", "how", "confidence"), rows)
