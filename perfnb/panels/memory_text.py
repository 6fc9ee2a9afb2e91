"""What an answer says beside its time: the peak of memory, whether that leaves a speed to believe, and what it counts."""

from __future__ import annotations

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, LOST, NO_EFFECT
from perfnb.document import Block, Line, Table
from perfnb.prediction import MemoryPart, Prediction, Unknown


def memory_of(answer: Prediction | Unknown) -> MemoryPart | None:
    """The part of an answer that is about memory; None where it carries none."""
    return answer.memory if isinstance(answer, Prediction) else None


def risk_of(answer: Prediction | Unknown) -> MemoryPart | None:
    """The part of an answer that is about memory where that may not fit."""
    part = memory_of(answer)
    return part if part is not None and part.is_at_risk else None


def believed(answer: Prediction | Unknown) -> Prediction | Unknown:
    """The answer; where memory may run out no speed is shown for it."""
    risk = risk_of(answer)
    return answer if risk is None else Unknown(risk_words(risk), "a change that takes less memory")


def present(now: Prediction | Unknown, answer: Prediction | Unknown) -> Prediction | None:
    """The present value as the answer counts: per step, or per sample where the change alters how many a step has."""
    shown = believed(answer)
    given = shown if isinstance(shown, Prediction) else now
    if isinstance(given, Unknown):
        return None
    return Prediction(given.metric, given.before, given.before, given.before, given.before, given.basis)


def risk_words(part: MemoryPart) -> str:
    """Why no speed is promised.

    Examples
    --------
    >>> risk_words(MemoryPart("reserved", 0, 80 << 30, 78 << 30, 86 << 30, 79 << 30, "C", "prior"))
    'may run out of memory: 78.0 GiB to 86.0 GiB of 79.0 GiB usable, so no speed is promised'
    """
    return f"{part.verdict}: {_interval(part)} of {text.byte_size(part.usable_bytes)} usable, so no speed is promised"


def memory_blocks(part: MemoryPart | None) -> list[Block]:
    """The peak now and after, with its interval, against what is usable."""
    if part is None:
        return []
    usable = part.usable_bytes
    whole = float(max(usable or 0, part.high_bytes, part.before_bytes, 1))
    after = LOST if part.is_at_risk else GROUP_COLOURS["copying"]
    rows = [
        ("now", text.byte_size(part.before_bytes), text.NOTHING),
        ("after the change", text.byte_size(part.after_bytes), _interval(part)),
    ]
    bars = [(part.before_bytes / whole, NO_EFFECT), (part.after_bytes / whole, after)]
    if usable is not None:
        rows.append(("usable", text.byte_size(usable), text.NOTHING))
        bars.append((usable / whole, NO_EFFECT))
    basis = f"{part.verdict}; level {part.level}, {text.clean(part.basis, 200)}"
    header = ("", "peak", "80 % interval")
    return [
        Table(f"Memory, {text.name(part.what)}", header, tuple(rows), frozenset({1, 2}), tuple(bars)),
        Line("memory", "; ".join([basis, *(text.clean(each, 200) for each in part.assumptions)])),
    ]


def _interval(part: MemoryPart) -> str:
    return f"{text.byte_size(part.low_bytes)} to {text.byte_size(part.high_bytes)}"
