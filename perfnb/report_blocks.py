"""The report as a document: verdict first, then what was found, what to change, what was checked, what was not, and on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from perfnb import facts, text
from perfnb.catalogue import detectors, training_detectors
from perfnb.charts import breakdown_chart, findings_chart, impact_chart
from perfnb.charts.theme import AnyChart
from perfnb.charts.training import loss_chart
from perfnb.detector import Detector, Unmeasured
from perfnb.document import Block, Code, Diff, Heading, Items, Line, Section, Table, Verdict
from perfnb.findings import Finding
from perfnb.fix import Suggestion
from perfnb.report import picture
from perfnb.report_content import Reported, Shown
from perfnb.report_environment import Rows, config_rows, endings, environment, overhead
from perfnb.run import Run
from perfnb.training.drawing import loss_drawing, training_events
from perfnb.training.suggest import HyperparameterSuggestion
from perfnb.wording import (
    assumptions,
    certainty,
    changed,
    cleared_items,
    evidence_table,
    findings_table,
    plan_blocks,
    seen,
    side_by_side,
    suggestion_blocks,
    unmeasured_items,
    verdict,
)
from perfnb.wording_training import training_blocks, training_line

_LONGEST: Final = 400
_LONGEST_PROSE: Final = 1_500
_MOST_NOTES: Final = 60
_GROUPS: Final = {
    "time": "What was found: time",
    "memory": "What was found: memory",
    "opportunity": "What was found: unused, not lost",
}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a report is shown: rows of evidence per finding, and whether charts are; what is drawn is kept in `drawn`."""

    evidence_rows: int = 50
    is_drawn: bool = True
    drawn: dict[str, tuple[Block, ...]] = field(default_factory=dict)

    def picture(self, name: str, chart: Callable[[], AnyChart]) -> tuple[Block, ...]:
        """A chart as a picture, drawn once under its name; nothing where no charts are shown."""
        if not self.is_drawn:
            return ()
        if name not in self.drawn:
            self.drawn[name] = picture(chart())
        return self.drawn[name]


def report_blocks(told: Reported, amount: Amount | None = None) -> list[Block]:
    """The report as blocks.

    Parameters
    ----------
    told
        What it tells.
    amount
        How much of it is shown; all by default.

    Returns
    -------
    list of Block
        Chapters under headings; what is long stands folded.
    """
    how_much = amount or Amount()
    blocks = [
        *_top(told, how_much),
        *_found(told, how_much),
        *_changes(told, how_much),
        *_training(told, how_much),
        *_checked(told),
        *_surroundings(told),
    ]
    return [_cut(block) for block in blocks]


def _cut(block: Block) -> Block:
    """A block whose texts are no longer than a reader reads: a name of a trace may be as long as a book."""
    if isinstance(block, Verdict):
        return replace(block, sentence=text.clean(block.sentence, _LONGEST), aside=text.clean(block.aside, _LONGEST))
    if isinstance(block, Line):
        return replace(block, sentence=text.clean(block.sentence, _LONGEST_PROSE))
    if isinstance(block, Items):
        return Items(tuple(text.clean(sentence, _LONGEST_PROSE) for sentence in block.sentences))
    if isinstance(block, Table):
        return replace(block, rows=tuple(tuple(text.clean(cell, _LONGEST) for cell in row) for row in block.rows))
    if isinstance(block, Section):
        inside = tuple(_cut(each) for each in block.blocks)
        return replace(block, heading=text.clean(block.heading, _LONGEST), blocks=inside)
    return block


def _top(told: Reported, amount: Amount) -> list[Block]:
    diagnosis = told.diagnosis
    blocks: list[Block] = [verdict(diagnosis), *seen(diagnosis), *training_line(diagnosis)]
    if told.suggestions:
        best = told.suggestions[0]
        blocks.append(Line("change", f"{best.fix}: {changed(best.changes)}"))
    ended = endings(told.run)
    if ended:
        blocks.append(_pairs("How the recording ended", ended))
    if not diagnosis.parts.empty:
        parts = facts.breakdown(diagnosis.parts)
        rows = tuple((label, text.duration(time), text.share(part)) for label, _, time, part in parts.itertuples(index=False))
        drawn = amount.picture("parts", lambda: breakdown_chart(parts))
        blocks += [
            Heading("Where a step's time goes"),
            *drawn,
            Table("", ("part", "time per step", "of step"), rows, frozenset({1, 2})),
        ]
    return blocks


def _found(told: Reported, amount: Amount) -> list[Block]:
    diagnosis = told.diagnosis
    blocks: list[Block] = []
    for unit, title in _GROUPS.items():
        found = [each for each in diagnosis.found if each.unit == unit]
        if found:
            blocks.append(Heading(f"{title} ({len(found)})"))
            if len(found) > 1:
                ranked = diagnosis.findings[diagnosis.findings["unit"].eq(unit)]
                drawn = amount.picture(unit, partial(findings_chart, ranked))
                blocks += [*drawn, findings_table(found, "")]
            blocks += _each(found, told.run, amount)
    if diagnosis.possible:
        blocks += [
            Heading(f"Possible, not sure ({len(diagnosis.possible)})"),
            Line("", "Too few steps, or the host alone was seen and the device may hide any part of it."),
            findings_table(diagnosis.possible, ""),
            *_each(diagnosis.possible, told.run, amount, folded=True),
        ]
    if not blocks:
        blocks = [Heading("What was found"), Line("", "Nothing above its limit.")]
    return blocks


