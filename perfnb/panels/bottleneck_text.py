"""What the bottleneck panel says about one finding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from perfnb.document import Block, Line, Section, Table, Verdict
from perfnb.findings import Finding
from perfnb.wording import certainty, evidence_table


def sentence(finding: Finding, *, is_certain: bool) -> list[Block]:
    """What is lost, and how sure that is."""
    return [
        Verdict("!" if is_certain else "?", finding.summary, f"{finding.detector}, tier {finding.tier}"),
        Line("basis", certainty(finding)),
    ]


def evidence(finding: Finding, rank: int | None) -> Table:
    """The largest rows of evidence, of one rank or all."""
    frame = finding.evidence
    if rank is not None and "rank" in frame:
        frame = frame[frame["rank"].eq(rank)]
    return evidence_table(dataclasses.replace(finding, evidence=frame))


def not_applicable(reasons: Sequence[tuple[str, str]], *, nothing_answers: bool) -> list[Block]:
    """Fixes that would answer a finding, but do not apply to the config, with the reasons."""
    if reasons:
        return [Section(f"Does not apply here ({len(reasons)})", (Table("", ("fix", "why not"), tuple(reasons)),))]
    return [Line("", "no change of a knob is known to answer this")] if nothing_answers else []
