"""The score of each peer: the same questions that our own detectors are asked, with counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.detection.case import Truth
from benchmarks.detection.peers.execution import Outcome
from benchmarks.detection.peers.saying import Said, said
from benchmarks.detection.score import AMBIENT_RUNQUEUE, CONTENTION, Share

Names = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a peer said of one case, beside its truth.

    Attributes
    ----------
    case, peer, did_not_run
        Reason where it did not run; else empty.
    label
        "positive", "negative", "between" of the fault; "control".
    right, beside, wrong
        Rules that named the cause; that said what is true besides; that named something else.
    is_first_right
        Whether the first that it said is right.
    truth, size
        True share of the step; the share that the first right rule states, nearest to the truth where it may be read in two ways.
    """

    case: str
    peer: str
    did_not_run: str
    label: str
    right: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    is_first_right: bool = False
    truth: float | None = None
    size: float | None = None


def judge(outcome: Outcome, truths: Sequence[Truth], seen: Mapping[str, float], expects: Names, accepts: Names) -> Judged:
    """One outcome beside the truth of its case.

    Parameters
    ----------
    outcome
        What became of the case under a peer.
    truths
        Measured truths of the case, none for a control.
    seen
        What was measured of its blocks without the cause: on a machine that others load, cpu_contention is true, as it is for us.
    expects, accepts
        Fault or control id to the detectors that count as right, and that are true besides.
    """
    case, truth = outcome.case, truths[0] if truths else None
    label = "control" if truth is None else truth.label
    share = None if truth is None or math.isnan(truth.share) else truth.share
    if outcome.reason:
        return Judged(case.id, outcome.peer, outcome.reason, label, truth=share)
    names = case.faults or (case.control,)
    wanted = {detector for name in names for detector in expects.get(name, ())} if label != "negative" else set()
    allowed = {detector for name in names for detector in accepts.get(name, ())}
    if seen.get("runqueue_share", 0.0) >= AMBIENT_RUNQUEUE:
        allowed.add(CONTENTION)
    words = said(outcome.peer, outcome.raw)
    right = [each for each in words if wanted & set(each.meaning.detectors)]
    beside = [each for each in words if each not in right and allowed & set(each.meaning.detectors)]
    wrong = [each for each in words if each not in right and each not in beside]
    return Judged(
        case.id,
        outcome.peer,
        "",
        label,
        right=_rules(right),
        beside=_rules(beside),
        wrong=_rules(wrong),
        is_first_right=bool(words) and words[0] in right,
        truth=share,
        size=_size(right, share),
    )


def _rules(words: Iterable[Said]) -> tuple[str, ...]:
    return tuple(each.rule for each in words)


def _size(right: Sequence[Said], truth: float | None) -> float | None:
    stated = next((each.shares for each in right if each.shares), ())
    return min(stated, key=lambda share: abs(share - truth)) if stated and truth is not None else None


def score(judged: Sequence[Judged]) -> dict[str, Any]:
    """Score of one peer: counts, shares with their intervals, and error of sizes. Cases that did not run count nowhere.

    Returns
    -------
    dict
        recall, precision, first_right, false_alarms: {"hits", "of", "share", "low", "high"}; size_error: {"median", "of"}, of
        |size - truth| / truth; did_not_run: reason to number; ran.
    """
    ran = [each for each in judged if not each.did_not_run]
    positives = [each for each in ran if each.label == "positive"]
    controls = [each for each in ran if each.label == "control"]
    scored = [each for each in ran if each.label != "between"]
    right, wrong = (sum(len(getattr(each, name)) for each in scored) for name in ("right", "wrong"))
    errors = [abs(each.size - each.truth) / each.truth for each in positives if each.size is not None and each.truth]
    reasons: dict[str, int] = {}
    for each in judged:
        if each.did_not_run:
            reasons[each.did_not_run] = reasons.get(each.did_not_run, 0) + 1
    return {
        "ran": len(ran),
        "recall": _share(sum(bool(each.right) for each in positives), len(positives)),
        "precision": _share(right, right + wrong),
        "first_right": _share(sum(each.is_first_right for each in positives), len(positives)),
        "false_alarms": _share(sum(bool(each.wrong) for each in controls), len(controls)),
        "size_error": {"median": median(errors) if errors else None, "of": len(errors)},
        "did_not_run": reasons,
    }


def _share(hits: int, of: int) -> dict[str, Any]:
    share = Share(hits, of)
    return {"hits": hits, "of": of, "share": share.value if of else None, "low": share.low, "high": share.high}


def as_markdown(scores: Mapping[str, Mapping[str, Any]], versions: Mapping[str, str]) -> str:
    """One row per peer; `scores` as `score` gives them."""
    head = "| tool | causes found | right among what it says | first named is right | controls with an alarm | size, median error"
    lines = [f"{head} | did not run |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for peer, told in scores.items():
        cells = [_cell(told[name]) for name in ("recall", "precision", "first_right", "false_alarms")]
        error = told["size_error"]
        size = "states none" if error["median"] is None else f"{error['median']:.0%} of {error['of']}"
        lines.append(f"| {peer} {versions.get(peer, '')} | {' | '.join(cells)} | {size} | {sum(told['did_not_run'].values())} |")
    return "\n".join(lines)


def _cell(told: Mapping[str, Any]) -> str:
    if told["share"] is None:
        return "none of 0"
    return f"{told['hits']} of {told['of']} ({told['low']:.0%} to {told['high']:.0%})"


def rows(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """All that a score rests on, one row per case and peer, for a file."""
    return [asdict(each) for each in judged]
