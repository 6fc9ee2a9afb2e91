"""How values look in a notebook: the verdict card of a diagnosis, and a bundle of three faces for every other value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup

from perfnb import facts, text
from perfnb.charts import alternative, breakdown_chart, findings_chart, impact_chart, svg
from perfnb.charts.theme import AnyChart
from perfnb.document import Block, Bundle, Items, Line, Picture, Section, Table, Verdict, bundle
from perfnb.errors import NoRendererError
from perfnb.findings import Diagnosis, Finding
from perfnb.fix import Suggestion
from perfnb.prediction import Prediction, Unknown
from perfnb.run import Run
from perfnb.verify import Outcome, outcome_frame
from perfnb.wording import (
    TIERS,
    assumptions,
    certainty,
    change_lines,
    changed,
    evidence_table,
    findings_table,
    predicted,
    rest,
    run_words,
    seen,
    side_by_side,
    suggestion_blocks,
    verdict,
)
from perfnb.wording_training import is_curve_seen, training_line, training_section

__all__ = ["Bundle", "card", "card_blocks", "face", "page", "picture"]

NAMED_FINDINGS: Final = 3
"""Findings that the first lines name; the rest are counted and stand in the table."""

_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PAGE: Final = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{}</title>'
    '<meta http-equiv="Content-Security-Policy" content="{}"><style>:root{{color-scheme:light dark}}'
    "body{{font-family:system-ui,sans-serif;margin:24px auto;max-width:980px;padding:0 16px}}</style>"
    "</head><body>{}</body></html>"
)


def card(diagnosis: Diagnosis, suggestions: Sequence[Suggestion] = ()) -> Bundle:
    """The verdict card of a diagnosis.

    Parameters
    ----------
    diagnosis
        The answer of every detector.
    suggestions
        What to change, best first; the first one stands on the card, the others are folded.

    Returns
    -------
    Bundle
        HTML that survives an untrusted, reopened or exported notebook; Markdown; plain text. Each is complete alone.

    Examples
    --------
    >>> print(card(Diagnosis((), (), (), ())))
    perfnb  [?] Nothing to judge: no steps, trace or samples
    """
    return bundle(card_blocks(diagnosis, suggestions))


def card_blocks(diagnosis: Diagnosis, suggestions: Sequence[Suggestion] = (), lines: Sequence[Line] = ()) -> list[Block]:
    """What a verdict card is made of.

    Parameters
    ----------
    diagnosis, suggestions
        See `card`.
    lines
        Further lines, shown before the first chart.

    Returns
    -------
    list of Block
        Verdict and lines first, charts and tables after them.
    """
    blocks: list[Block] = [verdict(diagnosis), *seen(diagnosis)]
    if diagnosis.found:
        blocks.append(Line("basis", certainty(diagnosis.found[0])))
    if suggestions:
        best = suggestions[0]
        blocks += [
            Line("change", f"{best.fix}: {changed(best.changes)}. Predicted: {predicted(best.prediction)}"),
            change_lines(best.changes),
        ]
    also = _also(diagnosis)
    if also:
        blocks.append(Line("also", also))
    blocks += [*(training_line(diagnosis) if is_curve_seen(diagnosis) else ()), *lines]
    if not diagnosis.parts.empty:
        blocks += [*picture(breakdown_chart(facts.breakdown(diagnosis.parts))), _parts(diagnosis)]
    return [*blocks, *_sections(diagnosis, suggestions)]


def face(value: Any) -> Bundle:
    """The three faces of a value: Diagnosis, Finding, Suggestion, Prediction, Unknown, Outcome or Run.

    Parameters
    ----------
    value
        One of these, or a sequence of suggestions.

    Returns
    -------
    Bundle
        Its HTML, Markdown and plain text.

    Raises
    ------
    TypeError
        If there is no face for such a value.

    Examples
    --------
    >>> print(face(Unknown("no worker times", "a probe of the loader")))
    perfnb  [?] Unknown: no worker times. Needs: a probe of the loader
    """
    if isinstance(value, Diagnosis):
        return card(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, Suggestion) for item in value):
        return bundle(_suggestions(value))
    makers: dict[type, Any] = {
        Finding: _finding,
        Suggestion: _suggestion,
        Prediction: _prediction,
        Unknown: _prediction,
        Outcome: _outcome,
        Run: _run,
    }
    for kind, blocks in makers.items():
        if isinstance(value, kind):
            return bundle(blocks(value))
    message = f"perfnb shows no {type(value).__name__}: it shows Diagnosis, {', '.join(kind.__name__ for kind in makers)}"
    raise TypeError(message)


def page(shown: Bundle, title: str = "perfnb") -> Markup:
    """A whole HTML page of a bundle: one file, no script, nothing fetched, and a policy that forbids both."""
    return _PAGE.format(text.html(title), _POLICY, shown.html)


def picture(chart: AnyChart) -> tuple[Block, ...]:
    """A chart as a picture; where nothing can draw it, the reason in one line. A table with its numbers always stands beside."""
    try:
        return (Picture(svg(chart), alternative(chart)),)
    except NoRendererError as error:
        return (Line("", str(error)),)


def _also(diagnosis: Diagnosis) -> str:
    named = [f"{item.detector} {text.share(item.severity)}" for item in diagnosis.found[1:NAMED_FINDINGS]]
    more = len(diagnosis.found) - NAMED_FINDINGS
    counts = {"more": more, "possible": len(diagnosis.possible), "not limiting": len(diagnosis.cleared)}
    counted = [f"{name} {number}" for name, number in counts.items() if number > 0]
    unmeasured = [f"not measured {len(diagnosis.unmeasured)}"] if diagnosis.unmeasured and diagnosis.step_us is not None else []
    curve = ["curve not measured"] if diagnosis.training and not is_curve_seen(diagnosis) else []  # a stored card is small
    return " | ".join([*named, *counted, *unmeasured, *curve])


def _parts(diagnosis: Diagnosis) -> Block:
    parts = facts.breakdown(diagnosis.parts)
    rows = tuple((label, text.duration(time), text.share(part)) for label, _, time, part in parts.itertuples(index=False))
    return Section("Parts of a step", (Table("", ("part", "time per step", "of step"), rows, frozenset({1, 2})),))


def _sections(diagnosis: Diagnosis, suggestions: Sequence[Suggestion]) -> list[Block]:
    sections: list[Block] = []
    if len(diagnosis.found) > 1:
        sections += [*picture(findings_chart(diagnosis.findings)), findings_table(diagnosis.found, "Found, worst first")]
    if len(suggestions) > 1:
        sections.append(
            Section(f"Other changes, each predicted alone ({len(suggestions) - 1})", (_suggestions_table(suggestions[1:], ""),))
        )
    return [*sections, *training_section(diagnosis), *rest(diagnosis)]


def _finding(finding: Finding) -> list[Block]:
    aside = f"{finding.detector}, {TIERS.get(finding.tier, finding.tier)}"
    return [Verdict("!", finding.summary, aside), Line("basis", certainty(finding)), evidence_table(finding)]


def _suggestions(suggestions: Sequence[Suggestion]) -> list[Block]:
    if not suggestions:
        return [Line("", "no change is suggested")]
    known = facts.impact(side_by_side(suggestions))
    drawn = picture(impact_chart(known)) if known["after_us"].notna().any() else ()
    return [*drawn, _suggestions_table(suggestions, "Changes, each predicted alone")]


def _suggestions_table(suggestions: Sequence[Suggestion], caption: str) -> Table:
    rows = tuple(
        (item.fix, changed(item.changes), predicted(item.prediction), item.caution or text.NOTHING) for item in suggestions
    )
    return Table(caption, ("fix", "change", "predicted", "check first"), rows)


def _suggestion(suggestion: Suggestion) -> list[Block]:
    answers = [Line("answers", ", ".join(suggestion.answers))] if suggestion.answers else []
    drawn = _impact(suggestion.prediction)
    return [
        *suggestion_blocks(suggestion),
        *answers,
        change_lines(suggestion.changes),
        *drawn,
        *assumptions(suggestion.prediction),
    ]


def _prediction(answer: Prediction | Unknown) -> list[Block]:
    if isinstance(answer, Unknown):
        return [Verdict("?", predicted(answer))]
    return [Verdict("", predicted(answer), label="predict"), *_impact(answer), *assumptions(answer)]


def _impact(answer: Prediction | Unknown) -> tuple[Block, ...]:
    if isinstance(answer, Prediction) and answer.metric == "memory_bytes":
        return ()  # the chart is of times
    table = facts.impact({"predicted": answer})
    return picture(impact_chart(table)) if table["after_us"].notna().any() else ()


def _outcome(outcome: Outcome) -> list[Block]:
    rows = tuple(
        (
            what,
            text.duration(before),
            text.duration(after),
            text.duration_range(low, high),
            text.speedup(None if speed != speed else speed),  # noqa: PLR0124 - NaN
        )
        for what, before, after, low, high, speed in outcome_frame(outcome).itertuples(index=False)
    )
    header = ("", "before", "after", "80 % interval", "speed-up")
    lines: list[Block] = [
        Verdict("?" if outcome.void else "", outcome.verdict, label="outcome"),
        Table("Step time", header, rows, frozenset({1, 2, 3, 4})),
    ]
    if outcome.changes:
        lines.append(change_lines(outcome.changes))
    steps = f"{text.count(outcome.steps_before, 'steady step')} before, {outcome.steps_after} after"
    lines.append(Line("steps", f"{steps}; {outcome.caution}" if outcome.caution else steps))
    return lines


def _run(run: Run) -> list[Block]:
    tables = ("steps", "phases", "host_ops", "device_ops", "collectives")
    rows = tuple(
        (
            name,
            f"{len(getattr(run, name)):,}",
            "recorded" if name in run.signals else run.missing.get(name, "not recorded"),
        )
        for name in tables
    )
    lines: list[Block] = [
        Line("run", run_words(repr(run))),
        Table("Tables", ("table", "rows", ""), rows, frozenset({1})),
    ]
    if run.machine.devices:
        lines.append(Line("devices", ", ".join(run.machine.devices)))
    if run.config:
        lines.append(
            Section(f"Config ({len(run.config)})", (Items(tuple(f"{knob}: {value}" for knob, value in run.config.items())),))
        )
    if run.notes:
        lines.append(Section(f"Notes of the reader ({len(run.notes)})", (Items(run.notes),)))
    return lines