def _each(found: Sequence[Finding], run: Run, amount: Amount, *, folded: bool = False) -> list[Block]:
    known = {each.name: each for each in (*detectors(), *training_detectors())}
    return [
        Section(
            f"{item.detector}: {text.clean(item.summary, _LONGEST)}",
            (
                Line("basis", certainty(item)),
                *(_evidence(item, amount.evidence_rows) if amount.evidence_rows and len(item.evidence) else []),
                *([_how(known[item.detector], run)] if item.detector in known else []),
            ),
            folded=folded or index > 0,
        )
        for index, item in enumerate(found)
    ]


def _evidence(item: Finding, rows: int) -> list[Block]:
    table = evidence_table(item, rows)
    return [Section(table.caption, (replace(table, caption=""),))]


def _how(detector: Detector, run: Run) -> Block:
    paragraphs = tuple(" ".join(part.split()) for part in detector.doc.split("\n\n") if part.strip())
    limit = f"A finding from {text.share(detector.threshold(run))} on: {detector.source}"
    return Section("How it is measured", (Items((*paragraphs, limit)),))


def _changes(told: Reported, amount: Amount) -> list[Block]:
    if not told.suggestions and not told.refused:
        return []
    blocks: list[Block] = [Heading(f"What to change ({len(told.suggestions)})")]
    if not told.suggestions:
        blocks.append(Line("", "No change of this config is suggested."))
    known = facts.impact(side_by_side(told.suggestions))
    if known["after_us"].notna().any():
        blocks += amount.picture("changes", lambda: impact_chart(known))
    pairs = enumerate(zip(told.suggestions, told.shown, strict=True))
    blocks += [_suggestion(item, shown, folded=index > 0) for index, (item, shown) in pairs]
    blocks += plan_blocks(told.plan)
    if told.refused:
        items = Items(tuple(f"{each.fix}: {text.clean(each.reason, _LONGEST)}" for each in told.refused))
        blocks.append(Section(f"Would answer a finding, but do not apply here ({len(told.refused)})", (items,)))
    return blocks


def _suggestion(item: Suggestion, shown: Shown, *, folded: bool) -> Block:
    answers = [Line("answers", ", ".join(item.answers))] if item.answers else []
    inside = (*suggestion_blocks(item)[1:], *answers, *_shown(shown), *assumptions(item.prediction))
    return Section(f"{item.fix}: {changed(item.changes)}", inside, folded=folded)


def _shown(shown: Shown) -> list[Block]:
    blocks: list[Block] = [Diff(shown.diff)] if shown.diff else []
    if shown.reason:
        blocks.append(Line("paste" if shown.snippets else "note", text.clean(shown.reason, _LONGEST)))
    return [*blocks, *(Code(each) for each in shown.snippets)]


def _training(told: Reported, amount: Amount) -> list[Block]:
    curve = told.diagnosis.training
    if curve is None:
        return []
    blocks: list[Block] = [Heading("The training itself, by its curve"), *_losses(told, amount)]
    blocks += training_blocks(curve)
    pairs = zip(told.hyperparameters, told.shown_hyperparameters, strict=True)
    return [*blocks, *(_hyperparameter(item, shown) for item, shown in pairs)]


def _losses(told: Reported, amount: Amount) -> tuple[Block, ...]:
    try:
        drawing = loss_drawing(told.run)
    except Unmeasured:
        return ()
    if drawing.empty:
        return ()
    return amount.picture("losses", lambda: loss_chart(drawing, training_events(told.diagnosis)))


def _hyperparameter(item: HyperparameterSuggestion, shown: Shown) -> Block:
    title = f"To try: {changed(item.changes)}" if item.changes else f"{item.fix}: no value to try"
    factors = ", ".join(f"{factor:g}" for factor in item.probe_factors)
    return Section(
        title,
        (
            Line("why", text.clean(item.symptom, _LONGEST)),
            Line("basis", item.record),
            Line("effect", "Unknown: a curve alone does not tell what a change brings. Needs: a probe"),
            Line("verify", item.verify),
            *([Line("probe", f"factors of the learning rate: {factors}")] if factors else []),
            Line("horizon", item.horizon),
            *([Line("check", item.caution)] if item.caution else []),
            *([Line("note", text.clean(item.why_no_change, _LONGEST))] if item.why_no_change else []),
            *_shown(shown),
        ),
    )


def _checked(told: Reported) -> list[Block]:
    diagnosis = told.diagnosis
    blocks: list[Block] = [Heading(f"Checked and not limiting ({len(diagnosis.cleared)})")]
    blocks.append(cleared_items(diagnosis.cleared) if diagnosis.cleared else Line("", "Nothing could be cleared."))
    blocks.append(Heading(f"Not measured ({len(diagnosis.unmeasured)})"))
    blocks.append(unmeasured_items(diagnosis.unmeasured) if diagnosis.unmeasured else Line("", "Every detector could look."))
    if diagnosis.hints:
        words = Items(tuple(f"{item.detector}: {text.clean(item.sentence, _LONGEST)}" for item in diagnosis.hints))
        blocks += [Heading(f"Hints of the config alone ({len(diagnosis.hints)})"), words]
    return blocks


def _surroundings(told: Reported) -> list[Block]:
    config = config_rows(told.config)
    notes = [text.clean(note, _LONGEST) for note in told.diagnosis.notes]
    more = [f"and {len(notes) - _MOST_NOTES} more"] if len(notes) > _MOST_NOTES else []
    blocks: list[Block] = [
        Heading("Environment"),
        _pairs("", environment(told.run)),
        Heading("Cost of watching"),
        _pairs("", overhead(told.run)),
        Heading(f"Config ({len(config)})"),
        Section("Knobs and their values", (_pairs("", config),)) if config else Line("", "No config was given or recorded."),
    ]
    if notes:
        blocks += [Heading(f"Notes of the reader ({len(notes)})"), Items((*notes[:_MOST_NOTES], *more))]
    return blocks


def _pairs(caption: str, rows: Rows) -> Table:
    return Table(caption, ("what", "value"), rows)
