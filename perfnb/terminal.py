"""Plain-text faces of what the command line prints: aligned tables that read the same with and without a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from perfnb import text
from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Prediction, Unknown
from perfnb.wording import sureness

if TYPE_CHECKING:
    import pandas as pd

    from perfnb import Diagnosis, Finding, NotMeasured, Suggestion
    from perfnb.doctor import Line

_INDENT: Final = "  "
_SIZE_WITHOUT_TERMINAL: Final = (120, 24)
_LEFT_OF_PROSE: Final = 40
"""Narrowest column that prose is wrapped into: below it a long line reads better than a tower of words."""

_RANKS_LIMIT: Final = 40
"""Characters of the list of ranks on screen; the whole list is in the JSON."""


def analysis(diagnosis: Diagnosis, suggestions: Sequence[Suggestion]) -> str:
    """What `perfnb analyze` prints.

    Parameters
    ----------
    diagnosis
        The answer of every detector.
    suggestions
        The fixes that apply.

    Returns
    -------
    str
        A heading and up to six tables: found, possible, suggested, the training itself, not limiting, not measured; then the
        reader's notes.
    """
    sections = {
        "Found": _findings(diagnosis.found),
        "Possible, with too few steps to be sure": _findings(diagnosis.possible),
        "Suggested": _suggestions(suggestions),
        "The training itself, by its curve": _training(diagnosis.training),
        "Looked at and not limiting": table(
            ("what", "share of step", "limit", ""),
            [(item.detector, text.share(item.severity), text.share(item.flag_above), item.summary) for item in diagnosis.cleared],
        ),
        "Not measured": _unmeasured(diagnosis.unmeasured),
        "Notes": table((), [(note,) for note in diagnosis.notes]),
    }
    if not diagnosis.found:
        sections["Found"] = f"{_INDENT}nothing above its limit"
    return "\n\n".join([_heading(diagnosis), *(f"{title}\n{body}" for title, body in sections.items() if body)])


def prediction(settings: Mapping[str, Any], config: Mapping[str, Any], answer: Prediction | Unknown) -> str:
    """What `perfnb predict` prints.

    Parameters
    ----------
    settings
        Knobs and their values after the change.
    config
        Knobs and their values before it.
    answer
        What the what-if model answered.

    Returns
    -------
    str
        One line per change, the prediction or what is missing for one, and what must hold for it.
    """
    before = {knob: str(value_of(config, knob)) if has_knob(config, knob) else "-" for knob in settings}
    changes = table(("knob", "before", "after"), [(knob, before[knob], str(after)) for knob, after in settings.items()])
    assumptions = answer.assumptions if isinstance(answer, Prediction) else ()
    assumed = table((), [("Assumed", assumptions)]) if assumptions else ""
    memory = answer.memory if isinstance(answer, Prediction) else None
    told = [("Answer", _predicted(answer)), *([("Memory", memory.words)] if memory is not None else [])]
    return "\n\n".join(filter(None, (changes, table((), told), assumed)))


def accuracy(rows: pd.DataFrame, notes: Iterable[str]) -> str:
    """What `perfnb accuracy` prints.

    Parameters
    ----------
    rows
        `perfnb.accuracy()`.
    notes
        What of the ledger was skipped.

    Returns
    -------
    str
        One line per model and knob, and the notes.
    """
    header = ("model", "knobs", "pairs", "workloads", "error: median", "p90", "largest", "in 80 % interval (95 %)", "width",
              "wrong sign", "refused", "void", "pending")  # fmt: skip
    lines = [
        (
            each["model"] or text.NOTHING,
            each["knobs"],
            f"{each['n']}",
            f"{each['workloads']}",
            text.share(each["median_error_share"]),
            text.share(each["p90_error_share"]),
            text.share(each["max_error_share"]),
            f"{text.share(each['coverage_share'])} ({text.share_range(each['coverage_low'], each['coverage_high'])})",
            text.share(each["mean_width_share"]),
            f"{each['sign_errors']} of {each['signs']}",
            f"{each['refusals']}",
            f"{each['voids']}",
            f"{each['pending']}",
        )
        for each in rows.to_dict(orient="records")
    ]
    told = (
        table(header, lines)
        or f"{_INDENT}no prediction is in the accuracy ledger yet: perfnb.outcomes.record_prediction writes one"
    )
    noted = table((), [(note,) for note in notes])
    return "\n\n".join(["Predicted step time against measured\n" + told, *([f"Notes\n{noted}"] if noted else [])])


def doctor(sections: Mapping[str, Iterable[Line]]) -> str:
    """What `perfnb doctor` prints.

    Parameters
    ----------
    sections
        Title to the lines below it.

    Returns
    -------
    str
        One line per thing that was looked at: its sign, what is there, and the remedy where something is missing.
    """
    return "\n\n".join(
        f"{text.clean(title)}\n"
        + table((), [("ok" if line.is_there else "--", line.subject, line.found, line.remedy) for line in lines])
        for title, lines in sections.items()
    )


def frame(rows: pd.DataFrame) -> str:
    """A table of measurements, numbers to one decimal.

    Parameters
    ----------
    rows
        One row per thing; its index is left out.

    Returns
    -------
    str
        Column names and rows, numbers flush right.
    """
    return rows.to_string(index=False, na_rep="-", float_format="{:,.1f}".format)


def table(header: Sequence[str], rows: Iterable[Sequence[str | Sequence[str]]]) -> str:
    """Rows under each other, columns parted by two spaces, the last column wrapped to the width of the terminal.

    Parameters
    ----------
    header
        A word per column; empty for none.
    rows
        Texts, one per column, the last one perhaps several, each of which starts on a line of its own. Control characters in
        them are shown, not sent.

    Returns
    -------
    str
        Lines without trailing spaces; empty where there are no rows.

    Examples
    --------
    >>> print(table(("what", "why"), [("data_stall", "no loader"), ("host_sync", ("no device", "no kernel"))]))
      what        why
      data_stall  no loader
      host_sync   no device
                  no kernel
    """
    given = [*([header] if header else []), *rows]
    if len(given) == bool(header):
        return ""
    cells = [[text.clean(cell) for cell in row[:-1]] for row in given]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    hanging = " " * (len(_INDENT) + sum(widths) + 2 * len(widths))
    room = max(_width() - len(hanging), _LEFT_OF_PROSE)
    lines = []
    for row, own in zip(given, cells, strict=True):
        start = _INDENT + "".join(f"{cell:{width}}  " for cell, width in zip(own, widths, strict=True))
        prose = [row[-1]] if isinstance(row[-1], str) else row[-1]
        wrapped = [line for each in prose for line in textwrap.wrap(text.clean(each), room, break_long_words=False)] or [""]
        lines += [(prefix + line).rstrip() for prefix, line in zip([start, *[hanging] * len(wrapped)], wrapped, strict=False)]
    return "\n".join(lines)


def _heading(diagnosis: Diagnosis) -> str:
    step = ""
    if diagnosis.step_us is not None:
        step = f"Mean step {text.duration(diagnosis.step_us)}"
        if diagnosis.low_us is not None and diagnosis.high_us is not None:
            step += f" ({text.duration_range(diagnosis.low_us, diagnosis.high_us)}, 80 %)"
        step += f"; {diagnosis.steps_used}" if diagnosis.steps_used else ""
    return "\n".join(textwrap.fill(text.clean(line), _width()) for line in (diagnosis.run_line, step) if line)


def _training(told: Diagnosis | None) -> str:
    """Findings on the curve, then what was looked for and what could not be."""
    if told is None:
        return ""
    if told.unmeasured and not (told.found or told.cleared) and len({each.reason for each in told.unmeasured}) == 1:
        return table((), [("not measured", told.unmeasured[0].reason)])
    seen = table(
        (),
        [
            *((each.detector, (each.summary, sureness(each))) for each in told.found),
            *((each.detector, f"not seen: {each.summary}") for each in told.cleared),
        ],
    )
    return "\n".join(filter(None, (seen, _unmeasured(told.unmeasured))))


def _unmeasured(unmeasured: Sequence[NotMeasured]) -> str:
    """What could not be looked at: each reason once, with those that have it."""
    reasons: dict[str, list[str]] = {}
    for item in unmeasured:
        reasons.setdefault(item.reason, []).append(item.detector)
    return table((), [(f"{len(names)} x", (f"{reason}:", ", ".join(names))) for reason, names in reasons.items()])


def _findings(findings: Sequence[Finding]) -> str:
    return table((), [(finding.detector, (finding.summary, _standing(finding))) for finding in findings])


def _standing(finding: Finding) -> str:
    """On which ranks a finding was made and how sure it is."""
    ranks = f"rank{'s' if len(finding.ranks) > 1 else ''} {text.clean(text.numbers(finding.ranks), _RANKS_LIMIT)}"
    sure = f"confidence {finding.confidence:.2f} ({finding.record})"
    return ", ".join([ranks, sure, *(["upper bound: less may be lost"] if finding.upper_bound else [])])


def _suggestions(suggestions: Sequence[Suggestion]) -> str:
    return table((), [(suggestion.fix, tuple(_reasons(suggestion))) for suggestion in suggestions])


def _reasons(suggestion: Suggestion) -> Iterator[str]:
    yield ", ".join(map(str, suggestion.changes))
    yield _predicted(suggestion.prediction)
    yield f"Why: {suggestion.reason}"
    if suggestion.caution:
        yield f"Check first: {suggestion.caution}"


def _predicted(answer: Prediction | Unknown) -> str:
    if isinstance(answer, Unknown):
        return f"No prediction: {answer.reason.rstrip('.')}. Needs: {answer.needs.rstrip('.')}."
    step, interval = text.duration_change(answer.before, answer.after), text.duration_range(answer.low, answer.high)
    per = "step" if answer.per == "step" else f"time per {answer.per}"
    return f"Predicted {per} {step} ({interval}, 80 %): {answer.verdict}. Basis: {answer.basis}."


def _width() -> int:
    return shutil.get_terminal_size(_SIZE_WITHOUT_TERMINAL).columns
